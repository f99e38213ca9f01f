"""Arrays that images cannot be made from are refused in one line."""

import ml_dtypes
import numpy as np
import pytest

from galip_keras import GALIPTextToImage

pytestmark = pytest.mark.every_backend


@pytest.fixture(scope="module")
def model():
    return GALIPTextToImage.from_preset("galip_tiny")


@pytest.mark.parametrize(
    ("token_ids", "message"),
    [
        (np.zeros((0, 77), "int32"), r"shape=\(0, 77\)"),
        ([5, 6], r"shape=\(2,\)"),
        ([[5] * 78], r"up to 77 tokens. Received: shape=\(1, 78\)"),
        ([[5, 10**6]], "from 0 to .* Received: 5 to 1000000"),
        ([[-1, 5]], "from 0 to .* Received: -1 to 5"),
        ([[5.5]], "whole numbers.* dtype=float64"),
        ([[True]], "whole numbers.* dtype=bool"),
        ([["a"]], "whole numbers.* dtype=<U1"),
        ([[5, None]], "whole numbers.* dtype=object"),
        ([[5], [5, 6]], "`token_ids` is no array"),
        ([[5], [6]], r"`noise` must have the shape \(2, 100\)"),
    ],
)
def test_impossible_token_ids_are_refused(model, token_ids, message):
    with pytest.raises(ValueError, match=message):
        model.generate_from_token_ids(token_ids, np.zeros((1, model.latent_dim)))


@pytest.mark.parametrize(
    ("noise_shape", "texts_shape", "message"),
    [
        ((0, 100), (0, 32), r"`noise` .* shape=\(0, 100\)"),
        ((1, 99), (1, 32), r"`noise` .* shape=\(1, 99\)"),
        ((2, 100), (1, 32), r"`text_embeddings` .* \(2, 32\).* shape=\(1, 32\)"),
        ((2, 100), (2, 5), r"`text_embeddings` .* shape=\(2, 5\)"),
    ],
)
def test_impossible_latents_are_refused(model, noise_shape, texts_shape, message):
    with pytest.raises(ValueError, match=message):
        model.decode(np.zeros(noise_shape), np.zeros(texts_shape))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e39, "a", None, 1j])
def test_what_is_no_number_is_refused(model, wrong):
    latents, texts = np.zeros((1, 100)), np.zeros((1, 32))
    with pytest.raises(ValueError, match=r"`noise` must be .*numbers"):
        model.decode([[wrong] * 100], texts)
    with pytest.raises(ValueError, match=r"`text_embeddings` must be .*numbers"):
        model.decode(latents, [[wrong] * 32])


def test_noise_may_be_bfloat16(model):
    latents, texts = np.ones((1, 100), "float32"), model.embed(["a bird"])
    found = model.decode(latents.astype(ml_dtypes.bfloat16), texts)
    np.testing.assert_array_equal(found, model.decode(latents, texts))
