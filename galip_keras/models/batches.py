"""Batches of one size, since a graph is compiled for each size, and their checks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

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


def checked_token_ids(token_ids: ArrayLike, sizes: Mapping[str, int]) -> np.ndarray:
    """Return a batch of texts that a model can read.

    Args:
        token_ids: int array `(batch_size, length)`.
        sizes: mapping. `galip_keras.GALIPTextToImage.sizes`, or those of an export.

    Returns:
        An int32 array `(batch_size, length)`.

    Raises:
        ValueError: if there are no texts, some are longer than the model reads, or
            something in them is no token id.
    """
    found = np.asarray(token_ids)
    longest, count = sizes["sequence_length"], sizes["vocabulary_size"]
    if found.ndim != 2 or not found.size or found.shape[1] > longest:
        raise ValueError(
            "`token_ids` must have the shape (batch_size, sequence_length), with up to "
            f"{longest} tokens. Received: shape={found.shape}"
        )
    if found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= count:
        raise ValueError(
            f"`token_ids` must be whole numbers from 0 to {count - 1}. Received: "
            f"{found.min()} to {found.max()}, of dtype {found.dtype}"
        )
    return found.astype("int32")


def checked_latents(
    noise: ArrayLike, text_embeddings: ArrayLike, sizes: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise and the text embeddings of a batch of images.

    Args:
        noise: float array `(batch_size, latent_dim)`.
        text_embeddings: float array `(batch_size, embedding_dim)`, or of three
            dimensions if an image has several.
        sizes: mapping. `galip_keras.GALIPTextToImage.sizes`, or those of an export.

    Returns:
        A tuple of both, as float32 arrays.

    Raises:
        ValueError: if there are no images, or their number or a size differs.
    """
    latents, texts = (np.asarray(x, "float32") for x in (noise, text_embeddings))
    if latents.ndim != 2 or not len(latents) or latents.shape[1] != sizes["latent_dim"]:
        raise ValueError(
            f"`noise` must have the shape (batch_size, {sizes['latent_dim']}). "
            f"Received: shape={latents.shape}"
        )
    size, count = sizes["embedding_dim"], len(latents)
    if texts.ndim not in (2, 3) or (len(texts), texts.shape[-1]) != (count, size):
        raise ValueError(
            f"`text_embeddings` must have the shape ({count}, {size}), one for each "
            f"row of `noise`. Received: shape={texts.shape}"
        )
    return latents, texts
