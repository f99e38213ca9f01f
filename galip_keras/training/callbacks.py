"""What Keras lacks: callbacks that count the steps of a whole run, not of an epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from galip_keras import backend, metrics
from galip_keras.files import write_text
from galip_keras.images import image_grid
from galip_keras.models.gan import GALIP
from galip_keras.models.text_encoder import embed_texts, text_encoder
from galip_keras.models.text_to_image import GALIPTextToImage
from galip_keras.training.collapse import Guard
from galip_keras.training.journal import Journal
from galip_keras.training.progress import training_step

if TYPE_CHECKING:
    from galip_keras.metrics.evaluator import Evaluator
    from galip_keras.metrics.image_sets import ImageSet
    from galip_keras.training.plan import Plan

# Samples made at once, and shown.
_BATCH_SIZE = 16
_COLUMNS = 4


class EverySteps(keras.callbacks.Callback):
    """Calls `on_step(model)` of a subclass at regular steps of the whole run.

    Args:
        every: int. Steps between calls.
        last: int. The last training step, which always has a call. None for no such
            step.
    """

    def __init__(self, every: int, last: int | None = None) -> None:
        super().__init__()
        self.every = every
        self.last = last
        self.step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        # Keras' own counters start anew with every `fit`.
        self.step = training_step(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        if self.step % self.every == 0 or self.step == self.last:
            # On JAX, reading `self.model` is what brings its variables up to date.
            self.on_step(self.model)

    def on_step(self, model: GALIP) -> None:
        """Do the work of a subclass."""


class Report(EverySteps):
    """Writes the mean losses since the last report, and has the guard check them.

    The gradient norms, the learning rates, the discriminator's gammas and betas, and
    the rate in images per second are written with them.

    Args:
        every: int. Steps between reports.
        last: int. The last training step, which always has a report.
        batch_size: int. Images per step.
        journal: a `galip_keras.training.journal.Journal`.
        guard: a `galip_keras.training.collapse.Guard`.
    """

    def __init__(
        self, every: int, last: int, batch_size: int, journal: Journal, guard: Guard
    ) -> None:
        super().__init__(every, last)
        self.batch_size = batch_size
        self.journal = journal
        self.guard = guard

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._reported = time.monotonic(), self.step

    def on_step(self, model: GALIP) -> None:
        figures = {t.name: _number(t.result()) for t in model.trackers}
        for tracker in model.trackers:
            tracker.reset_state()
        self.guard.check_losses(figures)
        (then, step), self._reported = self._reported, (time.monotonic(), self.step)
        images = (self.step - step) * self.batch_size
        figures["pictures_per_second"] = images / (self._reported[0] - then)
        self.journal.write(self.step, {**figures, **_scalars(model)})
        if self.guard.reason:
            model.stop_training = True


class Samples(EverySteps):
    """Draws the same noise and captions again as training goes on, and measures them.

    Writes `step_000300.png`, a grid of the first images, and `cmmd`, `clip_score` and
    `diversity` of all of them to the journal.

    Args:
        folder: path. Where the grids go.
        every: int. Steps between grids.
        last: int. The last training step, which always has samples.
        text_to_image: a `galip_keras.GALIPTextToImage` that shares its weights with
            the model in training.
        real: uint8 array `(n, height, width, 3)`. Real images to compare with.
        captions: list of strings, at least two.
        journal: a `galip_keras.training.journal.Journal`.
        guard: a `galip_keras.training.collapse.Guard`.
        save_best: callable of a `galip_keras.GALIP`. Called when the samples are the
            best so far.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int,
        last: int,
        text_to_image: GALIPTextToImage,
        real: np.ndarray,
        captions: list[str],
        journal: Journal,
        guard: Guard,
        save_best: Callable[[GALIP], Any],
    ) -> None:
        super().__init__(every, last)
        self.folder = Path(folder)
        self.text_to_image = text_to_image
        self.real = real
        self.captions = captions
        self.journal = journal
        self.guard = guard
        self.save_best = save_best
        self._real_embeddings: np.ndarray | None = None

    def on_step(self, model: GALIP) -> None:
        images = self._generate()
        columns = min(int(len(images) ** 0.5), _COLUMNS)
        grid = image_grid(images[: columns**2], columns)
        if backend.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            grid.save(self.folder / f"step_{self.step:06d}.png")
        figures = self._measure(images)
        self.journal.write(self.step, figures)
        self.journal.show(self.step, grid)
        if self.guard.check_samples(self.step, figures):
            self.save_best(model)
        if self.guard.reason:
            model.stop_training = True

    def _generate(self) -> np.ndarray:
        batches = [
            self.text_to_image.generate(
                self.captions[first : first + _BATCH_SIZE], seed=first
            )
            for first in range(0, len(self.captions), _BATCH_SIZE)
        ]
        return np.concatenate(batches)

    def _measure(self, images: np.ndarray) -> dict[str, float]:
        clip = self.text_to_image.backbone.clip
        if self._real_embeddings is None:
            self._real_embeddings = _embed_images(clip, self.real)
            self._text_embeddings = embed_texts(
                text_encoder(clip),
                self.text_to_image.preprocessor,
                self.captions,
                _BATCH_SIZE,
            )
        embeddings = _embed_images(clip, images)
        return {
            "cmmd": metrics.cmmd(self._real_embeddings, embeddings),
            "clip_score": metrics.clip_score(embeddings, self._text_embeddings),
            "diversity": metrics.diversity(images),
        }


class Evaluation(EverySteps):
    """Measures the model as training goes on, the way `galip_keras.evaluate` does.

    Writes the figures to the journal, their names after `evaluation_`, and whole
    reports to `step_000300.json`.

    Args:
        folder: path. Where the reports go.
        every: int. Steps between evaluations.
        last: int. The last training step, which is always evaluated.
        evaluator: a `galip_keras.metrics.evaluator.Evaluator`.
        generated: the `galip_keras.metrics.image_sets.ImageSet` to measure, of a model
            that shares its weights with the one in training.
        real: the `ImageSet` to compare with.
        cache: path. As for `Evaluator.report`.
        journal: a `galip_keras.training.journal.Journal`.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int,
        last: int,
        evaluator: Evaluator,
        generated: ImageSet,
        real: ImageSet,
        cache: Path,
        journal: Journal,
    ) -> None:
        super().__init__(every, last)
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.generated = generated
        self.real = real
        self.cache = cache
        self.journal = journal

    @classmethod
    def of_run(
        cls, folder: Path, plan: Plan, model: GALIPTextToImage, journal: Journal
    ) -> Evaluation:
        """The evaluation that a run's configuration asks for.

        Args:
            folder: path. The run folder.
            plan: a `galip_keras.training.plan.Plan`.
            model: a `galip_keras.GALIPTextToImage`, as for `Samples`.
            journal: a `galip_keras.training.journal.Journal`.
        """
        # They read records by TensorFlow, which training itself can do without.
        from galip_keras.metrics import image_sets
        from galip_keras.metrics.evaluator import Evaluator

        config, builder = plan.config, plan.builder
        assert config.evaluate_every is not None
        split = image_sets.Split.of(builder, config.dataset)
        size = model.backbone.generator.image_size
        return cls(
            folder / "evaluation",
            config.evaluate_every,
            plan.total_steps,
            Evaluator(model),
            image_sets.generated(model, str(folder), split, config.evaluate_images),
            image_sets.of_split(split, size),
            Path(builder.data_path, "statistics"),
            journal,
        )

    def on_step(self, model: GALIP) -> None:
        report, _, _ = self.evaluator.report(
            self.generated, self.real, cache=self.cache, progress=False
        )
        if backend.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"step_{self.step:06d}.json"
            write_text(path, f"{json.dumps(report, indent=2)}\n")
        figures = {f"evaluation_{f['metric']}": f["value"] for f in report["figures"]}
        self.journal.write(self.step, figures)


def _embed_images(clip: Any, images: np.ndarray) -> np.ndarray:
    """CLIP's embeddings `(n, embedding_dim)` of uint8 images."""
    parts = []
    for first in range(0, len(images), _BATCH_SIZE):
        batch = images[first : first + _BATCH_SIZE].astype("float32") / 127.5 - 1.0
        _, embeddings = clip.extract_features_and_embed(ops.convert_to_tensor(batch))
        parts.append(ops.convert_to_numpy(embeddings))
    return np.concatenate(parts)


def _scalars(model: GALIP) -> dict[str, float]:
    """The learning rates, and the factors inside the discriminator."""
    figures = {
        "g_learning_rate": _number(model.optimizer.generator.learning_rate),
        "d_learning_rate": _number(model.optimizer.discriminator.learning_rate),
    }
    for variable in model.discriminator.variables:
        block, name = variable.path.split("/")[-2:]
        if name in ("gamma", "beta"):
            figures[f"{block}_{name}"] = _number(variable)
    return figures


def _number(x: Any) -> float:
    return float(ops.convert_to_numpy(x))
