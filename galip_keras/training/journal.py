"""The records of a run: `metrics.jsonl`, TensorBoard and Weights & Biases."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
from PIL import Image

from galip_keras import backend
from galip_keras.files import write_text

_METRICS = "metrics.jsonl"


class Journal:
    """Records the figures and samples of a run.

    Of several processes that train together, one writes.

    Args:
        folder: path. The run folder: `metrics.jsonl` gets a line per report, `logs/`
            is for TensorBoard.
        step: int. The step at which the run goes on. What an earlier process wrote
            about later steps is removed.
        config: dict. The settings, for Weights & Biases.
        wandb: bool. Whether to report to Weights & Biases as well.

    Raises:
        ValueError: if `wandb` is true and that package is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        step: int = 0,
        config: Mapping[str, Any] | None = None,
        wandb: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self._is_main = backend.is_main()
        self._wandb = None
        if not self._is_main:
            return
        if wandb:
            self._wandb = _start_wandb(self.folder, config)
        # TensorFlow writes TensorBoard's files, on every backend.
        self._summary = keras.callbacks.TensorBoard().summary
        self._writer = self._summary.create_file_writer(str(self.folder / "logs"))
        self.rewind(step)

    def rewind(self, step: int) -> None:
        """Remove the figures and warnings of later steps. Other events stay."""
        path = self.folder / _METRICS
        if not self._is_main or not path.exists():
            return
        lines = path.read_text().splitlines()
        write_text(path, "".join(f"{x}\n" for x in lines if _stays(x, step)))

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Record figures, floats by name."""
        if not self._is_main:
            return
        self._append({"step": step, **figures})
        with self._writer.as_default(step):
            for name, value in figures.items():
                self._summary.scalar(name, value)
        self._writer.flush()
        if self._wandb:
            self._wandb.log({"step": step, **figures})

    def tell(self, step: int, event: str, **details: Any) -> None:
        """Record an event."""
        if self._is_main:
            self._append({"step": step, "event": event, **details})

    def show(self, step: int, image: Image.Image) -> None:
        """Record a grid of samples."""
        if not self._is_main:
            return
        with self._writer.as_default(step):
            self._summary.image("samples", np.asarray(image)[None])
        if self._wandb:
            import wandb

            self._wandb.log({"step": step, "samples": wandb.Image(image)})

    def close(self) -> None:
        """Write what is left to write."""
        if self._is_main:
            self._writer.close()
            if self._wandb:
                self._wandb.finish()

    def _append(self, line: Mapping[str, Any]) -> None:
        # JSON has no literal for numbers that are not finite.
        line = {k: None if _is_infinite(v) else v for k, v in line.items()}
        with open(self.folder / _METRICS, "a") as file:
            file.write(f"{json.dumps(line)}\n")


def last_figures(folder: str | Path) -> dict[str, float]:
    """The latest value of each figure of a run's samples and evaluations, by name."""
    path = Path(folder) / _METRICS
    figures: dict[str, float] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        content = json.loads(line)
        # Other lines are events, or losses.
        if "event" not in content and "d_real" not in content:
            figures.update(content)
    return {k: v for k, v in figures.items() if k != "step" and v is not None}


def _stays(line: str, step: int) -> bool:
    try:
        content = json.loads(line)
        # Repeating the same steps repeats the warning.
        return content["step"] <= step or content.get("event", "warning") != "warning"
    except (ValueError, KeyError, TypeError):
        # A line that a crash cut off.
        return False


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def check_wandb() -> ModuleType:
    """Import Weights & Biases.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            "`wandb` needs Weights & Biases: pip install 'galip-keras[wandb]'"
        ) from error
    return wandb


def _start_wandb(folder: Path, config: Mapping[str, Any] | None) -> Any:
    run = check_wandb().init(
        project="galip",
        name=folder.name,
        # A resumed run continues the same record.
        id=f"{folder.name}-{os.stat(folder).st_ino:x}",
        resume="allow",
        dir=str(folder),
        config=config,
    )
    run.define_metric("*", step_metric="step")
    return run
