"""Training data for the small CLIP: images, captions and the attributes they show."""

import multiprocessing
from typing import NamedTuple

import numpy as np

from galip_keras.datasets.toybirds.birds import ATTRIBUTES, PLANS, bird, describe, named
from galip_keras.datasets.toybirds.drawing import draw

# The training split, and 30,000 birds more, since 10,000 are few for a vision
# transformer. Their seeds are in no split, and none has a held-out pair of attributes.
SEEDS = (*range(10_000), *range(5_000_000, 5_030_000))
SIZE = 76  # pixels, before cropping

FULL = 2  # captions per bird that name every attribute
CAPTIONS = 6  # captions per bird
TRIES = 150  # sentences drawn per attribute value, before duplicates are dropped

VALUES = [(name, value) for name, values in ATTRIBUTES.items() for value in values]


class Lessons(NamedTuple):
    """The training data of `n` birds.

    Attributes:
        images: uint8 array `(n, 76, 76, 3)`.
        labels: int32 array `(n, 11)`. The value of each attribute.
        token_ids: int32 array `(n, CAPTIONS, length)`.
        named: float32 array `(n, CAPTIONS, 11)`. 1 where a caption names an attribute.
        prompts: int32 array `(59, phrasings, length)`. Captions that name one value,
            in the order of `VALUES`.
    """

    images: np.ndarray
    labels: np.ndarray
    token_ids: np.ndarray
    named: np.ndarray
    prompts: np.ndarray


def picture(seed):
    return np.asarray(draw(bird(seed), seed, SIZE))


def pictures(path, seeds=SEEDS):
    """Load the images of all birds, drawing them first if there is no file yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with multiprocessing.get_context("spawn").Pool() as pool:
            np.save(path, np.stack(pool.map(picture, seeds, chunksize=200)))
    return np.load(path)


def labels(birds):
    return np.array(
        [[v.index(getattr(b, n)) for n, v in ATTRIBUTES.items()] for b in birds],
        "int32",
    )


def captions(birds, rng):
    """Write `CAPTIONS` captions per bird. Return them and the attributes they name."""
    texts, names = [], []
    for one in birds:
        for i in range(CAPTIONS):
            plan = PLANS[0] if i < FULL else PLANS[rng.integers(1, len(PLANS))]
            names.append(named(plan, rng))
            texts.append(describe(one, names[-1], rng))
    return texts, np.array([[n in row for n in ATTRIBUTES] for row in names], "float32")


def prompts(rng):
    """List sentences that name one value, for each of `VALUES`."""
    return [
        sorted(
            {
                describe(
                    bird(int(rng.integers(10_000)))._replace(**{name: value}),
                    frozenset([name]),
                    rng,
                )
                for _ in range(TRIES)
            }
        )
        for name, value in VALUES
    ]


def tokens(texts, preprocessor, at_once=2000):
    """Tokenize texts in chunks."""
    parts = [texts[i : i + at_once] for i in range(0, len(texts), at_once)]
    return np.concatenate([np.asarray(preprocessor(p)) for p in parts]).astype("int32")


def repeated(phrasings, preprocessor):
    """Tokenize lists of texts, repeating the shorter lists to equal length."""
    count = max(map(len, phrasings))
    ids = [tokens(texts, preprocessor) for texts in phrasings]
    return np.stack([np.resize(x, (count, x.shape[1])) for x in ids])


def batches(lessons, batch_size, rng):
    """Yield batches: images, labels, two captions per bird and a prompt per value.

    The first caption names every attribute, the second some of them.
    """
    rows, values = np.arange(batch_size), np.arange(len(VALUES))
    while True:
        chosen = rng.integers(0, len(lessons.labels), batch_size)
        pair = np.stack(
            [
                rng.integers(0, FULL, batch_size),
                rng.integers(FULL, CAPTIONS, batch_size),
            ],
            axis=1,
        )
        phrasing = rng.integers(0, lessons.prompts.shape[1], len(values))
        yield {
            "images": lessons.images[chosen],
            "labels": lessons.labels[chosen],
            "token_ids": lessons.token_ids[chosen][rows[:, None], pair],
            "named": lessons.named[chosen][rows[:, None], pair],
            "prompts": lessons.prompts[values, phrasing],
        }
