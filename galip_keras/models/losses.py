"""The losses of GALIP, as pure functions from float32 tensors to a scalar.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), section 3.4.
"""

from collections.abc import Sequence

from keras import ops

from galip_keras.backend import Tensor

# The names of the terms, in the order of the reports.
TERMS = (
    "d_real",
    "d_mismatch",
    "d_fake",
    "gradient_penalty",
    "g_adversarial",
    "similarity",
    "out_of_range",
)
# Reported after the others, and only if it has a weight.
ENERGY = "energy_score"


def hinge_real(logits: Tensor) -> Tensor:
    """Hinge loss of logits `(batch_size, 1)` that should be above 1."""
    return ops.mean(ops.relu(1.0 - logits))


def hinge_fake(logits: Tensor) -> Tensor:
    """Hinge loss of logits `(batch_size, 1)` that should be below -1."""
    return ops.mean(ops.relu(1.0 + logits))


def matching_aware_penalty(gradients: Sequence[Tensor], weight: float = 2.0) -> Tensor:
    """Matching-aware gradient penalty (MA-GP): the sixth power of the gradient's norm.

    Args:
        gradients: list of tensors `(batch_size, ...)`. The gradients of the logits of
            real, matching pairs with respect to each input of the discriminator.
        weight: float. Factor of the penalty.

    Returns:
        A scalar, the mean over the batch. One L2 norm per example is taken over all its
        inputs together.
    """
    gradients = [ops.cast(g, "float32") for g in gradients]
    squared_norm = sum(
        ops.sum(ops.square(g), axis=tuple(range(1, len(g.shape)))) for g in gradients
    )
    # The sixth power of the norm without its square root, whose gradient is infinite at
    # 0.
    return weight * ops.mean(squared_norm**3)


def clip_similarity(image_embeddings: Tensor, text_embeddings: Tensor) -> Tensor:
    """Mean cosine similarity of two batches `(batch_size, embedding_dim)`."""
    products = _normalize(image_embeddings) * _normalize(text_embeddings)
    return ops.mean(ops.sum(products, axis=-1))


def pair_up(x: Tensor) -> Tensor:
    """Rows `(batch_size, ...)` of which each second one repeats the one before it."""
    return ops.take(x, ops.arange(ops.shape(x)[0]) // 2 * 2, axis=0)


def energy_score(fake_embeddings: Tensor, real_embeddings: Tensor) -> Tensor:
    """Energy score of two images of a caption, given the real one.

    The mean distance of both to the real image, less half of the distance of each
    other. Its expectation is least if, and only if, the embeddings of a caption's
    generated images are distributed as those of its real ones, although there is but
    one of these. Two equal images fare worse than two that differ in what the caption
    leaves open.

    Args:
        fake_embeddings: tensor `(batch_size, embedding_dim)`, of generated images, in
            pairs of a caption as `pair_up` arranges them.
        real_embeddings: tensor `(batch_size, embedding_dim)`, of real images. Only the
            first one of each pair counts.

    Returns:
        A scalar, the mean over the pairs. Distances are those of normalized embeddings.

    Reference:
        [DISCO Nets: DISsimilarity COefficient Networks](
        https://arxiv.org/abs/1606.02556)
    """
    even = ops.shape(fake_embeddings)[0] // 2 * 2
    x = _normalize(fake_embeddings[:even:2])
    y = _normalize(fake_embeddings[1::2])
    real = _normalize(real_embeddings[:even:2])
    return ops.mean(_distance(x, real) + _distance(y, real) - _distance(x, y)) / 2


def _normalize(x):
    return ops.normalize(x, axis=-1, epsilon=1e-8)


def _distance(x, y):
    # The gradient of the root is infinite at 0.
    return ops.sqrt(ops.sum(ops.square(x - y), axis=-1) + 1e-6)


def range_penalty(images: Tensor) -> Tensor:
    """Mean squared distance of pixels to [-1, 1], for images of any shape."""
    return ops.mean(ops.square(ops.relu(ops.abs(images) - 1.0)))


def global_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all gradients together, a float32 scalar."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
    return ops.sqrt(sum(squares))
