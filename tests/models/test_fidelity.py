"""How close images are, and what counts as close."""

import types

import numpy as np
import pytest

from galip_keras.models import fidelity

EXACT = np.full((2, 4, 4, 3), 100, "uint8")


@pytest.mark.parametrize(("difference", "decibels"), [(1, 48.13), (2, 42.11), (255, 0)])
def test_psnr_by_hand(difference, decibels):
    dark = np.zeros((2, 4, 4, 3), "uint8")
    found = fidelity.psnr(dark + np.uint8(difference), dark)
    assert found == pytest.approx(decibels, abs=0.01)


def test_psnr_of_equal_images_is_a_number():
    assert 100 < fidelity.psnr(EXACT, EXACT) < np.inf


def painter(images):
    return types.SimpleNamespace(generate=lambda prompts, seed: images)


@pytest.mark.parametrize(("difference", "expected"), [(0, True), (2, True), (3, False)])
def test_one_bad_image_is_not_faithful(difference, expected):
    images = EXACT.copy()
    images[1] += np.uint8(difference)
    found = fidelity.is_faithful(painter(images), painter(EXACT))
    assert found == expected
