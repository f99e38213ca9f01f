"""Smooth shapes: polygons sampled from curves, their colours, and how to paint them.

Points are `(n, 2)` arrays, x to the right and y down. The sides of an image are 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import comb
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]
Points = np.ndarray[Any, Any]

NIGHT: Color = (24, 24, 48)
SNOW: Color = (255, 255, 255)

# Steps of a spline from one control point to the next.
STEPS = 8
_OUTLINE = 0.035


class Shape(NamedTuple):
    """A polygon of one colour."""

    points: Points
    color: Color
    alpha: int = 255


def _bernstein(degree: int, steps: int) -> Points:
    t = np.linspace(0, 1, steps)[:, None]
    k = np.arange(degree + 1)
    return np.array([comb(degree, i) for i in k]) * t**k * (1 - t) ** (degree - k)


def _catmull_rom(steps: int) -> Points:
    t = np.arange(steps)[:, None] / steps
    matrix = np.array(((0, 2, 0, 0), (-1, 0, 1, 0), (2, -5, 4, -1), (-1, 3, -3, 1)))
    return 0.5 * t ** np.arange(4) @ matrix


_BERNSTEIN = {degree + 1: _bernstein(degree, 12) for degree in (1, 2, 3)}
_CATMULL_ROM = _catmull_rom(STEPS)
_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


def spline(points: Points) -> Points:
    """A smooth closed curve through points."""
    spans = np.arange(len(points))[:, None] + (-1, 0, 1, 2)
    return (_CATMULL_ROM @ points[spans % len(points)]).reshape(-1, 2)


def curve(*controls: Point) -> Points:
    """A Bézier curve of two to four control points."""
    return _BERNSTEIN[len(controls)] @ np.array(controls)


def path(*curves: Points) -> Points:
    """Join curves, each of which ends where the next one begins."""
    return np.concatenate([curve[:-1] for curve in curves])


def disc(center: Point, width: float, height: float | None = None) -> Points:
    return _CIRCLE * (width, height or width) + center


def rotated(points: Points, angle: float) -> Points:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array(((c, -s), (s, c)))


def grown(points: Points, width: float) -> Points:
    """An outline moved outwards."""
    before = np.concatenate([points[-1:], points[:-1]])
    after = np.concatenate([points[1:], points[:1]])
    clockwise = np.sign(np.vdot(points[:, 0], (after - before)[:, 1]))
    return points + clockwise * width * _normals(after - before)


def stroke(line: Points, width: float, end: float | None = None) -> Points:
    """A line as a polygon, whose width may change towards its end."""
    padded = np.concatenate([line[:1], line, line[-1:]])
    halves = np.linspace(width, width if end is None else end, len(line)) / 2
    normals = _normals(padded[2:] - padded[:-2]) * halves[:, None]
    return np.concatenate([line + normals, (line - normals)[::-1]])


def _normals(tangents: Points) -> Points:
    x, y = tangents.T
    return np.stack([y, -x], axis=1) / np.maximum(np.hypot(x, y), 1e-9)[:, None]


def moved(color: Color, by: Points) -> Color:
    r, g, b = (min(max(int(c + d), 0), 255) for c, d in zip(color, by))
    return r, g, b


def mixed(color: Color, other: Color, part: float) -> Color:
    r, g, b = (round(c + part * (d - c)) for c, d in zip(color, other))
    return r, g, b


def ink(color: Color) -> Color:
    """The colour of lines on and around a colour. Lines on black must be lighter."""
    if max(color) < 64:
        return mixed(color, SNOW, 0.32)
    return mixed(color, NIGHT, 0.48)


def inked(points: Points, color: Color) -> list[Shape]:
    return [Shape(grown(points, _OUTLINE), ink(color)), Shape(points, color)]


def paint(image: Image.Image, shapes: Iterable[Shape]) -> None:
    pen = ImageDraw.Draw(image, "RGBA")
    for points, color, alpha in shapes:
        # Integer coordinates are the centres of pixels.
        corners = (points * image.width - 0.5).ravel().tolist()
        pen.polygon(corners, fill=(*color, alpha))


def gradient(image: Image.Image, top: Color, bottom: Color, start: float = 0) -> None:
    """Paint everything below a height."""
    first = round(start * image.height)
    rows = np.linspace(top, bottom, image.height - first)[:, None].round()
    column = Image.fromarray(rows.astype(np.uint8))
    size = (image.width, column.height)
    image.paste(column.resize(size, Image.Resampling.NEAREST), (0, first))
