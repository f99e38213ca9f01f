"""Read image files, and lay images out in a grid."""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp")
_BY_PACKAGES = (".heic", ".heif", ".hif", ".jxl")
SUFFIXES = frozenset(
    (".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff")
    + _JPEG
    + _BY_PACKAGES
)

# Pillow would open more than these; its PostScript reader starts another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF")


class _Package(NamedTuple):
    """A package that teaches Pillow a format when it is imported."""

    signature: re.Pattern[bytes]
    title: str
    format: str
    module: str
    name: str


_PACKAGES = (
    _Package(
        re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
        "HEIC",
        "HEIF",
        "pillow_heif.HeifImagePlugin",
        "pillow-heif",
    ),
    _Package(
        re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
        "JPEG XL",
        "JXL",
        "pillow_jxl",
        "pillow-jxl-plugin",
    ),
)

# A path, or the bytes of a file.
Source = str | os.PathLike[str] | bytes


class ImageError(ValueError):
    """An image that cannot be used. The message is the reason, without a file name."""


@contextlib.contextmanager
def open_image(source: Source) -> Iterator[Image.Image]:
    """Open an image file without decoding it yet.

    Args:
        source: path or bytes of a PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF file. HEIC
            and JPEG XL need the packages pillow-heif and pillow-jxl-plugin.

    Yields:
        A `PIL.Image.Image`, the first frame of an animation.

    Raises:
        ImageError: If the file is not such an image, is damaged or has too many pixels.
            Errors while it is open count too.
    """
    try:
        with _open(source) as image:
            # Pillow itself only warns until twice its limit.
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise ImageError("too many pixels")
            yield image
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too many pixels") from error
    except Exception as error:
        # Damaged bytes make Pillow raise nearly anything: OSError, SyntaxError,
        # struct.error, EOFError, ValueError, ...
        raise ImageError("cannot be read") from error


def _open(source: Source) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        package = _package(source)
        if package is None:
            raise
    try:
        importlib.import_module(package.module)
    except ImportError as error:
        raise ImageError(
            f"{package.title} needs {package.name} (pip install {package.name})"
        ) from error
    return Image.open(file, formats=[package.format])


def _package(source: Source) -> _Package | None:
    if isinstance(source, bytes):
        head = source[:16]
    else:
        with open(source, "rb") as file:
            head = file.read(16)
    return next((x for x in _PACKAGES if x.signature.match(head)), None)


def read_image(source: Source, upright: bool = True) -> Image.Image:
    """Read an image file as RGB.

    Transparent images are laid on white. 16-bit grey is scaled to 8 bits. Of an
    animation the first frame is read.

    Args:
        source: path or bytes of a PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF file. HEIC
            and JPEG XL need the packages pillow-heif and pillow-jxl-plugin.
        upright: bool. Whether to rotate the image as its EXIF data says.

    Returns:
        An RGB `PIL.Image.Image`.

    Raises:
        ImageError: If the file cannot be read as an image.
    """
    with open_image(source) as image:
        if upright:
            ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


def read_as_pytorch_fid(source: Source) -> Image.Image:
    """Read an image file as RGB in the way of pytorch-fid and clean-fid.

    Pillow alone converts it: transparency is dropped, 16-bit grey is clipped, and the
    rotation in EXIF data is ignored.

    Args:
        source: path or bytes. As for `read_image`.

    Returns:
        An RGB `PIL.Image.Image`.

    Raises:
        ImageError: If the file cannot be read as an image.
    """
    with open_image(source) as image:
        return image.convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("floating point pixels")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it.
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")


def image_grid(images: np.ndarray, columns: int) -> Image.Image:
    """Lay images out in rows.

    Args:
        images: uint8 array `(num_rows * columns, height, width, 3)`.
        columns: int. Images per row.

    Returns:
        A `PIL.Image.Image`.
    """
    rows = np.split(images, len(images) // columns)
    return Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows]))
