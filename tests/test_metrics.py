"""Figures of pictures against numbers by hand."""

import itertools
import math

import numpy as np
import pytest

from galip_keras.metrics import clip_score, cmmd, diversity

# The kernel, of bandwidth 10, of two unit vectors at a right angle.
RIGHT_ANGLE = math.exp(-2 / 200)


@pytest.fixture
def sets():
    return np.random.default_rng(0).standard_normal((2, 9, 5))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([[1, 0]], [[0, 1]], 2000 * (1 - RIGHT_ANGLE)),
        ([[1, 0], [0, 1]], [[1, 0]], 500 * (1 - RIGHT_ANGLE)),
        ([[1, 0]], [[-1, 0]], 2000 * (1 - math.exp(-4 / 200))),
    ],
)
def test_cmmd_by_hand(x, y, expected):
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-9)


def test_cmmd_of_equal_sets_is_zero_in_any_order(sets):
    x, y = sets
    assert cmmd(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert cmmd(x, y) > 0.1


def test_cmmd_is_symmetric_for_sets_of_different_size(sets):
    x, y = sets
    assert cmmd(x[:4], y) == pytest.approx(cmmd(y, x[:4]), rel=1e-9)


def test_cmmd_grows_with_a_shift(sets):
    x, _ = sets
    values = [cmmd(x, x + [shift, 0, 0, 0, 0]) for shift in (0, 0.5, 1, 2, 4)]
    assert all(a < b for a, b in itertools.pairwise(values))


def test_cmmd_takes_directions_only(sets):
    x, y = sets
    scales = np.arange(1, 10)[:, None]
    assert cmmd(7 * x, scales * y) == pytest.approx(cmmd(x, y), rel=1e-9)


def test_cmmd_of_what_is_not_a_number_is_none(sets):
    x, y = sets
    x[0, 0] = math.nan
    assert math.isnan(cmmd(x, y))


def test_clip_score_is_the_mean_cosine():
    images = [[1.0, 0.0], [3.0, 3.0], [0.0, 2.0]]
    text = [[-5.0, 0.0], [2.0, 0.0], [0.0, 0.1]]
    assert clip_score(images, text) == pytest.approx((-1 + 0.5**0.5 + 1) / 3)


def test_diversity_by_brute_force():
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype="uint8")
    distances = [
        np.sqrt(np.mean((images[i].astype(float) - images[j]) ** 2))
        for i in range(5)
        for j in range(i)
    ]
    assert diversity(images) == pytest.approx(np.mean(distances), rel=1e-9)


def test_diversity_of_black_and_white_and_of_equal_pictures():
    black = np.zeros((2, 2, 3), "uint8")
    white = np.full_like(black, 255)
    assert diversity(np.stack([black, white])) == pytest.approx(255)
    assert diversity(np.stack([white, white, black])) == pytest.approx(170)
    assert diversity(np.stack([white] * 3)) == 0
