"""Cartoon birds that this package draws, for tests, notebooks and offline use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from galip_keras.datasets import records
from galip_keras.datasets.jpeg import encode
from galip_keras.datasets.toybirds.birds import bird, captions
from galip_keras.datasets.toybirds.drawing import draw

# Crops of 64 pixels are taken from 76, crops of 128 from 152: both resize well.
_SIZE = 152

# The first seed and the number of birds. The seeds of two splits never overlap.
_SPLITS = {
    "train": (0, 10_000),
    "test": (1_000_000, 1_000),
    "compositions": (2_000_000, 1_000),
}


class Toybirds(records.CaptionedImages):
    """Builder of the drawn birds: `train`, `test` and `compositions`.

    The birds of `compositions` have pairs of attributes, `birds.HELD_OUT`, that do not
    occur in the other splits.
    """

    description = "Cartoon birds with independent attributes, ten captions each."
    license = "Apache License 2.0"

    @classmethod
    def configure(cls, name: str, source: str, **options: Any) -> records.Config:
        if source:
            raise ValueError(f"toybirds have no source: leave out {source}")
        return super().configure(name, source, **options)

    def _splits(self, dl_manager, skipped):
        return {split: _records(split, *seeds) for split, seeds in _SPLITS.items()}

    def _jpeg(self, record):
        split, _, seed = record.name.partition("/")
        drawn = bird(int(seed), held_out=split == "compositions")
        return encode(draw(drawn, int(seed), _SIZE))


def _records(split: str, first: int, count: int) -> Iterator[records.Record]:
    for seed in range(first, first + count):
        drawn = bird(seed, held_out=split == "compositions")
        # `_jpeg` draws the image, in a thread.
        yield records.Record(f"{split}/{seed:07}", captions(drawn, seed), b"")
