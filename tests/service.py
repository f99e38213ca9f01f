"""The service in a thread, and as a process."""

import contextlib
import io
import socket
import subprocess
import sys
import threading
import time

import numpy as np
from PIL import Image

PREDICT = "/v1/models/galip:predict"


class Model:
    """Draws 2x2 pixels: length of the prompt, seed, truncation.

    From token ids and noise: the first and last id, and ten times the first noise.
    """

    def __init__(self):
        self.batches = []
        self.is_drawing = False
        self.release = threading.Event()
        self.release.set()
        self.sizes = {
            "image_size": 2, "latent_dim": 4, "embedding_dim": 1, "sequence_length": 3,
            "vocabulary_size": 200,
        }  # fmt: skip

    def generate(self, inputs, seed=None, truncation=1.0):
        self.is_drawing = True
        self.release.wait(10)
        self.is_drawing = False
        self.batches.append(list(zip(inputs, seed)))
        if "break" in inputs:
            raise RuntimeError("/secret/path")
        pixels = [(len(x), s % 256, 10 * truncation) for x, s in zip(inputs, seed)]
        return np.array([np.full((2, 2, 3), p) for p in pixels], "uint8")

    def generate_from_token_ids(self, token_ids, noise):
        assert (token_ids.dtype, noise.dtype) == ("int32", "float32")
        self.batches.append(token_ids.tolist())
        pixels = np.stack([*token_ids[:, [0, -1]].T, 10 * noise[:, 0]], 1)
        return np.tile(pixels[:, None, None], (1, 2, 2, 1)).astype("uint8")

    def embed(self, inputs):
        return np.array([[len(x)] for x in inputs], "float32")

    def decode(self, noise, text_embeddings):
        self.batches.append(text_embeddings.tolist())
        return np.stack([np.full((2, 2, 3), x, "uint8") for x in text_embeddings])

    latent_dim = 4


@contextlib.contextmanager
def serving(app):
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
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


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_ready(client):
    until(lambda: client.get("/readyz").status_code == 200)


def wait_until_queued(client, count):
    line = f"galip_queue_pictures {count:.1f}\n"
    until(lambda: line in client.get("/metrics").text)


def wait_until_drawing(client, model):
    """Wait until an image is being drawn and the queue is empty."""
    until(lambda: model.is_drawing)
    wait_until_queued(client, 0)


def pixel(png):
    return Image.open(io.BytesIO(png)).getpixel((0, 0))
