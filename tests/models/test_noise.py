"""The noise of a seed against TensorFlow's Philox."""

import numpy as np
import pytest
import tensorflow as tf

from galip_keras import noise

pytestmark = pytest.mark.every_backend

SEEDS = [0, 1, 2, 41, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, *range(50, 80)]


@pytest.mark.parametrize("latent_dim", [1, 4, 99, 100])
def test_noise_is_that_of_tensorflow(latent_dim):
    expected = [
        tf.random.stateless_normal([latent_dim], tf.constant([s, 0], "int64"), alg=1)
        for s in SEEDS
    ]
    found = noise(SEEDS, latent_dim)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.stack(expected))


def test_noise_without_the_c_library(monkeypatch):
    from galip_keras.models import noise as module

    expected = noise(SEEDS, 100)
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: object())
    module._float32.cache_clear()
    try:
        found = noise(SEEDS, 100)
    finally:
        module._float32.cache_clear()
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-7)
