"""Images from prompts, for Python, the command line and the service."""

from __future__ import annotations

import functools
import itertools
import operator
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from galip_keras.export import runtimes
from galip_keras.export.plain import Plain
from galip_keras.files import is_exported
from galip_keras.models.batches import padded_batches
from galip_keras.models.bundled import BUNDLED, bundled_folder
from galip_keras.models.noise import expand_seeds, noise
from galip_keras.models.prompts import as_prompts

# NumPy draws so many images of a bundled model before Keras would draw the first one
# (benchmarks/startup.py).
FEW = 256


def load_any(
    source: str, num_images: int | None = None, *, precision: str = "float32"
) -> Any:
    """Load whatever makes images.

    Args:
        source: string. What `galip_keras.presets.loading.load_model` takes, or the
            folder of an export, for which no Keras is imported.
        num_images: int. How many images of plain prompts it will draw, if that is all
            it is for. A bundled model draws a few of them by NumPy alone, in float32
            and the same to rounding, long before Keras could draw the first.
        precision: string. What to compute in: `"float32"`, `"bfloat16"`, `"float16"`,
            or `"auto"`, which takes bfloat16 where it is faster and images stay close
            to those in float32.

    Returns:
        A `galip_keras.GALIPTextToImage` or a `galip_keras.export.runtimes.Exported`.

    Raises:
        ValueError: if there is no such model, or it cannot be loaded or computed so.
    """
    if is_exported(source):
        return runtimes.load(source, precision)
    is_few = num_images is not None and num_images <= FEW
    if source in BUNDLED and is_few and precision == "float32":
        return Plain(bundled_folder(source))
    return load_keras(source, precision)


def load_keras(source: str, precision: str = "float32") -> Any:
    """Load a `galip_keras.GALIPTextToImage`; of an architecture, always the same."""
    from galip_keras.presets import loading

    # An architecture has random weights: the same ones every time. Keras' initializers
    # take their seeds from here.
    state = random.getstate()
    random.seed(0)
    try:
        return loading.load_model(source, precision=precision)
    finally:
        random.setstate(state)


def sample(
    model: Any,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] | None = None,
    **settings: Any,
) -> np.ndarray:
    """Make images from prompts, the same ones as `galip sample`.

    Args:
        model: a `galip_keras.GALIPTextToImage`, or a name as for `load_any`.
        prompts: a string, or a sequence of strings.
        seeds: int, or a sequence of ints. Each prompt is drawn with each seed. None
            draws each prompt once, with a seed of its own.
        **settings: keyword arguments of `Sampler`, such as `truncation` or `best_of`.

    Returns:
        A uint8 array `(num_prompts, num_seeds, image_size, image_size, 3)`, without the
        first axis for a single string and without the second one for a single seed or
        None.

    Raises:
        ValueError: if there are no prompts or no seeds, or something else in their
            place, or the model cannot do what is asked for.

    Example:

    ```python
    images = galip_keras.sample("toybirds", "a red bird", seeds=range(4))
    best = galip_keras.sample("toybirds", "a red bird", seeds=0, best_of=4)
    ```
    """
    if isinstance(model, (str, Path)):
        model = load_any(str(model))
    texts, is_single = as_prompts(prompts)
    jobs: list[tuple[str, Sequence[int]]]
    if isinstance(seeds, Iterable):
        each = expand_seeds(list(seeds), len(list(seeds)))
        jobs = [(text, each) for text in texts]
    else:
        count = len(texts) if seeds is None else 1
        if seeds is None and hasattr(model, "random_seed"):
            seeds = model.random_seed()
        own = expand_seeds(seeds, count)
        jobs = [(text, [own[i % count]]) for i, text in enumerate(texts)]
    if not all(each for _, each in jobs):
        raise ValueError("there are no seeds")
    drawn = Sampler(model, **settings).draw(jobs)
    images = np.stack([result.images for result in drawn])
    if not isinstance(seeds, Iterable):
        images = images[:, 0]
    return images[0] if is_single else images


class Drawn(NamedTuple):
    """The images of a prompt.

    Attributes:
        images: uint8 array `(num_seeds, image_size, image_size, 3)`.
        seeds: tuple of ints. The seeds that they were drawn with.
        scores: tuple of floats. How well they show the prompt, if there was a choice.
    """

    images: np.ndarray
    seeds: tuple[int, ...]
    scores: tuple[float, ...] | None


class Sampler:
    """Draws prompts, a batch at a time, and keeps the best of several candidates.

    Args:
        model: a `galip_keras.GALIPTextToImage`, or for plain prompts anything that has
            `generate(prompts, seed, truncation)`.
        truncation: float, at least 0. Factor of the noise: less than 1 trades variety
            for typical images.
        plus: sequence of strings. Added to what every prompt means.
        minus: sequence of strings. Subtracted from it.
        best_of: int. Candidates per seed, of which the one is kept that a CLIP finds
            most like its prompt: seeds `seed * best_of` and those after it. None draws
            the seed itself.
        scorer: string. A keras-hub preset, the CLIP that chooses. Defaults to the
            model's own, which it was trained to please.
        batch_size: int. Images drawn at once. With more than 1, rounding may depend on
            what else is in the batch.

    Attributes:
        facts: dict of plain values. How images are made, besides prompt, seed and
            truncation.

    Raises:
        ValueError: if the model cannot do what is asked for, or a count is below 1.
    """

    def __init__(
        self,
        model: Any,
        truncation: float = 1.0,
        plus: Sequence[str] = (),
        minus: Sequence[str] = (),
        best_of: int | None = None,
        scorer: str | None = None,
        batch_size: int = 1,
    ) -> None:
        for name, count in (("best_of", best_of), ("batch_size", batch_size)):
            if count is not None and not (isinstance(count, int) and count >= 1):
                raise ValueError(f"`{name}` must be a whole number of at least 1")
        if (plus or minus or best_of) and not hasattr(model, "backbone"):
            raise ValueError("exports do not take `plus`, `minus` and `best_of`")
        self.facts: dict[str, Any] = {
            name: list(texts)
            for name, texts in (("plus", plus), ("minus", minus))
            if texts
        }
        if hasattr(model, "precision"):
            self.facts["precision"] = model.precision
        self._candidates = best_of or 1
        self._batch_size = batch_size
        self._generate: Callable[..., np.ndarray]
        self._generate = functools.partial(model.generate, truncation=truncation)
        if plus or minus:
            self._generate = _arithmetic(model, truncation, plus, minus)
        self._score: Callable[[Sequence[str], np.ndarray], Sequence[float]] | None
        self._score = None
        if best_of:
            name, self._score = _scores(model, scorer, plus, minus)
            self.facts.update(best_of=best_of, scorer=name)

    def count(self, jobs: Iterable[tuple[str, Sequence[int]]]) -> int:
        """The number of images that are drawn, kept or not."""
        return sum(len(seeds) for _, seeds in jobs) * self._candidates

    def draw(
        self,
        jobs: Sequence[tuple[str, Sequence[int]]],
        progress: Callable[[int], Any] = lambda count: None,
    ) -> Iterator[Drawn]:
        """Draw prompts.

        Args:
            jobs: sequence of pairs of a prompt and its seeds.
            progress: callable. Told how many images were drawn, after each batch.

        Yields:
            A `Drawn` for each job, in order.
        """
        count = self._candidates
        singles = (
            (prompt, seed * count + i)
            for prompt, seeds in jobs
            for seed in seeds
            for i in range(count)
        )
        drawn = self._draw(singles, min(self._batch_size, self.count(jobs)), progress)
        for _, seeds in jobs:
            # The first of equals, so that the choice is always the same.
            scores, kept, images = zip(
                *(
                    max(itertools.islice(drawn, count), key=operator.itemgetter(0))
                    for _ in seeds
                )
            )
            yield Drawn(np.stack(images), kept, scores if self._score else None)

    def _draw(
        self,
        singles: Iterable[tuple[str, int]],
        batch_size: int,
        progress: Callable[[int], Any],
    ) -> Iterator[tuple[float, int, np.ndarray]]:
        for batch, count in padded_batches(singles, batch_size):
            prompts, seeds = zip(*batch)
            images = self._generate(list(prompts), seed=list(seeds))
            scores = self._score(prompts, images) if self._score else [0.0] * count
            progress(count)
            for score, seed, image in zip(scores[:count], seeds, images):
                # A view would keep the whole batch.
                yield score, seed, image.copy()


def _arithmetic(
    model: Any, truncation: float, plus: Sequence[str], minus: Sequence[str]
) -> Callable[..., np.ndarray]:
    """`model.generate`, for sums of prompts."""
    from galip_keras.sampling.latent import combine

    @functools.lru_cache(maxsize=1)
    def embed(prompt: str) -> np.ndarray:
        return combine(model, [prompt], plus, minus)[0]

    def generate(prompts: Sequence[str], seed: Sequence[int]) -> np.ndarray:
        texts = np.stack([embed(prompt) for prompt in prompts])
        return model.decode(noise(seed, model.latent_dim, truncation), texts)

    return generate


def _scores(
    model: Any, preset: str | None, plus: Sequence[str], minus: Sequence[str]
) -> tuple[str, Callable[[Sequence[str], np.ndarray], list[float]]]:
    """The name of a CLIP, and how well it finds images to show their prompts."""
    from galip_keras.metrics import clip_score
    from galip_keras.metrics.evaluator import Evaluator

    scorer = Evaluator(model, scorer=preset).scorers[-1]
    signs = np.array([1] * (1 + len(plus)) + [-1] * len(minus), "float32")

    @functools.lru_cache(maxsize=1)
    def embed(prompt: str) -> np.ndarray:
        return signs @ scorer.embed([prompt, *plus, *minus])

    def score(prompts: Sequence[str], images: np.ndarray) -> list[float]:
        pairs = zip(scorer.extractor(list(images)), map(embed, prompts))
        scores = [clip_score(image[None], text[None]) for image, text in pairs]
        if not np.isfinite(scores).all():
            raise ValueError("the scores of some images are not numbers")
        return scores

    return scorer.name, score
