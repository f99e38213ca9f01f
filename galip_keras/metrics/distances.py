"""Distances between sets of images, to their captions, and between images of a set.

All functions take arrays of features, one row per image, and compute in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

_SIGMA = 10.0
_SCALE = 1000.0

# Rows of a matrix of pairs in memory at a time.
_ROWS = 1000

# Covariances of few images have eigenvalues that would be 0 without rounding.
_ROUNDING = 1e-10

_Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def frechet_distance(
    mean: ArrayLike,
    covariance: ArrayLike,
    other_mean: ArrayLike,
    other_covariance: ArrayLike,
) -> float:
    """The Frechet distance between two Gaussians: on Inception's features, the FID.

    Args:
        mean: array `(dim,)`.
        covariance: array `(dim, dim)`.
        other_mean: array `(dim,)`.
        other_covariance: array `(dim, dim)`.

    Returns:
        A float of at least 0: `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.

    Raises:
        ValueError: If the dimensions differ or a number is not finite.

    Reference:
        [GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium](https://arxiv.org/abs/1706.08500)
    """
    m1, c1, m2, c2 = (
        np.asarray(x, "float64")
        for x in (mean, covariance, other_mean, other_covariance)
    )
    if m1.shape != m2.shape or c1.shape != c2.shape:
        raise ValueError(
            f"features of {len(m1)} dimensions cannot be compared with features of "
            f"{len(m2)}"
        )
    if not all(np.isfinite(x).all() for x in (m1, c1, m2, c2)):
        raise ValueError("the features of some images are not finite numbers")
    # The trace of (C1 C2)^(1/2) equals that of (R C2 R)^(1/2), where R is the root of
    # C1. This matrix is symmetric: its eigenvalues are real and exact to rounding, even
    # with fewer images than dimensions.
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(_not_negative(values))) @ vectors.T
    values = np.linalg.eigvalsh(root @ c2 @ root)
    trace = np.trace(c1) + np.trace(c2)
    shift = np.sum((m1 - m2) ** 2)
    return float(max(shift + trace - 2 * np.sqrt(_not_negative(values)).sum(), 0.0))


def _not_negative(eigenvalues: np.ndarray) -> np.ndarray:
    return np.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0)


def kernel_distance(features: ArrayLike, others: ArrayLike) -> float:
    """The unbiased squared maximum mean discrepancy with a cubic kernel: the KID.

    Args:
        features: array `(n, dim)`, n at least 2.
        others: array `(m, dim)`, m at least 2.

    Returns:
        A float, which may be slightly below 0 if the sets are alike. The kernel is
        `(x y / dim + 1)^3`; the estimate is over all pairs at once, without subsets.

    Reference:
        [Demystifying MMD GANs](https://arxiv.org/abs/1801.01401)
    """
    x, y = _pair(features, others)

    def kernel(a, b):
        return (a @ b.T / x.shape[1] + 1.0) ** 3

    return (
        _mean_within(kernel, x)
        + _mean_within(kernel, y)
        - 2 * _sum(kernel, x, y) / (len(x) * len(y))
    )


def _mean_within(kernel: _Kernel, x: np.ndarray) -> float:
    """The mean of the kernel over pairs of different rows."""
    own = sum(kernel(row, row).item() for row in x[:, None])
    return (_sum(kernel, x, x) - own) / (len(x) * (len(x) - 1))


def cmmd(embeddings: ArrayLike, others: ArrayLike) -> float:
    """CLIP maximum mean discrepancy of two sets of images; 0 for equal sets.

    Args:
        embeddings: array `(n, embedding_dim)`. CLIP embeddings of images.
        others: array `(m, embedding_dim)`.

    Returns:
        A float of at least 0: 1000 times the discrepancy with a Gaussian kernel of
        bandwidth 10 on normalised embeddings, biased as in the paper.

    Reference:
        [Rethinking FID: Towards a Better Evaluation Metric for Image Generation](
        https://arxiv.org/abs/2401.09603)
    """
    x, y = _normalized(embeddings), _normalized(others)

    def mean(a, b):
        return _sum(_gaussian, a, b) / (len(a) * len(b))

    return float(max(_SCALE * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), 0.0))


def precision_recall(
    features: ArrayLike, others: ArrayLike, neighbours: int = 3
) -> tuple[float, float]:
    """Fraction of generated images inside the real manifold, and the reverse.

    The manifold of a set is the union of balls around its images. The radius of each
    ball is the distance to the k-th nearest image of the set.

    Args:
        features: array `(n, dim)`, of generated images.
        others: array `(m, dim)`, of real images.
        neighbours: int. k, less than n and m.

    Returns:
        A tuple of floats in [0, 1]. Precision is the fraction of generated images
        inside the manifold of the real ones, recall the fraction of real images inside
        the manifold of the generated ones.

    Reference:
        [Improved Precision and Recall Metric for Assessing Generative Models](
        https://arxiv.org/abs/1904.06991)
    """
    x, y = _pair(features, others, least=neighbours + 1)
    return _fraction_inside(x, y, neighbours), _fraction_inside(y, x, neighbours)


def _fraction_inside(x: np.ndarray, y: np.ndarray, neighbours: int) -> float:
    # The nearest row of each row is itself.
    radii = np.concatenate(
        [
            np.partition(_squared_distances(rows, y), neighbours, axis=1)[:, neighbours]
            for rows in _parts(y)
        ]
    )
    inside = [(_squared_distances(rows, y) <= radii).any(axis=1) for rows in _parts(x)]
    return float(np.concatenate(inside).mean())


def clip_score(image_embeddings: ArrayLike, text_embeddings: ArrayLike) -> float:
    """Mean cosine between the CLIP embeddings of images and of their captions.

    Args:
        image_embeddings: array `(n, embedding_dim)`.
        text_embeddings: array `(n, embedding_dim)`.
    """
    products = _normalized(image_embeddings) * _normalized(text_embeddings)
    return float(products.sum(axis=1).mean())


def r_precision(
    image_embeddings: ArrayLike, text_embeddings: ArrayLike, group: int = 100
) -> float:
    """Fraction of images whose own caption is the nearest caption of the group.

    Args:
        image_embeddings: array `(n, embedding_dim)`.
        text_embeddings: array `(n, embedding_dim)`.
        group: int. The number of captions to choose from. Groups are taken in order;
            images after the last whole group are left out.

    Returns:
        A float in [0, 1]. If captions are equal, any of them counts.

    Raises:
        ValueError: If there are fewer images than a group needs.
    """
    x, y = _normalized(image_embeddings), _normalized(text_embeddings)
    if len(x) < group:
        raise ValueError(
            f"R-precision among {group} captions needs {group} images, not {len(x)}"
        )
    hits = []
    for i in range(0, len(x) // group * group, group):
        cosines = x[i : i + group] @ y[i : i + group].T
        hits.append(np.diag(cosines) >= cosines.max(axis=1) - _ROUNDING)
    return float(np.mean(hits))


def diversity(images: ArrayLike) -> float:
    """Mean distance between two images: the root of their mean squared difference.

    Args:
        images: uint8 array `(n, height, width, 3)`, n at least 2.

    Returns:
        A float from 0 to 255.
    """
    x = np.asarray(images)
    x = x.reshape(len(x), -1).astype("float64")
    upper = np.triu_indices(len(x), 1)
    return float(np.sqrt(_squared_distances(x, x)[upper] / x.shape[1]).mean())


def _pair(
    features: ArrayLike, others: ArrayLike, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(features, "float64"), np.asarray(others, "float64")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features of {x.shape[1]} dimensions cannot be compared with features of "
            f"{y.shape[1]}"
        )
    if min(len(x), len(y)) < least:
        raise ValueError(
            f"this needs at least {least} images per side, not {min(len(x), len(y))}"
        )
    return x, y


def _normalized(embeddings: ArrayLike) -> np.ndarray:
    embeddings = np.asarray(embeddings, "float64")
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _gaussian(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.exp(-_squared_distances(x, y) / (2 * _SIGMA**2))


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None]
    return np.maximum(squares - 2 * x @ y.T, 0.0)


def _sum(kernel: _Kernel, x: np.ndarray, y: np.ndarray) -> float:
    """The sum of a kernel over all pairs."""
    return sum(kernel(rows, y).sum() for rows in _parts(x))


def _parts(x: np.ndarray) -> Iterator[np.ndarray]:
    return (x[i : i + _ROWS] for i in range(0, len(x), _ROWS))
