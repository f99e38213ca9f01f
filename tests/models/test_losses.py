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
