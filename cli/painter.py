"""Makes the pictures of `galip sample`."""

import functools
import itertools
import operator

import click


class Painter:
    """Makes pictures, a batch at a time, and keeps the best of each seed's candidates.

    Args:
        network: a `galip_keras.GALIPTextToImage`.
        truncation: float.
        plus: sequence of strings. Added to every prompt.
        minus: sequence of strings. Subtracted.
        best_of: int. Candidates a seed; None for the one of the seed itself.
        scorer: string. The preset of another CLIP, or None.
        batch_size: int.

    Attributes:
        facts: dict of plain values. What a picture tells of how it was made.
    """

    def __init__(self, network, truncation, plus, minus, best_of, scorer, batch_size):
        self.facts = {
            name: list(texts)
            for name, texts in (("plus", plus), ("minus", minus))
            if texts
        }
        self._candidates = best_of or 1
        self._batch_size = batch_size
        self._generate = functools.partial(network.generate, truncation=truncation)
        if plus or minus:
            self._generate = _arithmetic(network, truncation, plus, minus)
        self._score = None
        if best_of:
            name, self._score = _judge(network, scorer, plus, minus)
            self.facts.update(best_of=best_of, scorer=name)

    def count(self, outputs):
        """Pictures that are made, kept or not."""
        return sum(len(output.seeds) for output in outputs) * self._candidates

    def paint(self, outputs, bar):
        """Yields the images of each output, and facts about their choice."""
        import numpy as np

        count = self._candidates
        jobs = (
            (output.prompt, seed * count + i)
            for output in outputs
            for seed in output.seeds
            for i in range(count)
        )
        drawn = self._draw(jobs, min(self._batch_size, self.count(outputs)), bar)
        for output in outputs:
            # The first of equals, so that the choice is always the same.
            scores, seeds, images = zip(
                *(
                    max(itertools.islice(drawn, count), key=operator.itemgetter(0))
                    for _ in output.seeds
                )
            )
            kept = {}
            if self._score:
                kept = {**one_or_all("seed", seeds), **one_or_all("score", scores)}
            yield np.stack(images), kept

    def _draw(self, jobs, size, bar):
        while batch := list(itertools.islice(jobs, size)):
            # Filled up: a graph is compiled for each size.
            prompts, seeds = zip(*batch, *batch[-1:] * (size - len(batch)))
            images = self._generate(list(prompts), seed=list(seeds))
            scores = self._score(prompts, images) if self._score else [0] * size
            bar.update(len(batch))
            for score, seed, image in zip(scores[: len(batch)], seeds, images):
                # A view would keep the whole batch.
                yield score, seed, image.copy()


def _arithmetic(network, truncation, plus, minus):
    """`network.generate`, for sums of sentences."""
    import numpy as np

    from galip_keras import noise
    from galip_keras.sampling.latent import combine

    @functools.lru_cache(maxsize=1)
    def embed(prompt):
        return combine(network, [prompt], plus, minus)[0]

    def generate(prompts, seed):
        latents = noise(seed, network.latent_dim)
        texts = np.stack([embed(prompt) for prompt in prompts])
        return network.decode(latents * np.float32(truncation), texts)

    return generate


def _judge(network, preset, plus, minus):
    """The name of a CLIP, and how well it finds images to show their prompts."""
    import numpy as np

    from galip_keras.metrics import clip_score
    from galip_keras.metrics.evaluator import Evaluator

    scorer = Evaluator(network, scorer=preset).scorers[-1]
    signs = np.array([1] * (1 + len(plus)) + [-1] * len(minus), "float32")

    @functools.lru_cache(maxsize=1)
    def embed(prompt):
        return signs @ scorer.embed([prompt, *plus, *minus])

    def score(prompts, images):
        pairs = zip(scorer.extractor(images), map(embed, prompts))
        scores = [clip_score(image[None], text[None]) for image, text in pairs]
        if not np.isfinite(scores).all():
            raise click.ClickException("the scores of some pictures are no numbers.")
        return scores

    return scorer.name, score


def one_or_all(name, values):
    """A fact of a picture, or the facts of a sheet."""
    return {name: values[0]} if len(values) == 1 else {f"{name}s": list(values)}
