"""`galip serve`."""

import ipaddress
import socket

import click

from galip_cli.options import MODEL, require
from galip_cli.quiet import quiet_imports


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_free(host, port, option):
    """Check the port before the slow load."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as found:
        # As uvicorn does: a service that has just ended is no hindrance.
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
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True)
@click.option(
    "--name", default="galip", show_default=True, help="What clients call the model."
)
@click.option(
    "--api-key",
    envvar="GALIP_API_KEY",
    show_envvar=True,
    metavar="KEY",
    help="What requests have to carry: Authorization: Bearer KEY.",
)
@click.option(
    "--insecure", is_flag=True, help="Let others reach it without a key all the same."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="The most images drawn together.",
)
@click.option(
    "--max-wait-ms",
    type=click.FloatRange(0, 10_000),
    default=10,
    show_default=True,
    help="How long an image may wait for others.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="The most images that may wait; beyond that, 503.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="Seconds after which a request is given up.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(1, 65535),
    help="Offer TensorFlow Serving's Predict over gRPC, too.",
)
@click.option("--ui", is_flag=True, help="A page to play with, at /.")
def serve(
    model, host, port, name, api_key, insecure, batch_size, max_wait_ms, max_queue,
    timeout, grpc_port, ui,
):  # fmt: skip
    """Serve a model over HTTP.

    MODEL may be what `galip export` wrote. TensorFlow Serving's REST interface at
    /v1/models/galip, OpenAI's images interface at /v1/images/generations, an image for
    a browser at /image?prompt=&seed=; the interfaces are described at /docs. /healthz,
    /readyz and /metrics are for those who run it. SIGTERM ends it once what was asked
    for is answered.

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
        require("--grpc-port", ("tensorflow_serving",), "grpc")
        _check_free(host, grpc_port, "--grpc-port")
    _check_free(host, port, "--port")
    with quiet_imports():
        import uvicorn

        from galip_keras.sampling.sampler import load_any
        from galip_keras.serving.app import create_app

        network = load_any(model)
    app = create_app(
        network,
        name=name,
        api_key=api_key,
        batch_size=batch_size,
        max_wait=max_wait_ms / 1000,
        max_queue=max_queue,
        timeout=timeout,
        page=ui,
        grpc_address=None if grpc_port is None else _address(host, grpc_port),
    )
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
