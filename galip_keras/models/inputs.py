"""Checks of the arrays that images are made from, alike for Keras and for exports."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from galip_keras.console import first_words


def checked_token_ids(token_ids: ArrayLike, sizes: Mapping[str, int]) -> np.ndarray:
    """Return token ids as an array, if the model can read them.

    Args:
        token_ids: int array `(batch_size, length)`, of at most `sequence_length`
            tokens.
        sizes: mapping. `galip_keras.GALIPTextToImage.sizes`, or those of an export.

    Returns:
        An int32 array `(batch_size, length)`.

    Raises:
        ValueError: if the shape or the dtype is another one, or an id is not in the
            vocabulary.
    """
    found = _array("token_ids", token_ids)
    longest, count = sizes["sequence_length"], sizes["vocabulary_size"]
    if found.ndim != 2 or not found.size or found.shape[1] > longest:
        raise ValueError(
            "`token_ids` must have the shape (batch_size, sequence_length), with up to "
            f"{longest} tokens. Received: shape={found.shape}"
        )
    if found.dtype.kind not in "iu":
        raise ValueError(
            f"`token_ids` must be whole numbers. Received: dtype={found.dtype}"
        )
    if found.min() < 0 or found.max() >= count:
        raise ValueError(
            f"`token_ids` must be from 0 to {count - 1}. Received: {found.min()} to "
            f"{found.max()}"
        )
    return found.astype("int32")


def checked_noise(
    noise: ArrayLike, sizes: Mapping[str, int], batch_size: int | None = None
) -> np.ndarray:
    """Return noise as an array, if the model can make images from it.

    Args:
        noise: float array `(batch_size, latent_dim)`.
        sizes: mapping. `galip_keras.GALIPTextToImage.sizes`, or those of an export.
        batch_size: int. Defaults to any number of at least 1.

    Returns:
        A float32 array `(batch_size, latent_dim)`.

    Raises:
        ValueError: if the shape or the dtype is another one, or a number is not finite.
    """
    found = _floats("noise", noise)
    rows = found.shape[:1] if batch_size is None else (batch_size,)
    if not found.size or found.shape != (*rows, sizes["latent_dim"]):
        raise ValueError(
            f"`noise` must have the shape ({batch_size or 'batch_size'}, "
            f"{sizes['latent_dim']}). Received: shape={found.shape}"
        )
    return found


def checked_embeddings(
    text_embeddings: ArrayLike,
    sizes: Mapping[str, int],
    batch_size: int,
    num_conditions: int | None = None,
) -> np.ndarray:
    """Return text embeddings as an array, if they belong to the images of a batch.

    Args:
        text_embeddings: float array `(batch_size, embedding_dim)`, or
            `(batch_size, num_conditions, embedding_dim)`.
        sizes: mapping. `galip_keras.GALIPTextToImage.sizes`, or those of an export.
        batch_size: int.
        num_conditions: int. How many embeddings an image can have instead of one.
            Defaults to none.

    Returns:
        A float32 array of the same shape.

    Raises:
        ValueError: if the shape or the dtype is another one, or a number is not finite.
    """
    found = _floats("text_embeddings", text_embeddings)
    dim = sizes["embedding_dim"]
    shapes: list[tuple[int, ...]] = [(batch_size, dim)]
    if num_conditions:
        shapes.append((batch_size, num_conditions, dim))
    if found.shape not in shapes:
        raise ValueError(
            f"`text_embeddings` must have the shape {' or '.join(map(str, shapes))}, "
            f"as many as `noise` has rows. Received: shape={found.shape}"
        )
    return found


def _array(name, value):
    try:
        return np.asarray(value)
    # For instance of lists of several lengths, or of a tensor that tracks gradients.
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` is no array ({first_words(error)})") from error


def _floats(name, value):
    found = _array(name, value)
    # The type that NumPy does not know.
    if found.dtype.kind not in "fiu" and found.dtype.name != "bfloat16":
        raise ValueError(f"`{name}` must be numbers. Received: dtype={found.dtype}")
    with np.errstate(over="ignore"):
        found = found.astype("float32")
    if not np.isfinite(found).all():
        raise ValueError(f"`{name}` must be finite numbers")
    return found
