"""Losses against numbers computed by hand."""

import numpy as np
import pytest
from keras import ops

from galip_keras.models import losses

pytestmark = pytest.mark.every_backend


def test_hinge():
    logits = ops.convert_to_tensor([[2.0], [0.5], [-1.0]])
    assert float(losses.hinge_real(logits)) == pytest.approx((0 + 0.5 + 2) / 3)
    assert float(losses.hinge_fake(logits)) == pytest.approx((3 + 1.5 + 0) / 3)


def test_penalty_takes_one_joint_norm_per_example():
    features = np.zeros((2, 1, 2, 2, 1), "float32")
    features[0, 0, 0, 0, 0] = 3.0
    text = np.array([[4.0, 0.0], [0.0, 2.0]], "float32")
    # Norms 5 and 2.
    expected = 2 * (5.0**6 + 2.0**6) / 2
    penalty = losses.matching_aware_penalty([features, text])
    assert float(penalty) == pytest.approx(expected)


def test_range_penalty_counts_pixels_outside_the_range():
    images = ops.convert_to_tensor([[[[-1.0, 1.0, 0.3]]], [[[1.5, -3.0, 0.0]]]])
    assert float(losses.range_penalty(images)) == pytest.approx((0.25 + 4) / 6)


def test_similarity_is_the_cosine():
    images = ops.convert_to_tensor([[1.0, 0.0], [3.0, 3.0]])
    text = ops.convert_to_tensor([[-5.0, 0.0], [2.0, 0.0]])
    similarity = losses.clip_similarity(images, text)
    assert float(similarity) == pytest.approx((-1 + 0.5**0.5) / 2)


def test_pairs_share_a_row():
    rows = ops.convert_to_tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    np.testing.assert_array_equal(losses.pair_up(rows), [[1], [1], [3], [3], [5]])


def test_energy_score():
    real = ops.convert_to_tensor([[5.0, 0.0], [9.0, 9.0], [0.0, 2.0], [7.0, 1.0]])
    fake = ops.convert_to_tensor([[0.0, 1.0], [3.0, 0.0], [0.0, 1.0], [0.0, -4.0]])
    # Distances to the real image √2, 0 and 0, 2, of the pairs √2 and 2.
    assert float(losses.energy_score(fake, real)) == pytest.approx(0, abs=3e-3)
    fake = ops.convert_to_tensor([[0.0, 1.0]] * 4 + [[1.0, 0.0]])
    real = ops.concatenate([real, real[:1]], axis=0)
    score = losses.energy_score(fake, real)
    assert float(score) == pytest.approx(2**0.5 / 2, abs=1e-3)


def test_energy_score_is_least_for_the_distribution_of_the_data():
    rng = np.random.default_rng(0)

    def images(spread, size=20_000):
        centre = np.zeros((size, 8))
        centre[:, 0] = 1
        images = centre + spread * rng.standard_normal((size, 8))
        return ops.convert_to_tensor(images.astype("float32"))

    real = images(0.3)
    scores = [float(losses.energy_score(images(s), real)) for s in (0.1, 0.3, 0.6)]
    assert np.argmin(scores) == 1
    assert min(scores[0], scores[2]) > 1.02 * scores[1]
