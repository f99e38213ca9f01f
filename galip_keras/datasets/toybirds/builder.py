"""Cartoon birds that this package draws: data for offline users, tests, notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from galip_keras.datasets import records
from galip_keras.datasets.images import encode
from galip_keras.datasets.toybirds.birds import bird, captions
from galip_keras.datasets.toybirds.drawing import draw

# Crops of 64 pixels are taken from 76, those of 128 from 152: neither is resized badly.
_SIZE = 152

# The first seed and the number of birds. Seeds of two splits never meet.
_SPLITS = {
    "train": (0, 10_000),
    "test": (1_000_000, 1_000),
    "compositions": (2_000_000, 1_000),
}


class Toybirds(records.CaptionedImages):
    """Builder of the drawn birds: `train`, `test`, and `compositions`.

    The birds of `compositions` have pairs of attributes, `birds.HELD_OUT`, that none of
    the other splits has.
    """

    description = "Cartoon birds with independent attributes, ten captions each."
    license = "Apache License 2.0"

    @classmethod
    def configure(cls, name, source, **options):
        if source:
            raise ValueError(f"toybirds are drawn here: leave {source} out")
        return super().configure(name, source, **options)

    def _splits(self, dl_manager, skipped):
        return {split: _records(split, *seeds) for split, seeds in _SPLITS.items()}

    def _jpeg(self, record):
        split, _, seed = record.name.partition("/")
        drawn = bird(int(seed), held_out=split == "compositions")
        return encode(draw(drawn, int(seed), _SIZE))


def _records(split: str, first: int, count: int) -> Iterator[records.Record]:
    for seed in range(first, first + count):
        sentences = captions(bird(seed, held_out=split == "compositions"), seed)
        yield records.Record(f"{split}/{seed:07}", sentences, b"")
