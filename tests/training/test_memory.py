"""Memory that is given back while a step compiles."""

import sys
import threading

import child
import pytest

from galip_keras.training.memory import Trim, trimmed

# Small pieces of half a gigabyte, which the C library keeps for the sake of the last.
SCRIPT = """
import ctypes, time
import numpy as np
from galip_keras.training import memory

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

memory._SECONDS = 0.01
before = held()
pieces = [np.ones(8192) for _ in range(8192)]
last = pieces[-1]
del pieces
kept = held() - before
deadline = time.monotonic() + 60
with memory.trimmed():
    while held() - before > kept / 2 and time.monotonic() < deadline:
        time.sleep(0.01)
print(kept > 400e6, held() - before < kept / 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can trim")
def test_free_memory_is_given_back():
    assert child.run(SCRIPT).stdout.split() == ["True", "True"]


def test_nothing_runs_on_after_the_first_step():
    before = threading.active_count()
    with Trim() as trim:
        trim.on_train_begin()
        assert threading.active_count() == before + 1
        trim.on_train_batch_end(0)
        assert threading.active_count() == before
        trim.on_train_begin()
    assert threading.active_count() == before


def fail(callback):
    with callback:
        callback.on_train_begin()
        raise RuntimeError


def test_nothing_runs_on_after_an_error():
    before = threading.active_count()
    with pytest.raises(RuntimeError):
        fail(Trim())
    assert threading.active_count() == before


def test_a_library_without_trimming(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    before = threading.active_count()
    with trimmed():
        assert threading.active_count() == before
