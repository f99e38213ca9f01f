"""How far pictures are from others, from their captions and from each other.

All take arrays of features, a row a picture, and compute in float64.
"""

import numpy as np

_SIGMA = 10.0
_SCALE = 1000.0

# Rows of a matrix of pairs that are in memory at a time.
_ROWS = 1000

# Covariances of few pictures have eigenvalues that are 0 but for rounding.
_ROUNDING = 1e-10


def frechet_distance(mean, covariance, other_mean, other_covariance):
    """The Frechet distance of two Gaussians: on Inception's features, the FID.

    Args:
        mean: array `(dim,)`.
        covariance: array `(dim, dim)`.
        other_mean: array `(dim,)`.
        other_covariance: array `(dim, dim)`.

    Returns:
        A float of at least 0: `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.

    Raises:
        ValueError: where the dimensions differ or something is not a finite number.

    Reference:
        [GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
        Equilibrium](https://arxiv.org/abs/1706.08500)
    """
    gaussians = (mean, covariance, other_mean, other_covariance)
    mean, covariance, other_mean, other_covariance = (
        np.asarray(x, "float64") for x in gaussians
    )
    if mean.shape != other_mean.shape or covariance.shape != other_covariance.shape:
        raise ValueError(
            f"features of {len(mean)} dimensions cannot be compared with those of "
            f"{len(other_mean)}"
        )
    if not all(np.isfinite(x).all() for x in gaussians):
        raise ValueError("the features of some pictures are no finite numbers")
    # The trace of (C1 C2)^(1/2) is that of (R C2 R)^(1/2), where R is the root of C1.
    # That matrix is symmetric: its eigenvalues are real and exact to rounding, also
    # where there are fewer pictures than dimensions.
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(_not_negative(values))) @ vectors.T
    values = np.linalg.eigvalsh(root @ other_covariance @ root)
    trace = np.trace(covariance) + np.trace(other_covariance)
    shift = np.sum((mean - other_mean) ** 2)
    return float(max(shift + trace - 2 * np.sqrt(_not_negative(values)).sum(), 0.0))


def _not_negative(eigenvalues):
    return np.where(eigenvalues > _ROUNDING * eigenvalues.max(), eigenvalues, 0.0)


def kernel_distance(features, others):
    """The squared maximum mean discrepancy under a cubic kernel, unbiased: the KID.

    Args:
        features: array `(n, dim)`, n at least 2.
        others: array `(m, dim)`, m at least 2.

    Returns:
        A float; below 0 by chance where the two are alike. The kernel is
        `(x y / dim + 1)^3`, the estimate over all pairs at once, without subsets.

    Reference:
        [Demystifying MMD GANs](https://arxiv.org/abs/1801.01401)
    """
    x, y = _pair(features, others)

    def kernel(a, b):
        return (a @ b.T / x.shape[1] + 1.0) ** 3

    return (
        _among(kernel, x)
        + _among(kernel, y)
        - 2 * _sum(kernel, x, y) / (len(x) * len(y))
    )


def _among(kernel, x):
    """The mean of the kernel over pairs of different rows."""
    own = sum(kernel(row, row).item() for row in x[:, None])
    return (_sum(kernel, x, x) - own) / (len(x) * (len(x) - 1))


def cmmd(embeddings, others):
    """CLIP maximum mean discrepancy of two sets of pictures; 0 for equal sets.

    Args:
        embeddings: array `(n, embedding_dim)`. CLIP embeddings of pictures.
        others: array `(m, embedding_dim)`.

    Returns:
        A float of at least 0, a thousand times the discrepancy under a Gaussian kernel
        of bandwidth 10 on normalised embeddings, biased as in the paper.

    Reference:
        [Rethinking FID: Towards a Better Evaluation Metric for Image Generation](
        https://arxiv.org/abs/2401.09603)
    """
    x, y = _normalized(embeddings), _normalized(others)

    def mean(a, b):
        return _sum(_gaussian, a, b) / (len(a) * len(b))

    return float(max(_SCALE * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), 0.0))


def precision_recall(features, others, neighbours=3):
    """Which part of the pictures is among the real ones, and the other way round.

    A picture is among others where it is no farther from one of them than that one's
    k-th nearest of its own kind.

    Args:
        features: array `(n, dim)`, of generated pictures.
        others: array `(m, dim)`, of real ones.
        neighbours: int. k, less than n and m.

    Returns:
        A tuple of floats in [0, 1]: precision, the part of the generated pictures that
        are among the real ones, and recall, that of the real ones among the generated.

    Reference:
        [Improved Precision and Recall Metric for Assessing Generative Models](
        https://arxiv.org/abs/1904.06991)
    """
    x, y = _pair(features, others, least=neighbours + 1)
    return _share_among(x, y, neighbours), _share_among(y, x, neighbours)


def _share_among(x, y, neighbours):
    # A row is its own nearest.
    radii = np.concatenate(
        [
            np.partition(_squared_distances(rows, y), neighbours, axis=1)[:, neighbours]
            for rows in _parts(y)
        ]
    )
    inside = [(_squared_distances(rows, y) <= radii).any(axis=1) for rows in _parts(x)]
    return float(np.concatenate(inside).mean())


def clip_score(image_embeddings, text_embeddings):
    """Mean cosine of the CLIP embeddings of pictures and of their captions.

    Args:
        image_embeddings: array `(n, embedding_dim)`.
        text_embeddings: array `(n, embedding_dim)`.
    """
    products = _normalized(image_embeddings) * _normalized(text_embeddings)
    return float(products.sum(axis=1).mean())


def r_precision(image_embeddings, text_embeddings, group=100):
    """How often a picture finds its caption among those of its group.

    Args:
        image_embeddings: array `(n, embedding_dim)`.
        text_embeddings: array `(n, embedding_dim)`.
        group: int. Captions among which one is to be found. Pictures are taken in
            order; those after the last whole group are left out.

    Returns:
        A float in [0, 1]. Where captions are equal, any of them will do.

    Raises:
        ValueError: for fewer pictures than a group.
    """
    if len(image_embeddings) < group:
        raise ValueError(
            f"R-precision among {group} captions needs as many pictures, not "
            f"{len(image_embeddings)}"
        )
    x, y = _normalized(image_embeddings), _normalized(text_embeddings)
    hits = []
    for i in range(0, len(x) // group * group, group):
        cosines = x[i : i + group] @ y[i : i + group].T
        hits.append(np.diag(cosines) >= cosines.max(axis=1) - _ROUNDING)
    return float(np.mean(hits))


def diversity(images):
    """Mean distance of any two pictures, the root of their mean squared difference.

    Args:
        images: uint8 array `(n, height, width, 3)`, n at least 2.

    Returns:
        A float from 0 to 255.
    """
    x = np.reshape(images, (len(images), -1)).astype("float64")
    upper = np.triu_indices(len(x), 1)
    return float(np.sqrt(_squared_distances(x, x)[upper] / x.shape[1]).mean())


def _pair(features, others, least=2):
    x, y = np.asarray(features, "float64"), np.asarray(others, "float64")
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"features of {x.shape[1]} dimensions cannot be compared with those of "
            f"{y.shape[1]}"
        )
    if min(len(x), len(y)) < least:
        raise ValueError(
            f"this takes at least {least} pictures a side, not {min(len(x), len(y))}"
        )
    return x, y


def _normalized(embeddings):
    embeddings = np.asarray(embeddings, "float64")
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _gaussian(x, y):
    return np.exp(-_squared_distances(x, y) / (2 * _SIGMA**2))


def _squared_distances(x, y):
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None]
    return np.maximum(squares - 2 * x @ y.T, 0.0)


def _sum(kernel, x, y):
    """The sum of a kernel over all pairs."""
    return sum(kernel(rows, y).sum() for rows in _parts(x))


def _parts(x):
    return (x[i : i + _ROWS] for i in range(0, len(x), _ROWS))
