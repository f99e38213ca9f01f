"""CLIP's text encoder as a Keras model, and text embeddings of many texts."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import keras
import numpy as np
from keras import ops

from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor

T = TypeVar("T")


def text_encoder(clip: FrozenCLIP, sequence_length: int | None = None) -> keras.Model:
    """CLIP's text encoder as a functional model: token ids to text embeddings.

    Args:
        clip: a `galip_keras.FrozenCLIP`.
        sequence_length: int. Tokens of a text. None accepts any number.

    Returns:
        A `keras.Model` from int32 `(batch_size, sequence_length)` to float32
        `(batch_size, embedding_dim)`.
    """
    token_ids = keras.Input((sequence_length,), dtype="int32", name="token_ids")
    return keras.Model(token_ids, clip.embed_text(token_ids), name="text_encoder")


def embed_texts(
    encoder: keras.Model,
    preprocessor: GALIPTextToImagePreprocessor,
    texts: Sequence[str] | Sequence[bytes],
    batch_size: int,
) -> np.ndarray:
    """Embeds any number of texts, by a graph that is compiled once.

    Args:
        encoder: a `keras.Model` that `text_encoder` returned.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        texts: list of strings or bytes.
        batch_size: int. Number of texts that are embedded at once.

    Returns:
        A float32 array `(len(texts), embedding_dim)`.
    """
    parts = []
    for batch, count in padded_batches(texts, batch_size):
        embedded = encoder.predict_on_batch(np.asarray(preprocessor(batch)))
        parts.append(ops.convert_to_numpy(embedded)[:count])
    return np.concatenate(parts)


def padded_batches(
    items: Iterable[T], batch_size: int
) -> Iterator[tuple[list[T], int]]:
    """Splits items into batches of one size, since each size compiles a new graph.

    Args:
        items: iterable.
        batch_size: int.

    Yields:
        Tuples of a list of `batch_size` items and the number of them that count. The
        last list is filled up with copies of the last item.
    """
    items = iter(items)
    while batch := list(itertools.islice(items, batch_size)):
        yield batch + batch[-1:] * (batch_size - len(batch)), len(batch)
