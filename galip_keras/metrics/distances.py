"""How far pictures are from others, from their captions and from each other."""

import numpy as np

_SIGMA = 10.0
_SCALE = 1000.0


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
    value = _kernel(x, x).mean() + _kernel(y, y).mean() - 2 * _kernel(x, y).mean()
    return float(max(_SCALE * value, 0.0))


def clip_score(image_embeddings, text_embeddings):
    """Mean cosine of the CLIP embeddings of pictures and of their captions.

    Args:
        image_embeddings: array `(n, embedding_dim)`.
        text_embeddings: array `(n, embedding_dim)`.
    """
    products = _normalized(image_embeddings) * _normalized(text_embeddings)
    return float(products.sum(axis=1).mean())


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


def _normalized(embeddings):
    embeddings = np.asarray(embeddings, "float64")
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _kernel(x, y):
    return np.exp(-_squared_distances(x, y) / (2 * _SIGMA**2))


def _squared_distances(x, y):
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None]
    return np.maximum(squares - 2 * x @ y.T, 0.0)
