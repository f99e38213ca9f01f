"""Images that tests draw themselves."""

import io

import numpy as np
from PIL import Image, ImageDraw

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")


def draw_circles(folder):
    """Write an image and a caption of a circle for every colour."""
    folder.mkdir()
    for color in COLORS:
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=color)
        image.save(folder / f"{color}.png")
        (folder / f"{color}.txt").write_text(f"a {color} circle\n")
    return folder


def noise(size, seed=0):
    """An RGB image of random pixels, of a size `(width, height)`."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, "uint8"))


def encoded(image, file_format="JPEG"):
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, file_format, quality=95)
    return file.getvalue()


def decoded(file):
    """The pixels of an image, from the bytes of its file."""
    return np.asarray(Image.open(io.BytesIO(file)))
