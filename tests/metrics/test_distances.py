"""Metrics of images, computed by hand and by established packages."""

import itertools
import math

import fid_tools
import numpy as np
import pytest
import scipy.linalg

from galip_keras.metrics import (
    clip_score,
    cmmd,
    diversity,
    frechet_distance,
    kernel_distance,
    precision_recall,
    r_precision,
)
from galip_keras.metrics.statistics import KEPT, Statistics

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


def test_cmmd_depends_on_directions_only(sets):
    x, y = sets
    scales = np.arange(1, 10)[:, None]
    assert cmmd(7 * x, scales * y) == pytest.approx(cmmd(x, y), rel=1e-9)


def test_cmmd_of_nan_is_nan(sets):
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


def test_diversity_of_black_and_white_and_of_equal_images():
    black = np.zeros((2, 2, 3), "uint8")
    white = np.full_like(black, 255)
    assert diversity(np.stack([black, white])) == pytest.approx(255)
    assert diversity(np.stack([white, white, black])) == pytest.approx(170)
    assert diversity(np.stack([white] * 3)) == 0


def gaussian(features):
    return features.mean(axis=0), np.cov(features.T)


def test_frechet_of_a_shift_and_of_scales():
    mean, covariance = np.zeros(3), np.diag([1.0, 4.0, 9.0])
    shifted = frechet_distance(mean, covariance, mean + [3, 0, 4], covariance)
    assert shifted == pytest.approx(25, rel=1e-9)
    # (2 - 1)^2 times each variance, if diagonal.
    scaled = frechet_distance(mean, covariance, mean, 4 * covariance)
    assert scaled == pytest.approx(1 + 4 + 9, rel=1e-9)
    assert frechet_distance(mean, covariance, mean, covariance) < 1e-9


def test_frechet_without_full_rank():
    mean = np.zeros(4)
    one, other = np.diag([4.0, 9.0, 0, 0]), np.diag([1.0, 0, 16.0, 0])
    expected = 1 + 9 + 16
    assert frechet_distance(mean, one, mean, other) == pytest.approx(expected)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    one, other = (turn @ x @ turn.T for x in (one, other))
    assert frechet_distance(mean, one, mean, other) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [400, 20])
def test_frechet_equals_the_matrix_square_root(count):
    rng = np.random.default_rng(0)
    x, y = (s * rng.standard_normal((count, 50)) ** 2 for s in (1, 1.3))
    (mean, covariance), (other_mean, other) = gaussian(x), gaussian(y)
    # A little on the diagonal: without full rank the general root is inexact.
    ridge = 1e-6 * np.eye(50)
    root = scipy.linalg.sqrtm((covariance + ridge) @ (other + ridge)).real
    expected = np.sum((mean - other_mean) ** 2)
    expected += np.trace(covariance + other + 2 * ridge - 2 * root)
    actual = frechet_distance(mean, covariance + ridge, other_mean, other + ridge)
    assert actual == pytest.approx(expected, rel=1e-6)


@pytest.mark.extra("torch", "torch")
def test_frechet_equals_the_fid_tools():
    import torch

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 24)), 1.2 * rng.standard_normal((200, 24)) + 0.3
    actual = frechet_distance(*gaussian(x), *gaussian(y))
    fidelity = fid_tools.load("torch_fidelity.metric_fid")
    found = [
        fidelity.fid_features_to_statistics(torch.from_numpy(part)) for part in (x, y)
    ]
    expected = fidelity.fid_statistics_to_metric(*found, False)
    assert actual == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    clean = fid_tools.load("cleanfid.fid")
    expected = clean.frechet_distance(*gaussian(x), *gaussian(y))
    assert actual == pytest.approx(expected, rel=1e-6)


def test_frechet_rejects_other_dimensions_and_nan():
    with pytest.raises(ValueError, match=r"2 dimensions cannot be compared with .* 3"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite numbers"):
        frechet_distance(np.zeros(2), np.eye(2), np.full(2, np.nan), np.eye(2))


def test_kernel_distance_by_hand(sets):
    x, y = sets[0], sets[1][:6]

    def kernel(a, b):
        return (np.dot(a, b) / 5 + 1) ** 3

    expected = np.mean([kernel(a, b) for a, b in itertools.permutations(x, 2)])
    expected += np.mean([kernel(a, b) for a, b in itertools.permutations(y, 2)])
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


@pytest.mark.extra("torch", "torch")
def test_kernel_distance_equals_torch_fidelity():
    import torch

    fidelity = fid_tools.load("torch_fidelity.metric_kid")
    x, y = np.random.default_rng(0).standard_normal((2, 80, 16))
    y = y + 0.2
    options = {"kid_subsets": 1, "kid_subset_size": 80, "verbose": False}
    expected = fidelity.kid_features_to_metric(
        *map(torch.from_numpy, (x, y)), **options
    )
    expected = expected["kernel_inception_distance_mean"]
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_distances_in_parts_equal_those_at_once(monkeypatch):
    x, y = np.random.default_rng(0).standard_normal((2, 30, 4))
    functions = (cmmd, kernel_distance, precision_recall)
    expected = [function(x, y) for function in functions]
    monkeypatch.setattr("galip_keras.metrics.distances._ROWS", 7)
    for function, value in zip(functions, expected):
        assert function(x, y) == pytest.approx(value, rel=1e-9)


def test_precision_and_recall_by_brute_force():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 2)), 1.5 * rng.standard_normal((30, 2)) + 0.5

    def fraction_inside(points, others, k=3):
        def is_inside(point):
            for other in others:
                near = sorted(np.linalg.norm(other - o) for o in others)
                if np.linalg.norm(point - other) <= near[k]:
                    return True
            return False

        return np.mean([is_inside(point) for point in points])

    assert 0.2 < fraction_inside(x, y) < 1
    expected = fraction_inside(x, y), fraction_inside(y, x)
    assert precision_recall(x, y) == expected


def test_precision_and_recall_of_distant_and_of_equal_images(sets):
    x, y = sets
    assert precision_recall(x, y + 1000) == (0, 0)
    assert precision_recall(x, x) == (1, 1)
    with pytest.raises(ValueError, match="at least 4 images per side, not 3"):
        precision_recall(x[:3], y)


def test_r_precision_counts_images_nearest_to_their_caption():
    texts = np.eye(6)
    images = np.eye(6)[[0, 1, 3, 2, 4, 5]]
    assert r_precision(images, texts, group=6) == pytest.approx(4 / 6)
    # In groups of two; the fifth image is left out.
    assert r_precision(images[:5], texts[:5], group=2) == pytest.approx(2 / 4)
    with pytest.raises(ValueError, match="needs 100 images, not 6"):
        r_precision(images, texts)


def test_r_precision_accepts_an_equal_caption():
    texts = np.eye(3)[[0, 0, 2]]
    assert r_precision(np.eye(3)[[0, 0, 2]], texts, group=3) == 1


def test_statistics_in_batches(tmp_path):
    rng = np.random.default_rng(0)
    x = 1000 + rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))
    statistics = Statistics(6)
    for part in np.split(x, [1, 20, 21]):
        statistics.update(part)
    assert statistics.count == 50
    np.testing.assert_allclose(statistics.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(x.T), rtol=1e-9)
    np.testing.assert_array_equal(statistics.features, x.astype("float32"))
    statistics.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as file:
        assert sorted(file) == ["count", "mu", "sigma"]
    again = Statistics.load(tmp_path / "s.npz")
    np.testing.assert_allclose(again.covariance, statistics.covariance)
    assert (again.count, len(again.features)) == (50, 0)
    statistics.save(tmp_path / "s.npz", with_features=True)
    np.testing.assert_array_equal(
        Statistics.load(tmp_path / "s.npz").features, statistics.features
    )


def test_statistics_keep_a_limited_number_of_features(monkeypatch):
    monkeypatch.setattr("galip_keras.metrics.statistics.KEPT", 5)
    assert KEPT == 10_000
    statistics = Statistics(2)
    for i in range(4):
        statistics.update(np.full((3, 2), i))
    assert statistics.features[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert statistics.count == 12


def test_statistics_of_the_fid_tools(tmp_path):
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3))
    statistics = Statistics.load(tmp_path / "s.npz")
    assert (statistics.count, statistics.dim) == (0, 3)
    np.testing.assert_array_equal(statistics.covariance, np.eye(3))


@pytest.mark.parametrize(
    "arrays",
    [
        {"mu": np.zeros(3)},
        {"mu": np.zeros(3), "sigma": np.eye(2)},
        {"mu": np.array([{}]), "sigma": np.eye(1)},
    ],
)
def test_files_that_are_not_statistics(tmp_path, arrays):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ValueError, match="holds no statistics"):
        Statistics.load(tmp_path / "s.npz")
    (tmp_path / "t.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no statistics"):
        Statistics.load(tmp_path / "t.npz")


def test_statistics_reject_infinity():
    with pytest.raises(ValueError, match="not finite numbers"):
        Statistics(2).update(np.array([[1.0, np.inf]]))
