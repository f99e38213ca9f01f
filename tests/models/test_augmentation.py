"""Augmentations against arrays changed by hand; gradients of linear maps."""

import numpy as np
import pytest
from keras import ops

from galip_keras import backend
from galip_keras.models import augmentation
from galip_keras.models.augmentation import KINDS, NUM_RANDOM

pytestmark = pytest.mark.every_backend

HEIGHT, WIDTH = 16, 32
# The largest shifts of images of this size, down or up, and right or left.
MOST = {"down": HEIGHT // 8, "right": WIDTH // 8}
COLUMNS = dict(
    zip(
        ("brightness", "saturation", "contrast", "down", "right", "row", "column"),
        range(7),
    )
)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    # No pixel is grey, the colour of uncovered places.
    return rng.uniform(0.1, 1, (3, HEIGHT, WIDTH, 3)).astype("float32")


def numbers(size=3, **kwargs):
    """One half everywhere except for the named numbers."""
    table = np.full((size, NUM_RANDOM), 0.5, "float32")
    for name, value in kwargs.items():
        table[:, COLUMNS[name]] = value
    return table


def augment(images, numbers, *kinds):
    images, numbers = ops.convert_to_tensor(images), ops.convert_to_tensor(numbers)
    return ops.convert_to_numpy(augmentation.augment(images, numbers, kinds))


def number_of(name, shift):
    """A number that shifts images by so many pixels."""
    return (MOST[name] - shift + 0.5) / (2 * MOST[name] + 1)


def moved(image, down, right):
    """Shift an image, one pixel at a time."""
    result = np.zeros_like(image)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if 0 <= y - down < HEIGHT and 0 <= x - right < WIDTH:
                result[y, x] = image[y - down, x - right]
    return result


def test_no_kind_changes_nothing(images):
    random = np.random.default_rng(1).uniform(0, 1, (3, NUM_RANDOM)).astype("float32")
    np.testing.assert_array_equal(augment(images, random), images)


@pytest.mark.parametrize("kind", ["color", "translation"])
def test_halves_change_neither_colours_nor_place(images, kind):
    np.testing.assert_allclose(augment(images, numbers(), kind), images, atol=1e-6)


@pytest.mark.parametrize(("number", "change"), [(0.0, -0.5), (0.75, 0.25), (1.0, 0.5)])
def test_brightness_is_added(images, number, change):
    result = augment(images, numbers(brightness=number), "color")
    np.testing.assert_allclose(result, images + change, atol=1e-6)


@pytest.mark.parametrize(("number", "factor"), [(0.0, 0.0), (0.75, 1.5), (1.0, 2.0)])
def test_saturation_is_the_distance_from_a_pixels_grey(images, number, factor):
    result = augment(images, numbers(saturation=number), "color")
    grey = images.mean(axis=3, keepdims=True)
    np.testing.assert_allclose(result, grey + factor * (images - grey), atol=1e-5)


@pytest.mark.parametrize(("number", "factor"), [(0.0, 0.5), (0.75, 1.25), (1.0, 1.5)])
def test_contrast_is_the_distance_from_an_images_mean(images, number, factor):
    result = augment(images, numbers(contrast=number), "color")
    for after, before in zip(result, images):
        mean = before.mean()
        np.testing.assert_allclose(after, mean + factor * (before - mean), atol=1e-5)


@pytest.mark.parametrize("right", [-4, 0, 3, 4])
@pytest.mark.parametrize("down", [-2, -1, 0, 2])
def test_translation_moves_by_whole_pixels_and_fills_with_grey(images, down, right):
    places = numbers(down=number_of("down", down), right=number_of("right", right))
    result = augment(images, places, "translation")
    expected = np.stack([moved(image, down, right) for image in images])
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("number", "end"), [(0.0, 1), (1 - 2.0**-24, -1)])
def test_translation_at_the_ends_of_the_numbers(images, number, end):
    result = augment(images, numbers(down=number, right=number), "translation")
    shifts = end * MOST["down"], end * MOST["right"]
    np.testing.assert_array_equal(result[0], moved(images[0], *shifts))


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [
        # Whole squares of half the size.
        (7.5 / HEIGHT, 15.5 / WIDTH, (4, 12), (8, 24)),
        (4.5 / HEIGHT, 20.5 / WIDTH, (1, 9), (13, 29)),
        # Squares that reach beyond the image.
        (0.0, 0.0, (0, 4), (0, 8)),
        (0.0, 15.5 / WIDTH, (0, 4), (8, 24)),
        (1 - 2.0**-24, 1 - 2.0**-24, (12, 16), (24, 32)),
    ],
)
def test_cutout_is_a_grey_square(images, row, column, rows, columns):
    expected = images.copy()
    expected[:, slice(*rows), slice(*columns)] = 0
    result = augment(images, numbers(row=row, column=column), "cutout")
    np.testing.assert_array_equal(result, expected)


def test_every_image_has_its_own_numbers(images):
    random = np.random.default_rng(1).uniform(0, 1, (3, NUM_RANDOM)).astype("float32")
    together = augment(images, random, *KINDS)
    for i in range(3):
        alone = augment(images[i : i + 1], random[i : i + 1], *KINDS)[0]
        np.testing.assert_allclose(together[i], alone, atol=1e-6)
        others = augment(images, np.roll(random, 1, axis=0), *KINDS)[i]
        assert np.abs(together[i] - others).max() > 0.1


def gradient(images, numbers, weights, *kinds):
    """The gradient of a weighted sum of augmented images."""
    numbers, weights = ops.convert_to_tensor(numbers), ops.convert_to_tensor(weights)

    def weighted(images):
        return ops.sum(weights * augmentation.augment(images, numbers, kinds)), None

    _, (result,) = backend.value_and_input_gradient(
        weighted, ops.convert_to_tensor(images)
    )
    return ops.convert_to_numpy(result)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS])
def test_gradients_are_those_of_a_linear_map(images, kinds):
    rng = np.random.default_rng(2)
    random = rng.uniform(0, 1, (3, NUM_RANDOM)).astype("float32")
    weights, change = rng.standard_normal((2, *images.shape)).astype("float32")
    result = gradient(images, random, weights, *kinds)
    # For linear maps, finite differences are exact for large steps too.
    difference = augment(images + change, random, *kinds)
    difference -= augment(images, random, *kinds)
    for i in range(3):
        expected = np.sum(weights[i] * difference[i])
        scale = float(np.linalg.norm(weights[i]) * np.linalg.norm(difference[i]))
        assert np.sum(result[i] * change[i]) == pytest.approx(
            expected, abs=1e-5 * scale
        )


def test_gradients_shift_back_and_stop_at_cut_out_squares(images):
    weights = np.random.default_rng(3).standard_normal(images.shape).astype("float32")
    places = numbers(down=number_of("down", 2), right=number_of("right", -3))
    back = np.stack([moved(weight, -2, 3) for weight in weights])
    result = gradient(images, places, weights, "translation")
    np.testing.assert_array_equal(result, back)

    places = numbers(row=7.5 / HEIGHT, column=15.5 / WIDTH)
    weights[:, 4:12, 8:24], kept = 0, weights.copy()
    np.testing.assert_array_equal(gradient(images, places, kept, "cutout"), weights)
