"""CLIP's text encoder as a Keras model, and text embeddings of many texts."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from galip_keras import backend
from galip_keras.models.batches import padded_batches
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor

# Texts are cut to multiples of it: some backends compile each length anew.
_LENGTH_STEP = 16


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
    encoder = keras.Model(token_ids, clip.embed_text(token_ids), name="text_encoder")
    # Keras would compile it everywhere, on PyTorch for a minute.
    encoder.jit_compile = backend.should_jit(encoder, is_varied=True)
    return encoder


def embed_token_ids(encoder: keras.Model, token_ids: ArrayLike) -> np.ndarray:
    """Embed a batch of texts, without most of their padding.

    CLIP reads a text off at its end, the token of the highest id, which attends to
    nothing after it.

    Args:
        encoder: a `keras.Model` that `text_encoder` returned for any number of tokens.
        token_ids: int array `(batch_size, sequence_length)`.

    Returns:
        A float32 array `(batch_size, embedding_dim)`.
    """
    token_ids = np.asarray(token_ids)
    longest = int(token_ids.argmax(axis=-1).max(initial=0)) + 1
    length = _LENGTH_STEP * math.ceil(longest / _LENGTH_STEP)
    return ops.convert_to_numpy(encoder.predict_on_batch(token_ids[:, :length]))


def embed_texts(
    encoder: keras.Model,
    preprocessor: GALIPTextToImagePreprocessor,
    texts: Sequence[str] | Sequence[bytes],
    batch_size: int,
) -> np.ndarray:
    """Embed any number of texts, by a graph that is compiled once.

    Args:
        encoder: a `keras.Model` that `text_encoder` returned for any number of tokens.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        texts: list of strings or bytes.
        batch_size: int. Number of texts that are embedded at once.

    Returns:
        A float32 array `(len(texts), embedding_dim)`.
    """
    parts = []
    for batch, count in padded_batches(texts, batch_size):
        token_ids = ops.convert_to_numpy(preprocessor(batch))
        parts.append(embed_token_ids(encoder, token_ids)[:count])
    return np.concatenate(parts)
