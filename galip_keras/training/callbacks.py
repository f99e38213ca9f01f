"""What Keras lacks: reports, samples and interruptions of a run counted in steps."""

import json
import time
from pathlib import Path

import keras
import numpy as np
from keras import ops

from galip_keras import metrics
from galip_keras.backend import devices
from galip_keras.files import write_text
from galip_keras.images import image_grid
from galip_keras.training.progress import training_step

# Samples are made so many at a time.
_SAMPLES_AT_ONCE = 16
_SAMPLES_IN_GRID = 16


class EverySteps(keras.callbacks.Callback):
    """Calls a subclass' `on_step(model)` every so many steps of the whole run.

    Args:
        every: int. Steps from one call to the next.
        last: int. The last training step, which has a call in any case. By default
            there is none.
    """

    def __init__(self, every, last=None):
        super().__init__()
        self.every = every
        self.last = last
        self.step = 0

    def on_train_begin(self, logs=None):
        # Keras' own counters start anew with every `fit`.
        self.step = training_step(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0 or self.step == self.last:
            # On JAX, reading `self.model` is what brings its variables up to date.
            self.on_step(self.model)


class Report(EverySteps):
    """Writes the mean losses of the steps since the last report, and has them judged.

    With them go the norms of the gradients, the learning rates, the discriminator's
    gammas and betas, and the rate in pictures a second.

    Args:
        every: int. Steps from one report to the next.
        last: int. The last training step, which has a report in any case.
        batch_size: int. Pictures a step.
        journal: a `galip_keras.training.journal.Journal`.
        guard: a `galip_keras.training.collapse.Guard`.
    """

    def __init__(self, every, last, batch_size, journal, guard):
        super().__init__(every, last)
        self.batch_size = batch_size
        self.journal = journal
        self.guard = guard

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._reported = time.monotonic(), self.step

    def on_step(self, model):
        figures = {t.name: _number(t.result()) for t in model.trackers}
        for tracker in model.trackers:
            tracker.reset_state()
        self.guard.check_losses(figures)
        (then, step), self._reported = self._reported, (time.monotonic(), self.step)
        pictures = (self.step - step) * self.batch_size
        figures["pictures_per_second"] = pictures / (self._reported[0] - then)
        self.journal.write(self.step, {**figures, **_scalars(model)})
        if self.guard.reason:
            model.stop_training = True


class Samples(EverySteps):
    """Pictures of the same noise and captions as training goes on, and their figures.

    Writes `step_000300.png`, a square of the first ones, and to the journal `cmmd`,
    `clip_score` and `diversity` of all.

    Args:
        folder: path. Where the grids go.
        every: int. Steps from one to the next.
        last: int. The last training step, which has samples in any case.
        text_to_image: a `galip_keras.GALIPTextToImage` that follows the training.
        pictures: uint8 array `(n, height, width, 3)`. Real ones to compare with.
        captions: list of strings, at least two.
        journal: a `galip_keras.training.journal.Journal`.
        guard: a `galip_keras.training.collapse.Guard`.
        save_best: callable of a `galip_keras.GALIP`. Called when the samples are the
            best so far.
    """

    def __init__(
        self,
        folder,
        every,
        last,
        text_to_image,
        pictures,
        captions,
        journal,
        guard,
        save_best,
    ):
        super().__init__(every, last)
        self.folder = Path(folder)
        self.text_to_image = text_to_image
        self.pictures = pictures
        self.captions = captions
        self.journal = journal
        self.guard = guard
        self.save_best = save_best
        self._real = None

    def on_step(self, model):
        images = self._generate()
        columns = int(min(len(images), _SAMPLES_IN_GRID) ** 0.5)
        grid = image_grid(images[: columns**2], columns)
        if devices.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            grid.save(self.folder / f"step_{self.step:06d}.png")
        figures = self._judge(images)
        self.journal.write(self.step, figures)
        self.journal.show(self.step, grid)
        if self.guard.check_samples(self.step, figures):
            self.save_best(model)
        if self.guard.reason:
            model.stop_training = True

    def _generate(self):
        batches = [
            self.text_to_image.generate(self.captions[first:after], seed=first)
            for first, after in _ranges(len(self.captions))
        ]
        return np.concatenate(batches)

    def _judge(self, images):
        if self._real is None:
            self._real = self._embed(self.pictures)
            self._text = self._embed_captions()
        embeddings = self._embed(images)
        return {
            "cmmd": metrics.cmmd(self._real, embeddings),
            "clip_score": metrics.clip_score(embeddings, self._text),
            "diversity": metrics.diversity(images),
        }

    def _embed(self, images):
        def embed(batch):
            pixels = ops.convert_to_tensor(batch.astype("float32") / 127.5 - 1.0)
            return self._clip.extract_features_and_embed(pixels)[1]

        return _in_batches(embed, images)

    def _embed_captions(self):
        def embed(batch):
            return self._clip.embed_text(ops.convert_to_tensor(batch))

        token_ids = self.text_to_image.preprocessor(self.captions)
        return _in_batches(embed, np.asarray(token_ids))

    @property
    def _clip(self):
        return self.text_to_image.backbone.clip


class Evaluation(EverySteps):
    """Honest figures as training goes on, as `galip evaluate` measures them.

    Writes them to the journal, their names after `evaluation_`, and whole reports to
    `step_000300.json`.

    Args:
        folder: path. Where the reports go.
        every: int. Steps from one to the next.
        last: int. The last training step, which is evaluated in any case.
        judge: a `galip_keras.metrics.evaluator.Evaluator`.
        pictures: the `galip_keras.metrics.images.Pictures` to judge, of a model that
            follows the training.
        real: those to compare with.
        cache: path. As for `Evaluator.report`.
        journal: a `galip_keras.training.journal.Journal`.
    """

    def __init__(self, folder, every, last, judge, pictures, real, cache, journal):
        super().__init__(every, last)
        self.folder = Path(folder)
        self.judge = judge
        self.pictures = pictures
        self.real = real
        self.cache = cache
        self.journal = journal

    def on_step(self, model):
        report, _, _ = self.judge.report(
            self.pictures, self.real, cache=self.cache, progress=False
        )
        if devices.is_main():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"step_{self.step:06d}.json"
            write_text(path, f"{json.dumps(report, indent=2)}\n")
        figures = {f"evaluation_{f['metric']}": f["value"] for f in report["figures"]}
        self.journal.write(self.step, figures)


def _ranges(count):
    starts = range(0, count, _SAMPLES_AT_ONCE)
    return [(first, first + _SAMPLES_AT_ONCE) for first in starts]


def _in_batches(function, array):
    batches = [array[first:after] for first, after in _ranges(len(array))]
    return np.concatenate([ops.convert_to_numpy(function(x)) for x in batches])


def _scalars(model):
    """The learning rates, and what weighs the discriminator's features."""
    figures = {
        "g_learning_rate": _number(model.optimizer.generator.learning_rate),
        "d_learning_rate": _number(model.optimizer.discriminator.learning_rate),
    }
    for variable in model.discriminator.variables:
        block, name = variable.path.split("/")[-2:]
        if name in ("gamma", "beta"):
            figures[f"{block}_{name}"] = _number(variable)
    return figures


def _number(x):
    return float(ops.convert_to_numpy(x))
