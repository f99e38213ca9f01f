"""The losses of GALIP: pure functions of tensors, float32 in, a scalar out.

Reference: [GALIP: Generative Adversarial CLIPs for Text-to-Image Synthesis](
https://arxiv.org/abs/2301.12959), section 3.4.
"""

from keras import ops


def hinge_real(logits):
    """Hinge loss of logits `(batch_size, 1)` that should be above 1."""
    return ops.mean(ops.relu(1.0 - logits))


def hinge_fake(logits):
    """Hinge loss of logits `(batch_size, 1)` that should be below -1."""
    return ops.mean(ops.relu(1.0 + logits))


def matching_aware_penalty(gradients, weight=2.0, power=6):
    """Matching-aware gradient penalty (MA-GP) on CLIP features.

    Args:
        gradients: list of tensors `(batch_size, ...)`. The gradients of the logits of
            real, matching pairs with respect to each input of the discriminator.
        weight: float. Factor of the penalty.
        power: int, even. Power of the L2 norm, taken jointly over all inputs of an
            example.

    Returns:
        A scalar, the mean over the batch.
    """
    gradients = [ops.cast(g, "float32") for g in gradients]
    squared_norm = sum(
        ops.sum(ops.square(g), axis=tuple(range(1, len(g.shape)))) for g in gradients
    )
    # An even power of the norm needs no square root, whose gradient is infinite at 0.
    return weight * ops.mean(squared_norm ** (power // 2))


def clip_similarity(image_embeddings, text_embeddings):
    """Mean cosine of two batches of CLIP embeddings `(batch_size, embedding_dim)`."""
    image_embeddings = ops.normalize(image_embeddings, axis=-1, epsilon=1e-8)
    text_embeddings = ops.normalize(text_embeddings, axis=-1, epsilon=1e-8)
    return ops.mean(ops.sum(image_embeddings * text_embeddings, axis=-1))


def range_penalty(images):
    """Mean squared distance of pixels to [-1, 1], of images of any shape."""
    return ops.mean(ops.square(ops.relu(ops.abs(images) - 1.0)))


def global_norm(gradients):
    """The L2 norm of all gradients together, a float32 scalar."""
    squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in gradients]
    return ops.sqrt(sum(squares))
