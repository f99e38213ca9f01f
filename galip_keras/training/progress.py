"""The progress bar of a run, and what interrupts it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import keras
from keras import ops

from galip_keras import backend
from galip_keras.console import bar_interval, progress_bar
from galip_keras.models.gan import GALIP

# Stands for the deadline; less than the number of any signal that is caught.
_LATE = 1


class Progress(keras.callbacks.Callback):
    """A progress bar on standard error with rate, time left and losses.

    Keras' own bar shows the epoch alone, and begins at 0 when a run is resumed. On a
    terminal this one is redrawn in place; in a log file it adds a line per minute.

    Args:
        last: int. The last training step.
    """

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def on_train_begin(self, logs: Any = None) -> None:
        self._interval = bar_interval()
        self._shown = time.monotonic() - self._interval
        self._bar = progress_bar(
            backend.is_main(),
            initial=training_step(self.model),
            total=self.last,
            unit="step",
        )

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        now = time.monotonic()
        if now >= self._shown + self._interval or self._bar.n + 1 == self.last:
            self._shown = now
            losses = {
                name: float(value)
                for name, value in (logs or {}).items()
                if not name.endswith("gradient_norm")
            }
            self._bar.set_postfix(losses, refresh=False)
        self._bar.update()

    def on_train_end(self, logs: Any = None) -> None:
        self._bar.close()


class Interruption(keras.callbacks.Callback):
    """Stops training after the running step, on a signal or at a deadline.

    The signals are SIGINT (Ctrl-C) and SIGTERM. They are caught while this is entered
    as a context manager, and in the main thread alone. A second signal ends the process
    at once. Processes that train together all stop after the same step.

    Args:
        deadline: float. The `time.monotonic()` to stop at, or None.

    Attributes:
        received: int. The number of the signal, or None.
        is_late: bool. Whether the deadline has passed.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, deadline: float | None = None) -> None:
        super().__init__()
        self.deadline = deadline
        self.received: int | None = None
        self.is_late = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        is_late = self.deadline is not None and time.monotonic() >= self.deadline
        number = backend.highest(self.received or (_LATE if is_late else 0))
        if number:
            self.is_late = number == _LATE
            # Another process may have received it.
            self.received = None if self.is_late else number
            self.model.stop_training = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        for caught in self._SIGNALS:
            signal.signal(caught, signal.SIG_DFL)
        # print() is not safe here: the signal may have interrupted another one.
        os.write(2, b"\nStopping after this step. Press again to quit at once.\n")


def training_step(model: GALIP) -> int:
    """The number of training steps that a GAN has done."""
    return int(ops.convert_to_numpy(model.step))
