"""A training run: a configuration, and the folder that holds its results."""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_hub

from galip_keras import __version__, backend
from galip_keras.console import say, silence
from galip_keras.files import make_folder, write_text
from galip_keras.models.architectures import CHECKPOINTS, CONFIG
from galip_keras.training import data
from galip_keras.training.config import TrainingConfig, check_names, settings
from galip_keras.training.loop import Loop, Outcome
from galip_keras.training.plan import (
    Plan,
    build_model,
    resolve,
)
from galip_keras.training.recipes import FEW_IMAGES


class Run:
    """A training run in a folder of its own.

    The folder holds `config.json` (everything needed to repeat the run),
    `checkpoints/` (complete states to resume from, the newest and the best),
    `samples/` (images of the same noise and captions as training goes on),
    `metrics.jsonl` (losses and figures, one line per report), `evaluation/`, `logs/`
    for TensorBoard, `data_report.txt` (what was odd about the data), and `preset/`
    (the averaged generator, for `GALIPTextToImage.from_preset`).

    Args:
        config: a `galip_keras.TrainingConfig`.
        folder: path. Defaults to `runs/` and the name of the dataset.
        resume: bool. Whether to go on with the run in the folder, if there is one. It
            ends in the weights of a run that was never stopped, on a CPU with
            TensorFlow or JAX bit for bit.

    Raises:
        ValueError: for settings that cannot work on this machine.

    Example:

    ```python
    config = galip_keras.TrainingConfig("folder:birds", preset="galip_tiny", steps=10)
    run = galip_keras.Run(config, "runs/birds")
    run.plan()["total_steps"]
    run.train()
    ```
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: str | Path | None = None,
        resume: bool = False,
    ) -> None:
        self.config = resolve(config)
        # Whether nothing says how to fine-tune on few images.
        said = (config.recipe, config.freeze, config.augmentation)
        self._is_open = all(value is None for value in said)
        folder = folder or Path("runs", self.config.dataset_name)
        self.folder = Path(folder).expanduser().absolute()
        self.resume = resume

    def plan(self) -> dict[str, Any]:
        """Check everything and train nothing.

        The dataset is prepared, but nothing is written to the run folder.

        Returns:
            A dict of plain values: settings, length, sizes and a rough estimate of the
            memory that each device needs.

        Raises:
            ValueError: where training could not start.
        """
        earlier = self._check_folder()
        _check_devices(self.config)
        with backend.main_first():
            plan = Plan.of(self.config)
            if earlier:
                data.check(plan, earlier, data.facts(plan))
            else:
                self._suggest_recipe(plan)
        return {"run": str(self.folder), **plan.to_dict()}

    def train(self, max_hours: float | None = None) -> Outcome:
        """Train, and report progress on standard error.

        Ctrl-C and SIGTERM stop after the running step, with everything saved.

        Args:
            max_hours: float. Stop after this time, with everything saved.

        Returns:
            An `Outcome`.

        Raises:
            ValueError: where the folder holds another run, or the data are unusable.
            OSError: where the run folder cannot be written.
        """
        deadline = max_hours and time.monotonic() + 3600 * max_hours
        config = self.config
        earlier = self._check_folder()
        with self._new_folder():
            if config.deterministic or (
                config.deterministic is None and backend.is_cpu()
            ):
                backend.repeatable()
            _check_devices(config)
            with backend.main_first():
                plan = Plan.of(config)
                _warn_of_random_clip(config)
                if not earlier:
                    self._suggest_recipe(plan)
                if backend.is_main():
                    self._write_start(plan, earlier)
                embeddings = plan.embed_captions()
        with backend.use(config.num_devices) as is_shared:
            if is_shared:
                # Again, with its weights on all devices.
                plan.model = build_model(config)
            loop = Loop(self.folder, plan, embeddings)
            return loop.run(deadline, self.resume)

    def _suggest_recipe(self, plan: Plan) -> None:
        if self._is_open and self.config.init and plan.num_images < FEW_IMAGES:
            say(
                f"Fine-tuning on {plan.num_images} images: the recipe few-shot is made "
                "for so few."
            )

    def _check_folder(self) -> dict[str, Any]:
        """Make sure that nothing in the run folder would be lost.

        Returns:
            The content of its `config.json`, empty if there is no run in it.
        """
        folder = self.folder
        if not backend.is_main() or not folder.is_dir() or not any(folder.iterdir()):
            return {}
        if not self.resume:
            raise ValueError(
                f"the run folder {folder} is not empty: go on with the run in it with "
                "`resume`, or choose another `run`"
            )
        earlier = self._read_config()
        compared = data.without_places(self.config, earlier)
        changes = self.config.changes_from(compared)
        if changes:
            raise ValueError(
                f"the run in {folder} has other settings: {'; '.join(changes)}. Resume "
                "it with its own, or choose another `run`"
            )
        missing = [name for name in settings() if name not in earlier]
        if missing:
            say(
                f"{CONFIG} is of another version, without {', '.join(missing)}: the "
                "run goes on with the values of now, the defaults if none are given."
            )
        return earlier

    def _read_config(self) -> dict[str, Any]:
        """The settings with which the run in the folder began."""
        try:
            content = json.loads((self.folder / CONFIG).read_text())
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict) or content.keys().isdisjoint(settings()):
            raise ValueError(
                f"{self.folder} holds no run to resume: {CONFIG} is missing or damaged"
            )
        return content

    @contextlib.contextmanager
    def _new_folder(self) -> Iterator[None]:
        """Make the run folder, and remove it where training could not start."""
        if not backend.is_main():
            yield
            return
        make_folder(self.folder, "run", "run folder")
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                # Fails where something is in it.
                self.folder.rmdir()
            raise

    def _write_start(self, plan: Plan, earlier: dict[str, Any]) -> None:
        found = data.facts(plan)
        is_new = data.check(plan, earlier, found)
        versions = {
            "python": platform.python_version(),
            "galip_keras": __version__,
            "keras": keras.__version__,
            "keras_hub": keras_hub.__version__,
            "backend": keras.backend.backend(),
        }
        (self.folder / CHECKPOINTS).mkdir(exist_ok=True)
        content = {**self.config.to_dict(), "versions": versions, data.DATA: found}
        write_text(self.folder / CONFIG, f"{json.dumps(content, indent=2)}\n")
        data.write_report(plan, self.folder / "data_report.txt", is_new)


def train(
    dataset: str,
    run: str | Path | None = None,
    resume: bool = False,
    max_hours: float | None = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    dry_run: bool = False,
    **options: Any,
) -> Outcome | dict[str, Any]:
    """Train a GALIP on captioned images: a `Run` in a line.

    Args:
        dataset: string. As for `galip_keras.datasets.prepare`.
        run: path. The run folder, as for `Run`.
        resume: bool. As for `Run`.
        max_hours: float. As for `Run.train`.
        coordinator: string. `HOST:PORT` of process 0, where several processes train
            together, on JAX only. They need the same data and run folder.
        num_processes: int. How many processes train together.
        process_id: int. Which of them this is, from 0.
        dry_run: bool. Whether to check everything and train nothing.
        **options: the other fields of `galip_keras.TrainingConfig`.

    Returns:
        An `Outcome`, or what `Run.plan` returns if `dry_run` is true.

    Raises:
        TypeError: for a setting that does not exist.
        ValueError: for settings that cannot work or that a resumed run did not have.
        OSError: where the run folder cannot be written.

    Example:

    ```python
    outcome = galip_keras.train("folder:birds", preset="galip_tiny", steps=10)
    model = galip_keras.GALIPTextToImage.from_preset(str(outcome.folder / "preset"))
    ```
    """
    check_names(options)
    config = TrainingConfig(dataset, **options)
    if coordinator:
        backend.join(coordinator, num_processes, process_id)
        if not backend.is_main():
            silence()
    prepared = Run(config, run, resume)
    return prepared.plan() if dry_run else prepared.train(max_hours)


def _check_devices(config: TrainingConfig) -> None:
    # Report missing devices before the data are prepared.
    with backend.use(config.num_devices):
        pass


def _warn_of_random_clip(config: TrainingConfig) -> None:
    if config.preset == "galip_tiny" and config.clip in (None, "random"):
        say("galip_tiny stands on a small random CLIP: good for trying things out.")
    elif config.clip == "random":
        say("Warning: this CLIP is random. Whatever is trained on it means nothing.")
