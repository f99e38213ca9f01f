"""What a run tells: `metrics.jsonl`, TensorBoard and Weights & Biases."""

import json
import math
import os
from pathlib import Path

import keras
import numpy as np

from galip_keras.backend import devices
from galip_keras.files import write_text

_METRICS = "metrics.jsonl"


class Journal:
    """Writes the figures and pictures of a run. One process of several does.

    Args:
        folder: path. The run folder. `metrics.jsonl` in it has a line a report,
            `logs/` is for TensorBoard.
        step: int. Where the run goes on: what an earlier process wrote of later steps
            is taken out.
        config: dict. The settings, for Weights & Biases.
        wandb: bool. Whether to write to Weights & Biases, too.

    Raises:
        ValueError: for `wandb` where that package is not installed.
    """

    def __init__(self, folder, step=0, config=None, wandb=False):
        self.folder = Path(folder)
        self._is_main = devices.is_main()
        self._wandb = None
        if not self._is_main:
            return
        if wandb:
            self._wandb = _start_wandb(self.folder, config)
        # Keras' way to what TensorBoard reads, which is TensorFlow's on every backend.
        self._summary = keras.callbacks.TensorBoard().summary
        self._writer = self._summary.create_file_writer(str(self.folder / "logs"))
        self.rewind(step)

    def rewind(self, step):
        """Takes out the figures and warnings of later steps. Other events stay."""
        path = self.folder / _METRICS
        if not self._is_main or not path.exists():
            return
        lines = path.read_text().splitlines()
        write_text(path, "".join(f"{x}\n" for x in lines if _stays(x, step)))

    def write(self, step, figures):
        """Writes figures, a dict of floats by name."""
        if not self._is_main:
            return
        self._append({"step": step, **figures})
        with self._writer.as_default(step):
            for name, value in figures.items():
                self._summary.scalar(name, value)
        self._writer.flush()
        if self._wandb:
            self._wandb.log({"step": step, **figures})

    def tell(self, step, event, **details):
        """Writes down that something happened."""
        if self._is_main:
            self._append({"step": step, "event": event, **details})

    def show(self, step, image):
        """Writes samples, a `PIL.Image.Image`."""
        if not self._is_main:
            return
        with self._writer.as_default(step):
            self._summary.image("samples", np.asarray(image)[None])
        if self._wandb:
            import wandb

            self._wandb.log({"step": step, "samples": wandb.Image(image)})

    def close(self):
        if self._is_main:
            self._writer.close()
            if self._wandb:
                self._wandb.finish()

    def _append(self, line):
        # JSON has no word for what is not finite.
        line = {k: None if _is_infinite(v) else v for k, v in line.items()}
        with open(self.folder / _METRICS, "a") as file:
            file.write(f"{json.dumps(line)}\n")


def last_figures(folder):
    """The newest of each figure of a run's samples and evaluations, by name."""
    path = Path(folder) / _METRICS
    figures = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        content = json.loads(line)
        # Other lines are events, or losses.
        if "event" not in content and "d_real" not in content:
            figures.update(content)
    return {k: v for k, v in figures.items() if k != "step" and v is not None}


def _stays(line, step):
    try:
        content = json.loads(line)
        # A warning comes again when the same steps are done again.
        return content["step"] <= step or content.get("event", "warning") != "warning"
    except (ValueError, KeyError, TypeError):
        # The line that a crash cut off.
        return False


def _is_infinite(value):
    return isinstance(value, float) and not math.isfinite(value)


def check_wandb():
    """Returns the `wandb` module.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "`wandb` needs Weights & Biases: pip install 'galip-keras[wandb]'"
        ) from error
    return wandb


def _start_wandb(folder, config):
    run = check_wandb().init(
        project="galip",
        name=folder.name,
        # The same run when training resumes.
        id=f"{folder.name}-{os.stat(folder).st_ino:x}",
        resume="allow",
        dir=str(folder),
        config=config,
    )
    run.define_metric("*", step_metric="step")
    return run
