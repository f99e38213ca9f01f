"""Text embeddings of many texts, in batches of one size."""

import numpy as np
import pytest
import tiny
from keras.ops import convert_to_numpy

from galip_keras import GALIPTextToImagePreprocessor
from galip_keras.models.batches import padded_batches
from galip_keras.models.random_clip import byte_tokenizer
from galip_keras.models.text_encoder import (
    embed_texts,
    embed_token_ids,
    text_encoder,
)

pytestmark = pytest.mark.every_backend

TEXTS = ["a red bird", "an owl", "a café 🐦", "", "a bird"]


def test_embeddings_do_not_depend_on_the_batch_size():
    clip = tiny.frozen_clip()
    preprocessor = GALIPTextToImagePreprocessor(byte_tokenizer())
    token_ids = np.asarray(preprocessor(TEXTS))
    expected = convert_to_numpy(clip.embed_text(token_ids))
    found = embed_texts(text_encoder(clip), preprocessor, TEXTS, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # As exports have it, without cutting the padding off.
    encoder = text_encoder(clip, token_ids.shape[1])
    found = convert_to_numpy(encoder.predict_on_batch(token_ids))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_is_not_embedded():
    preprocessor = GALIPTextToImagePreprocessor(byte_tokenizer())
    encoder = text_encoder(tiny.frozen_clip())
    lengths = []

    def embed(token_ids):
        lengths.append(token_ids.shape[1])
        return token_ids[:, :1]

    encoder.predict_on_batch = embed
    for words in (0, 1, 5, 100):
        embed_token_ids(encoder, np.asarray(preprocessor(["owl " * words])))
    assert lengths == [16, 16, 32, 77]


@pytest.mark.parametrize(
    ("items", "batches"),
    [
        ([], []),
        ([1, 2], [([1, 2], 2)]),
        ([1, 2, 3], [([1, 2], 2), ([3, 3], 1)]),
    ],
)
def test_the_last_batch_is_filled_up(items, batches):
    assert list(padded_batches(iter(items), 2)) == batches
