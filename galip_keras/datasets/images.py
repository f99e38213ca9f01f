"""One picture file of any common kind to the JPEG that is stored and trained on."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageOps

# Training at 256 pixels resizes to 256 * 76 / 64 and crops.
SHORTER_SIDE = 304

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
)

# Pillow would open more than this; its PostScript reader starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MIN_SIDE = 16
_MAX_ASPECT = 8


class ImageError(ValueError):
    """A picture that cannot be used. The message is the reason, without its name."""


# A path, or the bytes of a file.
Source = str | os.PathLike[str] | bytes

# In pixels: x, y, width and height.
Box = tuple[float, float, float, float]


def to_jpeg(source: Source, box: Box | None = None) -> bytes:
    """Reads a picture and encodes it as an RGB JPEG of quality 95.

    The picture is turned as its EXIF data says (with a box it is not), laid on white
    where it is transparent and resized, up or down, to a shorter side of 304 pixels as
    torchvision's `Resize` does it (Pillow, bilinear). Of an animation the first frame
    is taken.

    Args:
        source: path or bytes of a PNG, JPEG, WebP, GIF, BMP or TIFF file.
        box: tuple `(x, y, width, height)` in pixels, of what the picture shows. It is
            first cropped to the square around the box's centre whose side is 1.5 times
            the longer of width and height, as far as the picture reaches.

    Returns:
        The bytes of a JPEG file.

    Raises:
        ImageError: where the file is no such picture or not one to train on.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_FORMATS) as image:
            _check_size(*image.size)
            if box is None:
                # A box is of the pixels as they are stored.
                ImageOps.exif_transpose(image, in_place=True)
            rgb = _to_rgb(image)
            return encode(_resize(rgb if box is None else _crop(rgb, box)))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too many pixels") from error
    except Exception as error:
        # Damaged bytes make Pillow raise nearly anything: OSError, SyntaxError,
        # struct.error, EOFError, ValueError, ...
        raise ImageError("cannot be read") from error


def _crop(image: Image.Image, box: Box) -> Image.Image:
    x, y, width, height = box
    reach = int(0.75 * max(width, height))
    center_x, center_y = int((2 * x + width) / 2), int((2 * y + height) / 2)
    cropped = image.crop(
        (
            max(0, center_x - reach),
            max(0, center_y - reach),
            min(image.width, center_x + reach),
            min(image.height, center_y + reach),
        )
    )
    _check_size(*cropped.size)
    return cropped


def _check_size(width: int, height: int) -> None:
    shorter, longer = sorted((width, height))
    if shorter < _MIN_SIDE:
        raise ImageError(f"shorter side under {_MIN_SIDE} pixels")
    if longer > _MAX_ASPECT * shorter:
        raise ImageError(f"longer than {_MAX_ASPECT}:1")
    # Pillow itself only warns until twice its limit.
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ImageError("too many pixels")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("floating point pixels")
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255 instead of scaling.
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def _resize(image: Image.Image) -> Image.Image:
    shorter = min(image.size)
    # Rounding down is torchvision's way.
    width, height = (SHORTER_SIDE * side // shorter for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image) -> bytes:
    """Encodes an RGB image as a JPEG of quality 95."""
    file = io.BytesIO()
    # Full colour resolution: a quarter more bytes for 5 dB less error.
    image.save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()
