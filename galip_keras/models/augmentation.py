"""Differentiable augmentation of the discriminator's images, for small datasets.

Reference: [Differentiable Augmentation for Data-Efficient GAN Training](
https://arxiv.org/abs/2006.10738).
"""

from collections.abc import Callable, Sequence

from keras import ops

from galip_keras.backend import Tensor

KINDS = ("color", "translation", "cutout")

# Uniform random numbers per image, whatever kinds are in use.
NUM_RANDOM = 7


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds as a tuple, or raise a `ValueError` if one is unknown."""
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise ValueError(
            f"`augmentation` must be from {', '.join(KINDS)}. "
            f"Received: {', '.join(unknown)}"
        )
    return tuple(kinds)


def augmenters(
    numbers: Tensor, kinds: Sequence[str]
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Build the functions that change real images and generated images.

    Args:
        numbers: tensor `(batch_size, 2, NUM_RANDOM)`, uniform in [0, 1), for each real
            and each generated image.
        kinds: sequence of strings from `KINDS`.

    Returns:
        A tuple of the function for real images and the one for generated images.
    """

    def augmenter(i):
        return lambda images: augment(images, numbers[:, i], kinds)

    return augmenter(0), augmenter(1)


def augment(images: Tensor, numbers: Tensor, kinds: Sequence[str] = KINDS) -> Tensor:
    """Change colours, translate images and cut squares out of them.

    Gradients pass through. Uncovered and cut out places are grey, the middle of the
    range.

    Args:
        images: tensor `(batch_size, height, width, 3)` in [-1, 1].
        numbers: tensor `(batch_size, NUM_RANDOM)`, uniform in [0, 1).
        kinds: sequence of strings from `KINDS`. `"color"`: brightness by up to 0.5,
            saturation by up to 2, contrast by 0.5 to 1.5; `"translation"`: by up to an
            eighth of the size; `"cutout"`: a square of half the size.

    Returns:
        A tensor of the shape of `images`.
    """
    brightness, saturation, contrast, *places = ops.unstack(numbers, axis=1)
    if "color" in kinds:
        images = _color(images, brightness, saturation, contrast)
    if "translation" in kinds:
        images = _translate(_translate(images, places[0], 1), places[1], 2)
    if "cutout" in kinds:
        images = _cut_out(images, places[2], places[3])
    return images


def _color(images, brightness, saturation, contrast):
    brightness, saturation, contrast = (
        x[:, None, None, None] for x in (brightness, saturation, contrast)
    )
    images = images + (brightness - 0.5)
    grey = ops.mean(images, axis=-1, keepdims=True)
    images = grey + (images - grey) * (2.0 * saturation)
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return mean + (images - mean) * (contrast + 0.5)


def _translate(images, number, axis):
    size = images.shape[axis]
    most = size // 8
    padding = [(0, 0)] * 4
    padding[axis] = (most, most)
    start = ops.cast(ops.floor(number * (2 * most + 1)), "int32")
    indices = start[:, None] + ops.arange(size, dtype="int32")[None]
    shape = [-1, 1, 1, 1]
    shape[axis] = size
    indices = ops.reshape(indices, shape)
    return ops.take_along_axis(ops.pad(images, padding), indices, axis=axis)


def _cut_out(images, row, column):
    def inside(place, size):
        distance = ops.arange(size, dtype="float32")[None] - place[:, None] * size
        return ops.cast(ops.abs(distance) < size / 4, images.dtype)

    rows, columns = inside(row, images.shape[1]), inside(column, images.shape[2])
    return images * (1 - rows[:, :, None, None] * columns[:, None, :, None])
