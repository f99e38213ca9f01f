"""Batches of one size, since a graph is compiled for each size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def padded_batches(
    items: Iterable[T], batch_size: int
) -> Iterator[tuple[list[T], int]]:
    """Split items into batches of one size.

    Args:
        items: iterable.
        batch_size: int.

    Yields:
        Tuples of a list of `batch_size` items and the number of items that count: the
        last batch is filled up with its last item.
    """
    items = iter(items)
    while batch := list(itertools.islice(items, batch_size)):
        yield batch + batch[-1:] * (batch_size - len(batch)), len(batch)
