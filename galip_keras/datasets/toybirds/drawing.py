"""Draw a bird from smooth shapes, painted large and then reduced.

Shapes are polygons sampled from curves. A bird has its own coordinates (x to the front,
y down, a body of length 1.7 around the origin) until it is placed in the image, whose
sides are 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from galip_keras.datasets.toybirds.birds import Bird
from galip_keras.datasets.toybirds.scenery import SCENES
from galip_keras.datasets.toybirds.shapes import (
    NIGHT,
    SNOW,
    STEPS,
    Color,
    Point,
    Points,
    Shape,
    curve,
    disc,
    ink,
    inked,
    mixed,
    moved,
    path,
    rotated,
    spline,
    stroke,
)

_COLORS: dict[str, Color] = {
    "red": (215, 38, 42),
    "orange": (247, 138, 24),
    "yellow": (253, 218, 48),
    "green": (54, 158, 66),
    "blue": (38, 92, 214),
    "purple": (143, 62, 176),
    "brown": (122, 74, 40),
    "black": (34, 34, 40),
    "white": (250, 250, 248),
    "grey": (148, 152, 160),
}
_LEG: Color = (206, 130, 76)

# The unit of a bird's coordinates, as a fraction of the image's sides.
_SCALES = {"small": 0.235, "large": 0.295}
# The degrees by which the head is raised.
_TILTS = {"sky": -2.0, "branch": 10.0, "water": 0.0, "plain": 5.0}
_OVERSAMPLING = 4
_MARGIN = 0.02
_WATERLINE = 0.50
_BIRD_STREAM = 20230116
_SCENE_STREAM = 20230117

# Around the body: beak, brow, head, nape, back, rump, tail, vent, belly, breast, chest,
# throat.
_BODY = np.array(
    (
        (0.86, -0.36),
        (0.82, -0.62),
        (0.64, -0.85),
        (0.32, -0.89),
        (0.06, -0.66),
        (-0.22, -0.32),
        (-0.66, -0.06),
        (-0.86, 0.22),
        (-0.58, 0.50),
        (-0.02, 0.68),
        (0.50, 0.52),
        (0.80, 0.14),
        (0.80, -0.12),
    )
)
_BEAK, _NAPE, _TAIL, _VENT, _THROAT = (STEPS * index for index in (0, 4, 7, 8, 12))


class _Look(NamedTuple):
    """What distinguishes birds with the same attributes."""

    body: Points
    tones: dict[str, Color]
    tilt: float
    spread: float
    scale: float
    place: Point


def draw(bird: Bird, seed: int, size: int = 64) -> Image.Image:
    """Draw a bird.

    Args:
        bird: `Bird`.
        seed: int, not negative. Varies place, proportions, shades and the background.
        size: int. Height and width of the image in pixels. The drawing stays the same.

    Returns:
        An RGB `PIL.Image.Image`.
    """
    rng = np.random.default_rng((_BIRD_STREAM, seed))
    look = _look(bird, rng)
    shapes, foot = _placed(bird, look)
    scene = np.random.default_rng((_SCENE_STREAM, seed))
    image = Image.new("RGB", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    SCENES[bird.background](image, shapes, foot, scene)
    if rng.integers(2):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.reduce(_OVERSAMPLING)


def _look(bird: Bird, rng: np.random.Generator) -> _Look:
    vary = (2 * rng.random(6) - 1).tolist()
    stretch = 1 + 0.05 * (2 * rng.random(2) - 1)
    body = _BODY * stretch + 0.025 * (2 * rng.random(_BODY.shape) - 1)
    tones = {
        part: moved(_COLORS[getattr(bird, part)], _shift(rng))
        for part in ("body", "wing", "crown", "belly", "beak_color")
    }
    return _Look(
        body=spline(body),
        tones=tones,
        tilt=np.deg2rad(_TILTS[bird.background] + 5 * vary[0]),
        spread=1 + 0.1 * vary[1],
        scale=_SCALES[bird.size] * (1 + 0.04 * vary[2]),
        place=(0.5 + 0.1 * vary[3], 0.56 + 0.07 * vary[4]),
    )


def _shift(rng: np.random.Generator) -> Points:
    """A random change of lightness and, a little, of hue."""
    return rng.integers(-7, 8) + rng.integers(-4, 5, 3)


def _placed(bird: Bird, look: _Look) -> tuple[list[Shape], Point]:
    """The shapes of a bird in the image, and where it touches ground or water."""
    shapes = _shapes(bird, look)
    if bird.background in ("branch", "plain"):
        # Legs are upright: undo the tilt here, since all shapes are tilted below.
        foot = rotated(look.body, look.tilt)[:, 1].max() + 0.24
        legs = [
            shape._replace(points=rotated(shape.points, -look.tilt))
            for shape in _legs(foot)
        ]
        shapes = legs + shapes
    else:
        foot = _WATERLINE
    corners = np.concatenate([shape.points for shape in shapes])
    corners = rotated(corners, look.tilt) * look.scale
    low = _MARGIN - corners.min(axis=0)
    high = 1 - _MARGIN - corners.max(axis=0)
    if bird.background != "sky":
        high -= (0, 0.05)
    # The widest birds may reach into the margin.
    place = np.clip(look.place, np.minimum(low, high), high)
    x, y = place.tolist()
    ends = np.cumsum([len(shape.points) for shape in shapes])[:-1]
    moved = [
        shape._replace(points=points)
        for shape, points in zip(shapes, np.split(corners + place, ends))
    ]
    return moved, (x, y + foot * look.scale)


def _shapes(bird: Bird, look: _Look) -> list[Shape]:
    tones = look.tones
    near, far = tones["wing"], mixed(tones["wing"], NIGHT, 0.2)
    flying = bird.background == "sky"
    # The tail has the colour of the wings, as with most birds.
    shapes = _tail(bird.tail, near)
    if bird.pose == "raised":
        shapes += _spread_wing((0.24, -0.16), 92, look.spread, far)
    elif flying:
        shapes += _spread_wing((0.30, 0.12), -84, look.spread, far)
    shapes += _torso(look) + _beak(bird, tones["beak_color"]) + _eye(tones["body"])
    if bird.pose == "raised":
        shapes += _spread_wing((-0.02, 0.08), 112, look.spread, near)
    elif flying:
        shapes += _spread_wing((-0.04, -0.06), -108, look.spread, near)
    else:
        shapes += _folded_wing(near)
    return shapes


def _torso(look: _Look) -> list[Shape]:
    body, tones = look.body, look.tones
    brow, nape, throat, vent = _BEAK + 5, _NAPE + 2, _THROAT, _VENT - 3
    shapes = inked(body, tones["body"])
    edge = _between(body[throat], (0.42, 0.02), (0.10, 0.36), body[vent])
    shapes += _patch(body[vent:throat], edge, tones["belly"])
    edge = _between(body[nape], (0.20, -0.48), (0.52, -0.64), body[brow])
    shapes += _patch(body[brow:nape], edge, tones["crown"])
    # Soft light from above: a few thin layers, each inside the previous one.
    lower = body[_TAIL:_THROAT]
    bulge = np.sin(np.linspace(0, np.pi, len(lower)))[:, None]
    for part in (0.08, 0.16, 0.26):
        inner = lower + part * bulge * ((0.1, -0.2) - lower)
        shapes.append(Shape(np.concatenate([lower, inner[::-1]]), NIGHT, 18))
    for width in (0.22, 0.16, 0.09):
        shapes.append(Shape(disc((0.40, -0.76), width, 0.4 * width), SNOW, 26))
    return shapes


def _between(start: Points, first: Point, second: Point, end: Points) -> Points:
    return curve((start[0], start[1]), first, second, (end[0], end[1]))


def _patch(outline: Points, edge: Points, color: Color) -> list[Shape]:
    """A part of the body, between its outline and a curve through it."""
    return [
        Shape(np.concatenate([outline, edge]), color),
        Shape(stroke(edge, 0.03), ink(color), 150),
    ]


def _eye(body: Color) -> list[Shape]:
    return [
        Shape(disc((0.55, -0.42), 0.145), mixed(body, SNOW, 0.65)),
        Shape(disc((0.56, -0.42), 0.11), (30, 26, 34)),
        Shape(disc((0.60, -0.46), 0.04), SNOW),
    ]


def _beak(bird: Bird, color: Color) -> list[Shape]:
    x = 0.84
    length = {"short": 0.38, "long": 0.74}[bird.beak_length]
    if bird.beak_shape == "pointed":
        tip = (x + length, -0.33)
        points = path(
            curve((0.78, -0.55), (x + 0.4 * length, -0.52), tip),
            curve(tip, (x + 0.4 * length, -0.20), (0.78, -0.18)),
            curve((0.78, -0.18), (0.84, -0.36), (0.78, -0.55)),
        )
    else:
        tip = (x + 0.88 * length, 0.00)
        points = path(
            curve((0.78, -0.57), (x + 0.8 * length, -0.64), (x + length, -0.40), tip),
            curve(tip, (x + 0.76 * length, -0.20), (x + 0.5 * length, -0.16)),
            curve((x + 0.5 * length, -0.16), (x + 0.2 * length, -0.08), (0.78, -0.16)),
            curve((0.78, -0.16), (0.84, -0.36), (0.78, -0.57)),
        )
    mouth = curve((0.86, -0.35), (x + 0.3 * length, -0.36), (x + 0.62 * length, -0.31))
    return [*inked(points, color), Shape(stroke(mouth, 0.035, 0.01), ink(color))]


def _tail(tail: str, color: Color) -> list[Shape]:
    length, width, angles = {
        "short": (0.52, 0.17, (202, 174, 188)),
        "long": (0.88, 0.16, (196, 180, 188)),
        "forked": (0.86, 0.15, (208, 168)),
    }[tail]
    shapes: list[Shape] = []
    for angle in angles:
        shapes += inked(_feather((-0.62, 0.14), angle, length, width), color)
    return shapes


_FEATHER = path(
    curve((0, 0), (0.3, 0.5), (1, 0.75), (1, 0)),
    curve((1, 0), (1, -0.75), (0.3, -0.5), (0, 0)),
)


def _feather(root: Point, degrees: float, length: float, width: float) -> Points:
    """A long drop with a round tip. Degrees are measured upwards from the front."""
    return rotated(_FEATHER * (length, width), np.deg2rad(degrees)) + root


def _folded_wing(color: Color) -> list[Shape]:
    shapes: list[Shape] = []
    for x, y, angle, length in (
        (0.00, 0.20, 200, 0.56),
        (0.00, 0.12, 192, 0.68),
        (0.00, 0.02, 185, 0.78),
    ):
        shapes += inked(_feather((x, y), angle, length, 0.15), color)
    coverts = path(
        curve((0.34, -0.02), (0.22, -0.26), (-0.16, -0.28), (-0.44, -0.02)),
        curve((-0.44, -0.02), (-0.34, 0.08), (-0.32, 0.18)),
        curve((-0.32, 0.18), (-0.18, 0.24), (-0.12, 0.34)),
        curve((-0.12, 0.34), (0.18, 0.38), (0.40, 0.20), (0.34, -0.02)),
    )
    shapes += inked(coverts, color)
    shapes.append(Shape(disc((0.08, -0.08), 0.20, 0.09), SNOW, 40))
    for x in (0.02, -0.20):
        line = curve((x + 0.14, -0.06), (x, 0.08), (x + 0.12, 0.24))
        shapes.append(Shape(stroke(line, 0.035), ink(color), 170))
    return shapes


def _spread_wing(
    root: Point, degrees: float, spread: float, color: Color
) -> list[Shape]:
    """Five long feathers, the first at an angle, with three short ones on top."""
    turn = np.sign(degrees) * 14 * spread
    shapes: list[Shape] = []
    for index in (4, 3, 2, 1, 0):
        length = 1.22 - 0.10 * index
        feather = _feather(root, degrees + turn * index, length, 0.2)
        shapes += inked(feather, color)
    for index in (3, 2, 1):
        feather = _feather(root, degrees + turn * (index - 0.1) * 1.15, 0.66, 0.2)
        shapes += inked(feather, color)
    return shapes


def _legs(foot: float) -> list[Shape]:
    shapes: list[Shape] = []
    for x, color in ((0.20, mixed(_LEG, NIGHT, 0.15)), (-0.06, _LEG)):
        leg = stroke(curve((x - 0.06, foot - 0.5), (x - 0.02, foot)), 0.07)
        toes = disc((x + 0.03, foot), 0.14, 0.055)
        shapes += [*inked(leg, color), *inked(toes, color)]
    return shapes
