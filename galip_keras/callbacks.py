"""What Keras lacks: checkpoints that survive crashes, sample grids, stop on signal."""

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops
from PIL import Image

_WEIGHTS = "model.weights.h5"
_STATE = "state.json"


class EverySteps(keras.callbacks.Callback):
    """Calls a subclass' `on_step(model)` every so many steps of the whole run.

    Args:
        every: int. Steps from one call to the next.
    """

    def __init__(self, every):
        super().__init__()
        self.every = every
        self.step = 0

    def on_train_begin(self, logs=None):
        # Keras' own counters start anew with every `fit`.
        self.step = training_step(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0:
            # On JAX, reading `self.model` is what brings its variables up to date.
            self.on_step(self.model)


class StopAt(EverySteps):
    """Stops training at a step.

    Args:
        step: int.
    """

    def __init__(self, step):
        super().__init__(every=step)

    def on_step(self, model):
        model.stop_training = True


class Checkpoint(EverySteps):
    """Keeps the newest states of a `galip_keras.GALIP` on disk.

    A checkpoint is `step_00000300/` with `model.weights.h5` (both networks, both
    optimizers) and `state.json`. It is written beside its place and moved there when
    it is complete, so what has this name can be trusted after a crash or a full disk.

    Args:
        folder: path. Where the checkpoints are.
        every: int. Steps from one to the next. There is one at the end of training,
            too.
        keep: int. How many are kept.
        every_seconds: float. The longest time from one to the next, for steps that
            take long.
    """

    def __init__(self, folder, every, keep=2, every_seconds=120.0):
        super().__init__(every)
        self.folder = Path(folder)
        self.keep = keep
        self.every_seconds = every_seconds
        self._saved_step = None
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._saved_at = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if time.monotonic() >= self._saved_at + self.every_seconds:
            self.save(self.model)

    def on_step(self, model):
        self.save(model)

    def on_train_end(self, logs=None):
        if self._saved_step != self.step:
            self.save(self.model)

    def save(self, model):
        """Writes a checkpoint of a model and removes those that are too many.

        Raises:
            OSError: where it cannot be written. The earlier ones stay.
        """
        step = training_step(model)
        try:
            with write_folder(self.folder / _name(step)) as folder:
                model.save_weights(folder / _WEIGHTS)
                (folder / _STATE).write_text(json.dumps(_state(model, step, folder)))
        except OSError as error:
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self.folder}: "
                f"{error.strerror or error}. Earlier ones are intact; make room and "
                "resume"
            ) from error
        self._saved_step = step
        self._saved_at = time.monotonic()
        # Checkpoints of later steps are damaged ones that a resume passed over.
        paths = [path for path in self._paths() if path.name <= _name(step)]
        for path in set(self._paths()) - set(paths[-self.keep :]):
            shutil.rmtree(path)

    def restore(self, model):
        """Loads the newest checkpoint that is not damaged, if there is any.

        Args:
            model: a compiled `galip_keras.GALIP`.

        Returns:
            The training step that was reached, 0 where there is no checkpoint.

        Raises:
            ValueError: where all checkpoints are damaged.
        """
        for leftover in self.folder.glob("*.tmp"):
            shutil.rmtree(leftover)
        paths = self._paths()
        for path in reversed(paths):
            state = _intact_state(path)
            if state is None:
                say(f"The checkpoint {path} is damaged: trying the one before.")
                continue
            model.load_weights(path / _WEIGHTS)
            seed = model.seed_generator.state
            seed.assign(np.array(state["noise_seed"], seed.dtype))
            return state["step"]
        if paths:
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged: remove the run folder "
                "and start again"
            )
        return 0

    def _paths(self):
        return sorted(self.folder.glob("step_" + "[0-9]" * 8))


class SampleGrid(EverySteps):
    """Writes `step_000300.png`, a square of pictures of the same noise and captions.

    There is one at the end of training, too.

    Args:
        folder: path. Where the pictures go.
        every: int. Steps from one to the next.
        text_to_image: a `galip_keras.GALIPTextToImage` of the generator in training.
        captions: list of strings, a square number of them.
    """

    def __init__(self, folder, every, text_to_image, captions):
        super().__init__(every)
        self.folder = Path(folder)
        self.text_to_image = text_to_image
        self.captions = captions

    def on_step(self, model):
        images = self.text_to_image.generate(self.captions, seed=0)
        self.folder.mkdir(parents=True, exist_ok=True)
        columns = round(len(self.captions) ** 0.5)
        image_grid(images, columns).save(self._path())

    def on_train_end(self, logs=None):
        if not self._path().exists():
            self.on_step(self.model)

    def _path(self):
        return self.folder / f"step_{self.step:06d}.png"


class Progress(keras.callbacks.Callback):
    """A line on standard error with rate, time left and losses.

    Keras' own bar knows the epoch only, not how long the run still takes, and not where
    it goes on. On a terminal the line is renewed, in a log file there is one a minute.

    Args:
        last: int. The last training step.
    """

    def __init__(self, last):
        super().__init__()
        self.last = last
        self._is_terminal = sys.stderr.isatty()
        self._interval = 0.5 if self._is_terminal else 60.0

    def on_train_begin(self, logs=None):
        self._step = training_step(self.model)
        self._first = None
        self._shown = time.monotonic() - self._interval

    def on_train_batch_end(self, batch, logs=None):
        self._step += 1
        now = time.monotonic()
        if self._first is None:
            # The first step compiles: no measure of the rate.
            self._first = self._step, now
        if now >= self._shown + self._interval or self._step == self.last:
            self._shown = now
            self._show(now, logs or {})

    def on_train_end(self, logs=None):
        if self._is_terminal:
            say("")

    def _show(self, now, losses):
        parts = [f"step {self._step} of {self.last}"]
        first, then = self._first
        if self._step > first:
            rate = (now - then) / (self._step - first)
            left = datetime.timedelta(seconds=round(rate * (self.last - self._step)))
            parts.append(f"{rate:.3g} s a step, {left} left")
        parts.append(", ".join(f"{name} {loss:.3g}" for name, loss in losses.items()))
        line = "; ".join(parts)
        # Back to the start of the line, and what is left of the old one wiped out.
        say(f"\r{line}\x1b[K", end="") if self._is_terminal else say(line)


class StopOnSignal(keras.callbacks.Callback):
    """Stops training after the running step on SIGINT (Ctrl-C) or SIGTERM.

    A context manager as well: only inside of it are signals caught, and only in the
    main thread. A second signal ends the process at once. `received` is the number of
    the signal, or None.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        super().__init__()
        self.received = None
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in self._SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def on_train_batch_end(self, batch, logs=None):
        if self.received is not None:
            self.model.stop_training = True

    def _note(self, number, frame):
        self.received = number
        for number in self._SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # print() is not safe here: the signal may have come in the middle of another.
        os.write(2, b"\nStopping after this step. Once more to quit at once.\n")


def say(message, end="\n"):
    """Tells the user something on standard error, the place of all progress."""
    print(message, end=end, file=sys.stderr, flush=True)


def training_step(model):
    """The number of training steps that a compiled `galip_keras.GALIP` has done."""
    return int(ops.convert_to_numpy(model.optimizer.generator.iterations))


def image_grid(images, columns):
    """Lays pictures out in rows.

    Args:
        images: uint8 array `(num_rows * columns, height, width, 3)`.
        columns: int.

    Returns:
        A `PIL.Image.Image`.
    """
    rows = np.split(images, len(images) // columns)
    return Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))


@contextlib.contextmanager
def write_folder(folder):
    """Yields a folder beside `folder` that takes its place once it is on disk.

    Args:
        folder: `pathlib.Path`. It may exist: it is replaced then.
    """
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    _sync(folder.parent)


def _sync(path):
    if os.name == "nt":
        # Windows syncs neither folders nor files that are open for reading.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(step):
    return f"step_{step:08d}"


def _state(model, step, folder):
    # Keras' weight files leave the states of seed generators out.
    noise_seed = ops.convert_to_numpy(model.seed_generator.state).tolist()
    digest = _digest(folder / _WEIGHTS)
    return {"step": step, "noise_seed": noise_seed, "sha256": digest}


def _intact_state(folder):
    """The content of `state.json`, or None where the checkpoint is damaged."""
    try:
        state = json.loads((folder / _STATE).read_text())
        return state if state["sha256"] == _digest(folder / _WEIGHTS) else None
    except (OSError, ValueError, KeyError):
        return None


def _digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
