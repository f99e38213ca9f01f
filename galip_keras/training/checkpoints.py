"""Checkpoints that survive crashes, and can be trusted when training resumes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from galip_keras import backend
from galip_keras.console import say
from galip_keras.files import sha256, write_folder
from galip_keras.models.gan import GALIP
from galip_keras.training.callbacks import EverySteps
from galip_keras.training.collapse import Guard
from galip_keras.training.progress import training_step

_WEIGHTS = "model.weights.h5"
_STATE = "state.json"

# How many are kept besides the best one.
_KEPT = 2

# Seconds between checkpoints at the most, for steps that take long.
_LONGEST = 120.0


class Checkpoint(EverySteps):
    """Keeps the newest states of a `galip_keras.GALIP` on disk, and the best one.

    A checkpoint is `step_00000300/` with `model.weights.h5` (the networks, the average,
    both optimizers) and `state.json` (what Keras' weight files leave out). It is
    written to a temporary folder and moved into place when complete, so it can be
    trusted after a crash or on a full disk. `best_00000200/` is one, too.

    `keras.callbacks.OrbaxCheckpoint` would save the frozen CLIP each time and
    `BackupAndRestore` loses the running means of the losses; neither notices damage.

    Args:
        folder: path. Where the checkpoints are.
        every: int. Steps between checkpoints. There is always one at the end of
            training, and one every two minutes.
        guard: a `galip_keras.training.collapse.Guard`. Its state is saved with each
            checkpoint, and nothing is saved once it has a reason to stop.
    """

    def __init__(self, folder: str | Path, every: int, guard: Guard) -> None:
        super().__init__(every)
        self.folder = Path(folder)
        self.guard = guard
        self._saved_step: int | None = None
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._saved_at = time.monotonic()
        model = self.model
        self._metrics = [ops.convert_to_numpy(v) for v in model.metrics_variables]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # `fit` has just reset them. A resumed run continues the means it had.
        for variable, value in zip(self.model.metrics_variables, self._metrics):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        super().on_train_batch_end(batch, logs)
        # Several processes would not agree on the time.
        is_late = time.monotonic() >= self._saved_at + _LONGEST
        if is_late and backend.process()[1] == 1:
            self.save(self.model)

    def on_step(self, model: GALIP) -> None:
        self.save(model)

    def on_train_end(self, logs: Any = None) -> None:
        if self._saved_step != self.step:
            self.save(self.model)

    def save(self, model: GALIP) -> None:
        """Write a checkpoint, and remove the oldest one.

        Nothing is written if weights are not finite: the guard is told instead.

        Raises:
            OSError: if it cannot be written. The earlier ones stay.
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
        # Checkpoints of later steps are damaged: resuming has skipped them.
        paths = self._paths("step")
        kept = [path for path in paths if _step(path) <= step][-_KEPT:]
        self._remove(set(paths) - set(kept))

    def save_best(self, model: GALIP) -> None:
        """Write a checkpoint as the best one. Raise as `save` does."""
        path = self._write("best", model)
        self._remove(set(self._paths("best")) - {path})

    def restore(self, model: GALIP) -> int:
        """Load the newest intact checkpoint, if there is one.

        Args:
            model: a compiled `galip_keras.GALIP`.

        Returns:
            The training step of the checkpoint, 0 if there is none.

        Raises:
            ValueError: if all checkpoints are damaged.
        """
        if backend.is_main():
            for leftover in self.folder.glob("*.tmp"):
                shutil.rmtree(leftover)
        # At the same step, `step_` is newer than `best_`: rolling back writes it.
        paths = sorted(self._paths(), key=lambda p: (_step(p), p.name), reverse=True)
        for path in paths:
            state = _intact_state(path)
            if state is not None:
                return self._load(path, state, model)
            say(f"The checkpoint {path} is damaged: trying the one before it.")
        if paths:
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged: remove the run folder "
                "and start again"
            )
        return 0

    def restore_best(self, model: GALIP) -> int:
        """Load the best checkpoint. Return its step, 0 if there is none."""
        for path in reversed(self._paths("best")):
            state = _intact_state(path)
            if state is not None:
                return self._load(path, state, model)
        return 0

    def drop_after_best(self) -> bool:
        """Remove the checkpoints that are newer than the best one.

        Returns:
            Whether any checkpoint is left.
        """
        best = [path for path in self._paths("best") if _intact_state(path)]
        if best:
            last = _step(best[-1])
            self._remove([path for path in self._paths("step") if _step(path) > last])
        # Other processes must not read what is about to go.
        backend.barrier()
        return bool(self._paths())

    def _write(self, kind: str, model: GALIP) -> Path:
        step = training_step(model)
        path = self.folder / f"{kind}_{step:08d}"
        if not backend.is_main():
            return path
        try:
            with backend.alone(), write_folder(path) as temporary:
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

    def _load(self, path: Path, state: dict[str, Any], model: GALIP) -> int:
        model.load_weights(path / _WEIGHTS)
        for variable, value in zip(_unsaved(model), state["variables"]):
            variable.assign(np.array(value, variable.dtype))
        self.guard.state.update(state["guard"])
        return state["step"]

    def _remove(self, paths: Iterable[Path]) -> None:
        if backend.is_main():
            for path in paths:
                shutil.rmtree(path)

    def _paths(self, kind: str = "*") -> list[Path]:
        return sorted(self.folder.glob(f"{kind}_" + "[0-9]" * 8))


def _step(path: Path) -> int:
    return int(path.name[-8:])


def _state(model: GALIP, weights: Path) -> dict[str, Any]:
    """What weight files leave out, and the checksum of this one."""
    values = [ops.convert_to_numpy(v).tolist() for v in _unsaved(model)]
    return {"variables": values, "sha256": sha256(weights)}


def _unsaved(model: GALIP) -> list[keras.Variable]:
    """The variables that Keras' weight files leave out."""
    return [model.seed_generator.state, *model.metrics_variables]


def _intact_state(folder: Path) -> dict[str, Any] | None:
    """The content of `state.json`, or None if the checkpoint is damaged."""
    try:
        state = json.loads((folder / _STATE).read_text())
        return state if state["sha256"] == sha256(folder / _WEIGHTS) else None
    except (OSError, ValueError, KeyError):
        return None


def _is_finite(variable: keras.Variable) -> bool:
    return bool(ops.convert_to_numpy(ops.all(ops.isfinite(variable))))
