"""The memory that compiling a training step leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import keras

_SECONDS = 2.0


@contextlib.contextmanager
def trimmed() -> Iterator[None]:
    """Give memory that is free back to the system, every two seconds.

    XLA allocates 1.7 GiB while it compiles the paper's model. The C library keeps half
    of it, and the first step begins before anyone could ask for it back: hence the
    thread. Without glibc, nothing happens.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        yield
        return
    is_over = threading.Event()

    def run():
        while not is_over.wait(_SECONDS):
            trim(ctypes.c_size_t(0))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class Trim(keras.callbacks.Callback):
    """Gives the memory back that compiling the first step of a `fit` takes.

    As a context manager it also ends the thread if the first step fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self._first_step = contextlib.ExitStack()

    def __enter__(self) -> Trim:
        return self

    def __exit__(self, *_: object) -> None:
        self._first_step.close()

    def on_train_begin(self, logs: Any = None) -> None:
        self._first_step.enter_context(trimmed())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._first_step.close()
