"""CLIP's text encoder as a model of its own."""

import keras
import numpy as np
from keras import ops

from galip_keras.models.batches import padded_batches


def text_encoder(clip, sequence_length=None):
    """Token ids to sentence embeddings, as a functional model.

    Args:
        clip: a `galip_keras.FrozenCLIP`.
        sequence_length: int. None where prompts of any length are to be taken.

    Returns:
        A `keras.Model` from int32 `(batch_size, sequence_length)` to float32
        `(batch_size, embedding_dim)`.
    """
    token_ids = keras.Input((sequence_length,), dtype="int32", name="token_ids")
    return keras.Model(token_ids, clip.embed_text(token_ids), name="text_encoder")


def embed_texts(encoder, preprocessor, texts, batch_size):
    """Sentence embeddings of any number of texts, by a graph that is compiled once.

    Args:
        encoder: what `text_encoder` returned.
        preprocessor: a `galip_keras.GALIPTextToImagePreprocessor`.
        texts: list of strings or bytes.
        batch_size: int. Texts at once.

    Returns:
        A float32 array `(len(texts), embedding_dim)`.
    """
    parts = []
    for batch, count in padded_batches(texts, batch_size):
        embedded = encoder.predict_on_batch(np.asarray(preprocessor(batch)))
        parts.append(ops.convert_to_numpy(embedded)[:count])
    return np.concatenate(parts)
