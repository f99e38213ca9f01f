"""The service in a thread, and as a process."""

import contextlib
import socket
import subprocess
import sys
import threading
import time


@contextlib.contextmanager
def serving(app):
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (listening,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def served(port, *options):
    """`galip serve` as a process, and its address."""
    command = [sys.executable, "-m", "galip_cli.main", "serve", "--port", str(port)]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 300
            while not is_up(f"{address}/readyz"):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield process, address
        finally:
            process.kill()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def is_up(url):
    import httpx

    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
