"""`galip serve`."""

import ipaddress
import socket

import click

from galip_cli.options import MODEL, PRECISION, require
from galip_cli.quiet import quiet_imports
from galip_cli.released import fetch_first


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_free(host, port, option):
    """Check the port before the slow load."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as found:
        # As uvicorn does: a service that has just ended must not be in the way.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"{_address(host, port)} cannot be listened on ({error.strerror}): "
                f"give another {option}."
            ) from error


def _address(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@click.command()
@MODEL
@PRECISION
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True)
@click.option(
    "--name", default="galip", show_default=True, help="Name of the model for clients."
)
@click.option(
    "--api-key",
    envvar="GALIP_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Key that requests must send, as Authorization: Bearer KEY.",
)
@click.option(
    "--insecure", is_flag=True, help="Allow access from other machines without a key."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Maximum number of images drawn at once.",
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0, 10_000),
    default=10,
    show_default=True,
    help="Maximum time that an image waits for others, in milliseconds.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Maximum number of waiting images; beyond that, the answer is 503.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds after which a request fails with 503.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(1, 65535),
    help="Port for TensorFlow Serving's Predict over gRPC.  [default: no gRPC]",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin, such as https://example.org, use the service; "
    "may be repeated.  [default: none]",
)
@click.option("--ui", is_flag=True, help="Serve a page to try prompts, at /.")
def serve(
    model, precision, host, port, name, api_key, insecure, batch_size, max_wait_ms,
    max_queue, timeout, grpc_port, cors_origins, ui,
):  # fmt: skip
    """Serve a model over HTTP.

    MODEL may also be a folder that `galip export` wrote. /v1/models/galip has
    TensorFlow Serving's REST interface, /v1/images/generations has OpenAI's images
    interface, and /image?prompt=&seed= returns an image for a browser; /docs describes
    them. /healthz, /readyz and /metrics are for operators. After SIGTERM, the service
    answers pending requests and ends.

    \b
    Examples:
      galip serve --ui
      galip serve --model served/galip/1 --host 0.0.0.0 --api-key SECRET
    """
    if not (_is_loopback(host) or api_key or insecure):
        raise click.UsageError(
            f"others could reach {host}: give --api-key KEY, or --insecure if they may."
        )
    require("serving", ("fastapi", "uvicorn", "prometheus_client"), "serve")
    if grpc_port is not None:
        require("--grpc-port", ("tensorflow", "tensorflow_serving"), "grpc")
        _check_free(host, grpc_port, "--grpc-port")
    _check_free(host, port, "--port")
    fetch_first(model)
    with quiet_imports():
        import uvicorn

        from galip_keras.sampling.sampler import load_any
        from galip_keras.serving.app import create_app

        network = load_any(model, precision=precision)
    app = create_app(
        network,
        name=name,
        api_key=api_key,
        batch_size=batch_size,
        max_wait=max_wait_ms / 1000,
        max_queue=max_queue,
        timeout=timeout,
        page=ui,
        cors_origins=cors_origins,
        grpc_address=None if grpc_port is None else _address(host, grpc_port),
    )
    if precision == "auto":
        click.echo(f"Images are computed in {network.precision}.", err=True)
    if not _is_loopback(host) and not api_key:
        click.echo(f"Warning: anybody who reaches {host} can use it.", err=True)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=int(timeout) + 1,
        server_header=False,
    )
