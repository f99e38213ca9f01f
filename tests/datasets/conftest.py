"""A server to download from, and training on a dataset."""

import functools
import http.server
import threading

import pytest


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a server for the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def train(galip, tmp_path, less_to_compile):
    """Run two steps of `galip train` on a dataset. Return its standard error."""

    def run(dataset, *options):
        code, output, errors = galip(
            "train", "--dataset", dataset, "--data-dir", tmp_path / "data",
            "--preset", "galip_tiny", "--steps", 2, "--batch-size", 2,
            "--run", tmp_path / "run", *options,
        )  # fmt: skip
        assert code == 0, errors
        assert output == f"{tmp_path / 'run'}\n"
        assert (tmp_path / "run" / "preset" / "config.json").exists()
        return errors

    return run
