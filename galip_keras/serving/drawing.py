"""Batches of pictures by a model of any kind."""

import itertools

import numpy as np

from galip_keras.models.noise import noise


class Drawer:
    """Draws pictures together, in batches of a few sizes, since each is compiled.

    Args:
        model: what has `generate(prompts, seed, truncation)`, and to go from sentence
            to sentence `embed(prompts)` and `decode(noise, text_embeddings)`.
        batch_size: int. The most pictures drawn together.
    """

    def __init__(self, model, batch_size):
        self._model = model
        powers = itertools.takewhile(
            lambda size: size < batch_size, (2**i for i in itertools.count())
        )
        self.sizes = [*powers, batch_size]

    @property
    def interpolates(self):
        """Whether the model takes embeddings."""
        return hasattr(self._model, "decode")

    def __call__(self, jobs):
        images = [None] * len(jobs)
        # One truncation at a time is what models take.
        for kind, mine in itertools.groupby(
            sorted(range(len(jobs)), key=lambda i: _kind(jobs[i])),
            key=lambda i: _kind(jobs[i]),
        ):
            mine = list(mine)
            size = next(size for size in self.sizes if size >= len(mine))
            filled = [jobs[i] for i in (mine * size)[:size]]
            draw = self._between if kind[0] else self._plain
            for i, image in zip(mine, draw(filled, kind[1])):
                images[i] = image
        return images

    def _plain(self, jobs, truncation):
        prompts, seeds = [job.prompt for job in jobs], [job.seed for job in jobs]
        return self._model.generate(prompts, seed=seeds, truncation=truncation)

    def _between(self, jobs, truncation):
        ends = [
            self._model.embed([getattr(job, name) for job in jobs])
            for name in ("prompt", "other")
        ]
        weights = np.array([[job.weight] for job in jobs], "float32")
        texts = (1 - weights) * ends[0] + weights * ends[1]
        latents = noise([job.seed for job in jobs], self._model.latent_dim)
        return self._model.decode(latents * np.float32(truncation), texts)


def _kind(job):
    return job.other is not None, job.truncation
