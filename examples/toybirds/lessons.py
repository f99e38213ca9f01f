"""What the CLIP of the drawn birds learns from: images, captions and what both show."""

import multiprocessing
from typing import NamedTuple

import numpy as np

from galip_keras.datasets.toybirds.birds import ATTRIBUTES, PLANS, bird, describe, named
from galip_keras.datasets.toybirds.drawing import draw

# The birds of the training split, and others with seeds of no split: 10,000 are few for
# a vision transformer. None has a held-out pair of attributes.
SEEDS = (*range(10_000), *range(5_000_000, 5_030_000))
SIZE = 76  # of the images, before they are cropped

# Two captions of a bird name everything, the others some of it.
FULL = 2
CAPTIONS = 6
TRIES = 150  # phrasings of a single attribute

VALUES = [(name, value) for name, values in ATTRIBUTES.items() for value in values]


class Lessons(NamedTuple):
    """Arrays of `n` birds.

    `images` are uint8 `(n, 76, 76, 3)`, `labels` int32 `(n, 11)`, the number of each
    attribute's value; `token_ids` int32 `(n, CAPTIONS, length)`; `named` float32 `(n,
    CAPTIONS, 11)`, which attributes a caption names. `prompts` are int32 `(59,
    phrasings, length)`: captions that name a single value, those of `VALUES` in order.
    """

    images: np.ndarray
    labels: np.ndarray
    token_ids: np.ndarray
    named: np.ndarray
    prompts: np.ndarray


def picture(seed):
    return np.asarray(draw(bird(seed), seed, SIZE))


def pictures(path, seeds=SEEDS):
    """The images of birds, which are drawn once and kept in a file."""
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
    """Captions of each bird, one bird after the other, and what each names."""
    texts, names = [], []
    for one in birds:
        for i in range(CAPTIONS):
            plan = PLANS[0] if i < FULL else PLANS[rng.integers(1, len(PLANS))]
            names.append(named(plan, rng))
            texts.append(describe(one, names[-1], rng))
    return texts, np.array([[n in row for n in ATTRIBUTES] for row in names], "float32")


def prompts(rng):
    """For each of `VALUES` its phrasings, as a list."""
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
    """Token ids of any number of texts."""
    parts = [texts[i : i + at_once] for i in range(0, len(texts), at_once)]
    return np.concatenate([np.asarray(preprocessor(p)) for p in parts]).astype("int32")


def repeated(phrasings, preprocessor):
    """Token ids of lists of unequal length, as if each had as many as the longest."""
    count = max(map(len, phrasings))
    ids = [tokens(texts, preprocessor) for texts in phrasings]
    return np.stack([np.resize(x, (count, x.shape[1])) for x in ids])


def batches(lessons, batch_size, rng):
    """Endless batches: images, labels, two captions a bird and a prompt a value.

    The first of the captions names everything, the second some of it.
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
