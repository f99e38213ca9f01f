"""Turn an image file of any common kind into the JPEG that is stored and trained on."""

from __future__ import annotations

import io

from PIL import Image

from galip_keras.images import ImageError, Source, read_image

# Training at 256 pixels resizes to 256 * 76 / 64 and crops.
SHORTER_SIDE = 304

_MIN_SIDE = 16
_MAX_ASPECT = 8

# In pixels: x, y, width and height.
Box = tuple[float, float, float, float]


def to_jpeg(source: Source, box: Box | None = None) -> bytes:
    """Read an image and encode it as an RGB JPEG of quality 95.

    `galip_keras.images.read_image` reads it. It is then resized, up or down, to a
    shorter side of 304 pixels as torchvision's `Resize` does it (Pillow, bilinear).

    Args:
        source: path or bytes of an image file.
        box: tuple `(x, y, width, height)` in pixels. The bounding box of the object.
            The image is first cropped to the square around the centre of the box
            whose side is 1.5 times the longer side of the box, clipped to the image.

    Returns:
        The bytes of a JPEG file.

    Raises:
        ImageError: If the file cannot be read, or is too small or too long to train on.
    """
    # A box refers to the pixels as they are stored.
    image = read_image(source, upright=box is None)
    _check_size(*image.size)
    return encode(_resize(image if box is None else _crop(image, box)))


def _check_size(width: int, height: int) -> None:
    shorter, longer = sorted((width, height))
    if shorter < _MIN_SIDE:
        raise ImageError(f"shorter side under {_MIN_SIDE} pixels")
    if longer > _MAX_ASPECT * shorter:
        raise ImageError(f"longer than {_MAX_ASPECT}:1")


def _crop(image: Image.Image, box: Box) -> Image.Image:
    x, y, width, height = box
    reach = int(0.75 * max(width, height))
    center_x, center_y = int((2 * x + width) / 2), int((2 * y + height) / 2)
    left, top = max(0, center_x - reach), max(0, center_y - reach)
    right = min(image.width, center_x + reach)
    bottom = min(image.height, center_y + reach)
    _check_size(right - left, bottom - top)
    return image.crop((left, top, right, bottom))


def _resize(image: Image.Image) -> Image.Image:
    shorter = min(image.size)
    # torchvision rounds down.
    width, height = (SHORTER_SIDE * side // shorter for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image) -> bytes:
    """Encode an RGB image as a JPEG of quality 95."""
    file = io.BytesIO()
    # Full colour resolution: a quarter more bytes for 5 dB less error.
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
