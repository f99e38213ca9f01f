"""Does batches of jobs with a model of any kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from galip_keras.models.noise import expand_seeds, noise
from galip_keras.serving.jobs import EmbedJob, Job, TokensJob


class Drawer:
    """Does jobs in batches of a few fixed sizes, since each size is compiled.

    Args:
        model: object with `generate(prompts, seed, truncation)`, for interpolation
            also `latent_dim`, `embed(prompts)` and `decode(noise, text_embeddings)`,
            and for images from token ids `generate_from_token_ids(token_ids, noise)`.
        batch_size: int. The most jobs done together.

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

    def __call__(self, jobs: Sequence[Any]) -> list[Any]:
        results: list[Any] = [None] * len(jobs)
        # Models do one kind at a time, with one truncation.
        for kind, group in itertools.groupby(
            sorted(range(len(jobs)), key=lambda i: _kind(jobs[i])),
            key=lambda i: _kind(jobs[i]),
        ):
            mine = list(group)
            size = next(size for size in self.sizes if size >= len(mine))
            filled = [jobs[i] for i in (mine * size)[:size]]
            for i, result in zip(mine, getattr(self, kind[0])(filled, *kind[1:])):
                results[i] = result
        return results

    def _embed(self, jobs: Sequence[EmbedJob]) -> Any:
        return self._model.embed([job.prompt for job in jobs])

    def _from_tokens(self, jobs: Sequence[TokensJob]) -> Any:
        token_ids = np.array([job.token_ids for job in jobs], "int32")
        latents = np.array([job.noise for job in jobs], "float32")
        return self._model.generate_from_token_ids(token_ids, latents)

    def examples(self, count: int) -> list[Any]:
        """Jobs of images to warm the model up with."""
        if getattr(self._model, "takes_prompts", True):
            return [Job("an image", i) for i in range(count)]
        sizes = self._model.sizes
        token_ids, latents = [0] * sizes["sequence_length"], [0.0] * sizes["latent_dim"]
        return [TokensJob(token_ids, latents)] * count

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


def _kind(job: Job | EmbedJob | TokensJob) -> tuple[Any, ...]:
    """The method that does a job, and what its jobs must have in common."""
    if isinstance(job, EmbedJob):
        return ("_embed",)
    if isinstance(job, TokensJob):
        return ("_from_tokens",)
    # At weight 0 it is the image of `prompt`, bit for bit: draw it in the same way.
    is_between = job.other is not None and job.weight > 0
    return "_between" if is_between else "_plain", job.truncation
