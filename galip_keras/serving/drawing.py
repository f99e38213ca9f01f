"""Draws batches of images with a model of any kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from galip_keras.models.noise import expand_seeds, noise
from galip_keras.serving.batching import Job


class Drawer:
    """Draws images in batches of a few fixed sizes, since each size is compiled.

    Args:
        model: object with `generate(prompts, seed, truncation)`, and for interpolation
            also `latent_dim`, `embed(prompts)` and `decode(noise, text_embeddings)`.
        batch_size: int. The most images drawn together.

    Attributes:
        sizes: list of ints. The batch sizes, in ascending order.
    """

    def __init__(self, model: Any, batch_size: int) -> None:
        self._model = model
        powers = itertools.takewhile(
            lambda size: size < batch_size, (2**i for i in itertools.count())
        )
        self.sizes = [*powers, batch_size]

    @property
    def interpolates(self) -> bool:
        """Whether the model can draw from embeddings."""
        return hasattr(self._model, "decode")

    def __call__(self, jobs: Sequence[Job]) -> list[Any]:
        images: list[Any] = [None] * len(jobs)
        # Models take one truncation at a time.
        for kind, group in itertools.groupby(
            sorted(range(len(jobs)), key=lambda i: _kind(jobs[i])),
            key=lambda i: _kind(jobs[i]),
        ):
            mine = list(group)
            size = next(size for size in self.sizes if size >= len(mine))
            filled = [jobs[i] for i in (mine * size)[:size]]
            draw = self._between if kind[0] else self._plain
            for i, image in zip(mine, draw(filled, kind[1])):
                images[i] = image
        return images

    def _plain(self, jobs: Sequence[Job], truncation: float) -> Any:
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        return self._model.generate(prompts, seed=seeds, truncation=truncation)

    def _between(self, jobs: Sequence[Job], truncation: float) -> Any:
        ends = [
            self._model.embed([getattr(job, name) for job in jobs])
            for name in ("prompt", "other")
        ]
        weights = np.array([[job.weight] for job in jobs], "float32")
        texts = (1 - weights) * ends[0] + weights * ends[1]
        seeds = expand_seeds([job.seed for job in jobs], len(jobs))
        latents = noise(seeds, self._model.latent_dim, truncation)
        return self._model.decode(latents, texts)


def _kind(job: Job) -> tuple[bool, float]:
    # At weight 0 it is the image of `prompt`, bit for bit: draw it in the same way.
    return job.other is not None and job.weight > 0, job.truncation
