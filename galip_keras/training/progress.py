"""Progress of a run, and what interrupts it."""

import os
import signal
import sys
import threading
import time

import keras
from keras import ops
from tqdm.auto import tqdm

from galip_keras.backend import devices

# Less than the number of any signal that is caught.
LATE = 1


class Progress(keras.callbacks.Callback):
    """A bar on standard error with rate, time left and losses.

    Keras' own bar knows the epoch only, not how long the run still takes, and not where
    it goes on. On a terminal the line is renewed, in a log file once a minute.

    Args:
        last: int. The last training step.
    """

    def __init__(self, last):
        super().__init__()
        self.last = last

    def on_train_begin(self, logs=None):
        is_terminal = sys.stderr.isatty()
        self._interval = 0.5 if is_terminal else 60.0
        self._shown = time.monotonic() - self._interval
        self._bar = tqdm(
            initial=training_step(self.model),
            total=self.last,
            unit="step",
            mininterval=self._interval,
            file=sys.stderr,
            dynamic_ncols=is_terminal,
            disable=not devices.is_main(),
        )

    def on_train_batch_end(self, batch, logs=None):
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

    def on_train_end(self, logs=None):
        self._bar.close()


class Interruption(keras.callbacks.Callback):
    """Stops training after the running step on a signal, or when time is up.

    The signals are SIGINT (Ctrl-C) and SIGTERM. A context manager as well: only inside
    of it are signals caught, and only in the main thread. A second signal ends the
    process at once. Where several processes train together, all stop at the same step.

    Args:
        deadline: float. The `time.monotonic()` to stop at, or None.

    Attributes:
        received: the number of the signal, or None.
        is_late: bool. Whether the time was up.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, deadline=None):
        super().__init__()
        self.deadline = deadline
        self.received = None
        self.is_late = False
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in self._SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_train_batch_end(self, batch, logs=None):
        is_late = self.deadline is not None and time.monotonic() >= self.deadline
        number = devices.highest(self.received or (LATE if is_late else 0))
        if number:
            self.is_late = number == LATE
            # It may be another process that has received it.
            self.received = None if self.is_late else number
            self.model.stop_training = True

    def _note(self, number, frame):
        self.received = number
        for number in self._SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # print() is not safe here: the signal may have come in the middle of another.
        os.write(2, b"\nStopping after this step. Once more to quit at once.\n")


def training_step(model):
    """The number of training steps that a `galip_keras.GALIP` has done."""
    return int(ops.convert_to_numpy(model.step))
