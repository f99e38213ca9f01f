"""Checkpoints that survive crashes, and can be trusted when training resumes."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
from keras import ops

from galip_keras.backend import devices
from galip_keras.console import say
from galip_keras.files import sha256, write_folder
from galip_keras.training.callbacks import EverySteps
from galip_keras.training.progress import training_step

_WEIGHTS = "model.weights.h5"
_STATE = "state.json"


class Checkpoint(EverySteps):
    """Keeps the newest states of a `galip_keras.GALIP` on disk, and the best one.

    A checkpoint is `step_00000300/` with `model.weights.h5` (the networks, the average,
    both optimizers) and `state.json` (what Keras' weight files leave out). It is
    written beside its place and moved there when it is complete, so what has this name
    can be trusted after a crash or a full disk. `best_00000200/` is one, too.

    `keras.callbacks.OrbaxCheckpoint` would save the frozen CLIP each time and
    `BackupAndRestore` loses the losses so far; neither notices damage.

    Args:
        folder: path. Where the checkpoints are.
        every: int. Steps from one to the next. There is one at the end of training,
            too.
        guard: a `galip_keras.training.collapse.Guard`. Its state is part of a
            checkpoint, and nothing is saved once it has a reason.
        keep: int. How many are kept.
        every_seconds: float. The longest time from one to the next, for steps that
            take long.
    """

    def __init__(self, folder, every, guard, keep=2, every_seconds=120.0):
        super().__init__(every)
        self.folder = Path(folder)
        self.guard = guard
        self.keep = keep
        self.every_seconds = every_seconds
        self._saved_step = None
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._saved_at = time.monotonic()
        model = self.model
        self._metrics = [ops.convert_to_numpy(v) for v in model.metrics_variables]

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` has just reset them. A resumed run goes on with those it had.
        for variable, value in zip(self.model.metrics_variables, self._metrics):
            variable.assign(value)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        # Several processes would not agree about the time.
        is_late = time.monotonic() >= self._saved_at + self.every_seconds
        if is_late and devices.process()[1] == 1:
            self.save(self.model)

    def on_step(self, model):
        self.save(model)

    def on_train_end(self, logs=None):
        if self._saved_step != self.step:
            self.save(self.model)

    def save(self, model):
        """Writes a checkpoint of a model and removes those that are too many.

        Nothing is written where weights are not finite: the guard is told.

        Raises:
            OSError: where it cannot be written. The earlier ones stay.
        """
        step = training_step(model)
        if not all(_is_finite(variable) for variable in model.trainable_variables):
            self.guard.stop("nan", "weights are not a number", is_final=True)
        if self.guard.reason:
            model.stop_training = True
            return
        self._write("step", model)
        self._saved_step = step
        self._saved_at = time.monotonic()
        # Checkpoints of later steps are damaged ones that a resume passed over.
        paths = self._paths("step")
        kept = [path for path in paths if _step(path) <= step][-self.keep :]
        self._remove(set(paths) - set(kept))

    def save_best(self, model):
        """Writes a checkpoint of a model as the best one. Raises as `save` does."""
        path = self._write("best", model)
        self._remove(set(self._paths("best")) - {path})

    def restore(self, model):
        """Loads the newest checkpoint that is not damaged, if there is any.

        Args:
            model: a compiled `galip_keras.GALIP`.

        Returns:
            The training step that was reached, 0 where there is no checkpoint.

        Raises:
            ValueError: where all checkpoints are damaged.
        """
        if devices.is_main():
            for leftover in self.folder.glob("*.tmp"):
                shutil.rmtree(leftover)
        # Of the same step `step_` after `best_`: on rolling back it is the newer one.
        paths = sorted(self._paths(), key=lambda p: (_step(p), p.name), reverse=True)
        for path in paths:
            state = _intact_state(path)
            if state is not None:
                return self._load(path, state, model)
            say(f"The checkpoint {path} is damaged: trying the one before.")
        if paths:
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged: remove the run folder "
                "and start again"
            )
        return 0

    def restore_best(self, model):
        """Loads the best checkpoint. Returns its step, 0 where there is none."""
        for path in reversed(self._paths("best")):
            state = _intact_state(path)
            if state is not None:
                return self._load(path, state, model)
        return 0

    def drop_after_best(self):
        """Removes the checkpoints after the best one, if there is a best one.

        Returns:
            Whether any checkpoint is left.
        """
        best = [path for path in self._paths("best") if _intact_state(path)]
        if best:
            last = _step(best[-1])
            self._remove([path for path in self._paths("step") if _step(path) > last])
        # The others are not to read what is about to go.
        devices.barrier()
        return bool(self._paths())

    def _write(self, kind, model):
        step = training_step(model)
        path = self.folder / f"{kind}_{step:08d}"
        if not devices.is_main():
            return path
        try:
            with devices.alone(), write_folder(path) as temporary:
                model.save_weights(temporary / _WEIGHTS)
                state = {
                    "step": step,
                    "guard": self.guard.state,
                    **_state(model, temporary / _WEIGHTS),
                }
                (temporary / _STATE).write_text(json.dumps(state))
        except OSError as error:
            raise OSError(
                f"the checkpoint of step {step} could not be written to {self.folder}: "
                f"{error.strerror or error}. Earlier ones are intact; make room and "
                "resume"
            ) from error
        return path

    def _load(self, path, state, model):
        model.load_weights(path / _WEIGHTS)
        for variable, value in zip(_unsaved(model), state["variables"]):
            variable.assign(np.array(value, variable.dtype))
        self.guard.state.update(state["guard"])
        return state["step"]

    def _remove(self, paths):
        if devices.is_main():
            for path in paths:
                shutil.rmtree(path)

    def _paths(self, kind="*"):
        return sorted(self.folder.glob(f"{kind}_" + "[0-9]" * 8))


def _step(path):
    return int(path.name[-8:])


def _state(model, weights):
    """What Keras' weight files leave out: seed generators and metrics."""
    values = [ops.convert_to_numpy(v).tolist() for v in _unsaved(model)]
    return {"variables": values, "sha256": sha256(weights)}


def _unsaved(model):
    return [model.seed_generator.state, *model.metrics_variables]


def _intact_state(folder):
    """The content of `state.json`, or None where the checkpoint is damaged."""
    try:
        state = json.loads((folder / _STATE).read_text())
        return state if state["sha256"] == sha256(folder / _WEIGHTS) else None
    except (OSError, ValueError, KeyError):
        return None


def _is_finite(variable):
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(variable))))
