"""The drawn birds as arrays, with what is known of each."""

import re

import numpy as np
import tensorflow as tf

from galip_keras.datasets import pipeline
from galip_keras.datasets.toybirds import birds

SIZE = 64
_STORED = 76  # pictures are stored at twice this size

_COLOR = rf"\b({'|'.join(birds.COLORS)})"
_COLORS = {
    "body": f"{_COLOR} (?:bird|body)",
    "wing": f"{_COLOR} wings",
    "crown": f"{_COLOR} (?:crown|cap)",
    "belly": f"{_COLOR} (?:belly|breast)",
    "beak_color": f"{_COLOR} (?:beak|bill)",
}


def load(builder, split, count=None):
    """The pictures of a split, their birds and their captions.

    Returns:
        Pictures, uint8 `(n, 76, 76, 3)`, a list of `n` `birds.Bird`, and a list of `n`
        lists of ten strings.
    """

    def example(record):
        image = tf.io.decode_jpeg(record["image"], channels=3, ratio=2)
        image = tf.ensure_shape(image, (_STORED, _STORED, 3))
        return image, record["id"], record["captions"]

    dataset = pipeline.records(builder, pipeline.shards(builder, split))
    dataset = dataset.take(-1 if count is None else count)
    images, ids, captions = zip(*dataset.map(example).as_numpy_iterator())
    seeds = [int(name.decode().rpartition("/")[2]) for name in ids]
    drawn = [birds.bird(seed, held_out=split == "compositions") for seed in seeds]
    return np.stack(images), drawn, [[s.decode() for s in texts] for texts in captions]


def middle(images):
    """The middle of stored pictures, `(n, 64, 64, 3)`."""
    edge = (_STORED - SIZE) // 2
    return images[:, edge:-edge, edge:-edge]


def to_unit(images):
    """Pictures as the networks take them, float32 in [-1, 1]."""
    return images.astype("float32") / 127.5 - 1.0


def labels(drawn):
    """What each bird has, by attribute: int arrays `(n,)`."""
    return {
        name: np.array([values.index(getattr(bird, name)) for bird in drawn])
        for name, values in birds.ATTRIBUTES.items()
    }


def named_colors(caption):
    """The colours that a caption names, by attribute."""
    found = {name: re.search(text, caption) for name, text in _COLORS.items()}
    return {name: match[1] for name, match in found.items() if match}
