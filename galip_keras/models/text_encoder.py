"""CLIP's text encoder as a Keras model, and text embeddings of many texts."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from galip_keras.models.batches import padded_batches
from galip_keras.models.clip import FrozenCLIP
from galip_keras.models.preprocessor import GALIPTextToImagePreprocessor


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
    """Embed any number of texts, by a graph that is compiled once.

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
