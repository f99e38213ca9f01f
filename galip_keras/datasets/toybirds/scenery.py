"""The scene around a bird: sky, branch, water or a plain background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from galip_keras.datasets.toybirds.shapes import (
    NIGHT,
    SNOW,
    Color,
    Point,
    Points,
    Shape,
    curve,
    disc,
    gradient,
    grown,
    ink,
    mixed,
    moved,
    paint,
    path,
    rotated,
    stroke,
)

_WOOD: Color = (120, 94, 78)
_LEAVES: tuple[Color, ...] = ((112, 176, 88), (92, 158, 84), (140, 194, 96))
_PASTELS: tuple[Color, ...] = (
    (250, 222, 218),
    (220, 240, 220),
    (224, 222, 246),
    (250, 236, 206),
    (206, 234, 240),
)
_LEAF = path(
    curve((0, 0), (0.2, 0.35), (0.7, 0.3), (1, 0)),
    curve((1, 0), (0.7, -0.3), (0.2, -0.35), (0, 0)),
)


def _sky(
    image: Image.Image, bird: list[Shape], foot: Point, rng: np.random.Generator
) -> None:
    top = moved((112, 178, 236), rng.integers(-12, 13, 3))
    gradient(image, top, (212, 236, 250))
    shapes: list[Shape] = []
    for index, (x, y, width) in enumerate(rng.random((3, 3)).tolist()):
        shapes += _cloud((x, 0.12 + 0.32 * index + 0.14 * y), 0.10 + 0.08 * width)
    paint(image, shapes + bird)


def _cloud(center: Point, width: float) -> list[Shape]:
    puffs = (
        (-0.9, 0.0, 0.5),
        (0.9, 0.02, 0.46),
        (-0.3, -0.28, 0.62),
        (0.4, -0.2, 0.55),
    )
    discs = [
        disc((center[0] + x * width, center[1] + y * width), r * width)
        for x, y, r in puffs
    ]
    base = disc((center[0], center[1] + 0.14 * width), 1.5 * width, 0.36 * width)
    shade = [Shape(points + (0, 0.06 * width), (168, 200, 230)) for points in discs]
    return [*shade, *(Shape(points, (250, 253, 255)) for points in [*discs, base])]


def _branch(
    image: Image.Image, bird: list[Shape], foot: Point, rng: np.random.Generator
) -> None:
    tint = rng.integers(-10, 11, 3)
    gradient(image, moved((238, 244, 214), tint), moved((200, 226, 190), tint))
    # Sunlit leaves, out of focus.
    shapes = [
        Shape(disc((x, y), grow * (0.07 + 0.09 * radius)), SNOW, 36)
        for x, y, radius in rng.random((7, 3)).tolist()
        for grow in (1.0, 0.85)
    ]
    x, y = foot
    slope, bend = 0.16 * (rng.random(2) - 0.5)
    line = curve((-0.05, y + slope * 0.8), (x, y - bend * 0.2), (1.05, y - slope * 0.8))
    # The branch passes under the foot, however it bends.
    line[:, 1] += y + 0.022 - np.interp(x, *line.T)
    for place in np.array((0.08, 0.2, 0.36, 0.62, 0.78, 0.92)) + 0.06 * rng.random(6):
        down = 1 if rng.random() < 0.6 else -1
        root = (place, float(np.interp(place, *line.T)))
        angle = -down * (35 + 70 * rng.random())
        color = _LEAVES[rng.integers(len(_LEAVES))]
        shapes += _leaf(root, angle, 0.12 + 0.05 * rng.random(), color)
    shapes.append(Shape(stroke(line, 0.062, 0.044), ink(_WOOD)))
    shapes.append(Shape(stroke(line, 0.048, 0.030), _WOOD))
    shapes.append(Shape(stroke(line - (0, 0.010), 0.012, 0.008), SNOW, 60))
    paint(image, shapes + bird)


def _leaf(root: Point, degrees: float, length: float, color: Color) -> list[Shape]:
    angle = np.deg2rad(degrees)
    leaf = rotated(_LEAF * length, angle) + root
    rib = rotated(stroke(curve((0, 0), (0.85, 0)), 0.06, 0.02) * length, angle)
    ink = mixed(color, NIGHT, 0.3)
    return [
        Shape(grown(leaf, 0.005), ink),
        Shape(leaf, color),
        Shape(rib + root, ink),
    ]


def _water(
    image: Image.Image, bird: list[Shape], foot: Point, rng: np.random.Generator
) -> None:
    x, y = foot
    horizon = y - 0.18 - 0.08 * rng.random()
    gradient(image, (255, 240, 218), moved((250, 216, 196), rng.integers(-8, 9, 3)))
    hills = disc((rng.random(), horizon + 0.02), 0.45, 0.11 + 0.05 * rng.random())
    paint(image, [Shape(hills, (176, 192, 190))])
    gradient(image, (158, 210, 218), (52, 132, 164), horizon)
    paint(image, bird)
    _reflect(image, y)
    shapes = [
        Shape(_ripple((x, y + 0.012), width, 0.03), (226, 244, 248), 150)
        for width in (0.34, 0.22)
    ]
    for wave in rng.random((9, 3)).tolist():
        center = (wave[0], horizon + 0.04 + (0.98 - horizon) * wave[1])
        shapes.append(Shape(_ripple(center, 0.06 + 0.08 * wave[2], 0.018), SNOW, 90))
    paint(image, shapes)


def _ripple(center: Point, width: float, height: float) -> Points:
    x, y = center
    return path(
        curve((x - width, y), (x, y + height), (x + width, y)),
        curve((x + width, y), (x, y + 0.3 * height), (x - width, y)),
    )


def _reflect(image: Image.Image, waterline: float) -> None:
    """Cover the part under water with a mirror image of the part above."""
    row = round(waterline * image.height)
    # Birds swim in the lower half, so the part above is large enough.
    above = image.crop((0, 2 * row - image.height, image.width, row))
    mirrored = above.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    water = Image.new("RGB", mirrored.size)
    gradient(water, (104, 176, 194), (52, 132, 164))
    image.paste(Image.blend(water, mirrored, 0.24), (0, row))


def _plain(
    image: Image.Image, bird: list[Shape], foot: Point, rng: np.random.Generator
) -> None:
    color = _PASTELS[rng.integers(len(_PASTELS))]
    color = moved(color, rng.integers(-6, 7, 3))
    gradient(image, mixed(color, SNOW, 0.5), color)
    x, y = foot
    shadow = mixed(color, NIGHT, 0.35)
    shapes = [
        Shape(disc((x, y + 0.012), width, 0.14 * width), shadow, 90)
        for width in (0.26, 0.21, 0.16)
    ]
    paint(image, shapes + bird)


SCENES: dict[
    str,
    Callable[[Image.Image, list[Shape], Point, np.random.Generator], None],
] = {"sky": _sky, "branch": _branch, "water": _water, "plain": _plain}
