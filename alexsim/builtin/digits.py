"""Ten digits in grey as people write them, light on dark, of 32 x 32 pixels.

A digit is strokes through control points, in one of the ways that people write it. Every picture
has its own slant, rotation, size, aspect, place, pen and greys; its points are moved, and noise
lies over it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from alexsim.builtin.drawn import DrawnSet, generator

VERSION = 1
SIDE = 32
"""Pixels; LeNet-5 takes crops of 28."""
_FINE = 4
"""Lines are drawn so many times larger, and scaled down: PIL's have no soft edges."""
_PER_CURVE = 6
"""Straight lines between two control points."""

Points = NDArray[np.float64]
Stroke = tuple[tuple[float, float], ...]

# Of a box that is 1 wide and 1 high, from its upper left corner. A point that stands twice in a row
# is a corner; between corners lines are smooth.
_WAYS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    (  # 0
        (((0.55, 0.0), (0.2, 0.13), (0.03, 0.5), (0.2, 0.88), (0.5, 1.0), (0.83, 0.86),
          (0.97, 0.5), (0.82, 0.13), (0.5, 0.0), (0.4, 0.05)),),
        (((0.75, 0.1), (0.4, 0.0), (0.08, 0.35), (0.1, 0.78), (0.45, 1.0), (0.85, 0.8),
          (0.95, 0.4), (0.72, 0.06), (0.5, 0.1)),),
    ),
    (  # 1
        (((0.5, 0.0), (0.5, 0.5), (0.5, 1.0)),),
        (((0.22, 0.26), (0.58, 0.0), (0.58, 0.0), (0.56, 0.5), (0.55, 1.0)),),
        (((0.2, 0.25), (0.5, 0.0), (0.5, 0.0), (0.5, 1.0)), ((0.15, 1.0), (0.88, 1.0))),
    ),
    (  # 2
        (((0.08, 0.26), (0.25, 0.04), (0.58, 0.0), (0.86, 0.17), (0.8, 0.42), (0.45, 0.73),
          (0.04, 1.0), (0.04, 1.0), (0.5, 0.97), (0.98, 1.0)),),
        (((0.08, 0.22), (0.4, 0.0), (0.82, 0.14), (0.75, 0.48), (0.38, 0.88), (0.1, 0.98),
          (0.06, 0.84), (0.3, 0.8), (0.6, 0.95), (0.98, 0.93)),),
    ),
    (  # 3
        (((0.08, 0.13), (0.42, 0.0), (0.82, 0.1), (0.8, 0.34), (0.38, 0.47), (0.38, 0.47),
          (0.82, 0.56), (0.94, 0.8), (0.6, 1.0), (0.25, 0.98), (0.04, 0.86)),),
        (((0.1, 0.02), (0.88, 0.0), (0.88, 0.0), (0.42, 0.4), (0.42, 0.4), (0.85, 0.54),
          (0.92, 0.8), (0.58, 1.0), (0.04, 0.89)),),
    ),
    (  # 4
        (((0.2, 0.0), (0.1, 0.3), (0.05, 0.56), (0.05, 0.56), (0.5, 0.57), (0.97, 0.52)),
         ((0.78, 0.08), (0.72, 0.5), (0.68, 1.0))),
        (((0.7, 0.0), (0.03, 0.66), (0.03, 0.66), (0.98, 0.65)), ((0.7, 0.0), (0.7, 1.0))),
        (((0.18, 0.02), (0.12, 0.45), (0.4, 0.55), (0.8, 0.4)),
         ((0.88, 0.0), (0.8, 0.4), (0.74, 1.0))),
    ),
    (  # 5
        (((0.88, 0.0), (0.22, 0.02), (0.22, 0.02), (0.15, 0.45), (0.15, 0.45), (0.5, 0.36),
          (0.9, 0.55), (0.9, 0.8), (0.55, 1.0), (0.2, 0.98), (0.04, 0.86)),),
        (((0.2, 0.05), (0.16, 0.42), (0.16, 0.42), (0.55, 0.38), (0.9, 0.6), (0.8, 0.9),
          (0.45, 1.0), (0.05, 0.92)), ((0.2, 0.05), (0.6, 0.04), (0.98, 0.0))),
    ),
    (  # 6
        (((0.75, 0.0), (0.35, 0.2), (0.08, 0.6), (0.16, 0.91), (0.5, 1.0), (0.88, 0.87),
          (0.86, 0.62), (0.55, 0.5), (0.2, 0.62), (0.11, 0.76)),),
        (((0.45, 0.0), (0.15, 0.4), (0.08, 0.78), (0.35, 1.0), (0.75, 0.95), (0.85, 0.7),
          (0.55, 0.56), (0.15, 0.72)),),
    ),
    (  # 7
        (((0.05, 0.03), (0.5, 0.03), (0.95, 0.0), (0.95, 0.0), (0.6, 0.45), (0.36, 1.0)),),
        (((0.05, 0.03), (0.95, 0.0), (0.95, 0.0), (0.62, 0.45), (0.42, 1.0)),
         ((0.25, 0.5), (0.85, 0.47))),
        (((0.06, 0.2), (0.08, 0.02), (0.08, 0.02), (0.9, 0.03), (0.9, 0.03), (0.7, 0.4),
          (0.55, 1.0)),),
    ),
    (  # 8
        (((0.84, 0.14), (0.5, 0.0), (0.16, 0.16), (0.3, 0.4), (0.7, 0.56), (0.92, 0.8),
          (0.5, 1.0), (0.08, 0.8), (0.3, 0.56), (0.72, 0.38), (0.84, 0.14)),),
        (((0.5, 0.46), (0.18, 0.3), (0.25, 0.06), (0.55, 0.0), (0.82, 0.14), (0.78, 0.36),
          (0.5, 0.46), (0.1, 0.66), (0.15, 0.94), (0.5, 1.0), (0.88, 0.9), (0.88, 0.62),
          (0.5, 0.46)),),
    ),
    (  # 9
        (((0.9, 0.17), (0.55, 0.0), (0.13, 0.13), (0.1, 0.38), (0.45, 0.5), (0.84, 0.34),
          (0.9, 0.17), (0.9, 0.17), (0.88, 0.6), (0.8, 1.0)),),
        (((0.88, 0.2), (0.5, 0.0), (0.1, 0.22), (0.3, 0.48), (0.7, 0.42), (0.88, 0.2),
          (0.88, 0.2), (0.9, 0.65), (0.68, 0.96), (0.2, 0.97)),),
    ),
)  # fmt: skip


def draw(label: int, index: int) -> Image.Image:
    """A picture of 32 x 32 greys; the same for the same class and index."""
    rng = generator(VERSION, label, index)
    ways = _WAYS[label]
    placed = _placed(*_points(label, int(rng.integers(len(ways)))), rng)
    large = Image.new("L", (SIDE * _FINE, SIDE * _FINE))
    pen, width = ImageDraw.Draw(large), rng.uniform(1.5, 3.4) * _FINE
    for points in placed:
        _line(pen, points * _FINE, width)
    ink = np.asarray(large.reduce(_FINE), dtype=np.float64) / 255
    ground, light = rng.uniform(0, 60), rng.uniform(130, 255)
    pixels = ground + ink * (light - ground) + rng.normal(0, rng.uniform(2, 22), ink.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@cache
def _points(label: int, way: int) -> tuple[Points, tuple[NDArray[np.int64], ...]]:
    """The points of a digit, each once, and which of them every stroke goes through.

    So points that stand in several strokes, or twice in one, are moved together.
    """
    strokes = [np.array(stroke) for stroke in _WAYS[label][way]]
    unique, numbers = np.unique(np.concatenate(strokes), axis=0, return_inverse=True)
    ends = np.cumsum([len(stroke) for stroke in strokes])[:-1]
    return unique, tuple(np.split(numbers.reshape(-1), ends))


def _placed(
    unique: Points, strokes: tuple[NDArray[np.int64], ...], rng: np.random.Generator
) -> list[Points]:
    """A curve for each stroke, in pixels of the picture: ``[n, 2]``, x and y."""
    moved = unique - 0.5 + rng.normal(0, 0.04, unique.shape)
    height = rng.uniform(14, 21)
    slant, turn = rng.normal(0.12, 0.2), rng.normal(0, 0.15)
    grown = moved * (height * rng.uniform(0.45, 0.9), height)
    grown[:, 0] -= slant * grown[:, 1]
    cos, sin = np.cos(turn), np.sin(turn)
    turned = grown @ np.array([[cos, sin], [-sin, cos]])
    middle = (turned.min(0) + turned.max(0)) / 2
    pixels = turned - middle + SIDE / 2 + rng.uniform(-2.5, 2.5, 2)
    return [_curve(pixels[numbers]) for numbers in strokes]


def _curve(points: Points) -> Points:
    """Catmull and Rom's spline through points, from corner to corner."""
    corners = 1 + np.flatnonzero((points[1:] == points[:-1]).all(1))
    t = np.arange(_PER_CURVE)[:, None] / _PER_CURVE
    parts = []
    for piece in np.split(points, corners):
        before = np.concatenate([piece[:1], piece[:-2]])[:, None]
        after = np.concatenate([piece[2:], piece[-1:]])[:, None]
        start, end = piece[:-1, None], piece[1:, None]
        curved = 2 * before - 5 * start + 4 * end - after
        bent = 3 * start - before - 3 * end + after
        parts.append((start + (((bent * t + curved) * t + end - before) * t) / 2).reshape(-1, 2))
        parts.append(piece[-1:])
    return np.concatenate(parts)


def _line(pen: ImageDraw.ImageDraw, points: Points, width: float) -> None:
    """A line with round joints and ends."""
    pen.line(points.ravel().tolist(), fill=255, width=round(width), joint="curve")
    for x, y in points[[0, -1]].tolist():
        pen.circle((x, y), width / 2, fill=255)


DIGITS = DrawnSet(
    name="digits",
    version=VERSION,
    classes=tuple(str(digit) for digit in range(10)),
    train_per_class=500,
    held_out_per_class=100,
    draw=draw,
)
