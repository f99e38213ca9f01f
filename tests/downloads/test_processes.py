"""Processes that are killed while they fetch, and processes that fetch at once."""

import signal
import subprocess
import sys
import time

import child
import numpy as np
import pytest

from galip_keras.downloads.fetch import path_of
from galip_keras.downloads.sources import SOURCES

# Fetching has nothing to do with the backend: once is enough.
pytestmark = [
    pytest.mark.backend("tensorflow"),
    pytest.mark.extra("weights", "gdown"),
    pytest.mark.slow,
]

COCO = "pre_coco.pth"
MERGES = "clip-vit-base-patch32/merges.txt"
# gdown writes pieces of this size.
PIECE = 512 * 1024
CONTENT = np.random.default_rng(0).bytes(20 * PIECE + 7)

FETCH = """
import sys, types
import web
web.redirect(types.SimpleNamespace(address=sys.argv[1]))
from galip_keras.downloads.fetch import fetch
print(fetch(sys.argv[2]))
"""


@pytest.fixture
def start(web, home):
    """Start a process that fetches a file."""
    web.files[SOURCES[COCO].drive_id] = CONTENT
    web.files["openai/clip-vit-base-patch32/merges.txt"] = CONTENT

    def start(name):
        return subprocess.Popen(
            [sys.executable, "-c", FETCH, web.address, name],
            env=child.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def arrived(home):
    """How much of an unfinished download is on disk."""
    return sum(x.stat().st_size for x in home.rglob("*.part"))


@pytest.mark.parametrize("name", [COCO, MERGES])
def test_killed_at_every_tenth(web, home, start, name):
    # At once, this would be over before it can be killed.
    web.pause = 0.01
    for tenth in range(1, 10):
        process = start(name)
        while arrived(home) < tenth * len(CONTENT) // 10:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not path_of(name).exists()
    web.pause, web.sent = 0, 0
    kept = arrived(home)
    assert kept > len(CONTENT) // 2
    output, errors = start(name).communicate()
    assert output.strip() == str(path_of(name)), errors
    assert path_of(name).read_bytes() == CONTENT
    # The rest, and what was under way when the first answer of two was left.
    assert len(CONTENT) - kept <= web.sent < len(CONTENT)
    found = [x for x in (home / "downloads").rglob("*") if x.is_file()]
    assert {x.suffix for x in found} <= {path_of(name).suffix, ".json", ".lock"}


@pytest.mark.parametrize("name", [COCO, MERGES])
def test_processes_at_once_fetch_once(web, home, start, name):
    web.pause = 0.01
    processes = [start(name) for _ in range(3)]
    results = [process.communicate() for process in processes]
    assert [x.returncode for x in processes] == [0] * 3, results
    assert {output.strip() for output, _ in results} == {str(path_of(name))}
    assert path_of(name).read_bytes() == CONTENT
    assert web.sent == len(CONTENT)
    waited = [f"at work on {name}: waiting for it" in errors for _, errors in results]
    assert sum(waited) == 2
