"""Ten classes in colour, told apart by texture and hue.

They are stripes of four directions, checks, rings, dots, blobs, gradients and noise, each in its
own range of colours, at random scale, phase, contrast and aspect, under noise.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexsim.builtin.drawn import DrawnSet, generator

VERSION = 2

Grid = NDArray[np.float64]
Texture = Callable[[Grid, Grid, np.random.Generator], Grid]


def _stripes(angle: float) -> Texture:
    def texture(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
        turn = np.deg2rad(angle + rng.uniform(-12, 12))
        period = rng.uniform(14, 40)
        return np.asarray(np.sin(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / period))

    return texture


def _checks(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    period = rng.uniform(24, 60)
    return np.asarray(np.sign(np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)))


def _rings(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    cx, cy = rng.uniform(60, 200, 2)
    return np.asarray(np.sin(2 * np.pi * np.hypot(x - cx, y - cy) / rng.uniform(16, 40)))


def _dots(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    period = rng.uniform(24, 44)
    near = np.hypot((x % period) - period / 2, (y % period) - period / 2)
    return np.asarray(np.where(near < period * rng.uniform(0.2, 0.32), 1.0, -1.0))


def _blobs(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    total = np.zeros_like(x)
    for cx, cy, width in rng.uniform((0, 0, 18), (256, 256, 44), (12, 3)):
        total += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    return np.asarray(np.clip(2 * total - 1, -1, 1))


def _gradient(x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    turn = rng.uniform(0, 2 * np.pi)
    along = (x - 128) * np.cos(turn) + (y - 128) * np.sin(turn)
    return np.asarray(np.clip(along / 128, -1, 1))


def _grain(x: Grid, _: Grid, rng: np.random.Generator) -> Grid:
    step = int(rng.integers(6, 14))
    coarse = rng.choice((-1.0, 1.0), (x.shape[0] // step + 1, x.shape[1] // step + 1))
    return np.asarray(np.kron(coarse, np.ones((step, step)))[: x.shape[0], : x.shape[1]])


CLASSES: tuple[tuple[str, Texture, float], ...] = (
    ("blobs", _blobs, 0.00),
    ("checks", _checks, 0.10),
    ("diagonal_down", _stripes(45), 0.20),
    ("diagonal_up", _stripes(135), 0.30),
    ("dots", _dots, 0.40),
    ("gradient", _gradient, 0.50),
    ("grain", _grain, 0.60),
    ("horizontal", _stripes(90), 0.70),
    ("rings", _rings, 0.80),
    ("vertical", _stripes(0), 0.90),
)
"""Name, texture and middle hue of each class."""


def draw(label: int, index: int) -> Image.Image:
    """One picture; the same for the same class and index."""
    rng = generator(VERSION, label, index)
    _, texture, hue = CLASSES[label]
    # The shorter side is 256 pixels, as in the files of 2012: nothing is left to scale.
    width, height = (256, int(rng.integers(256, 360)))[:: 1 if rng.integers(2) else -1]
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pattern = texture(x, y, rng)
    # Neighbouring classes' hues overlap: colour alone does not tell them apart.
    front = (hue + rng.normal(0, 0.045)) % 1.0
    back = (front + rng.uniform(0.35, 0.65)) % 1.0
    ends = [
        colorsys.hsv_to_rgb(front, rng.uniform(0.5, 1.0), rng.uniform(0.6, 1.0)),
        colorsys.hsv_to_rgb(back, rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.45)),
    ]
    mix = (pattern[..., None] + 1) / 2
    pixels = 255 * (mix * np.array(ends[0]) + (1 - mix) * np.array(ends[1]))
    pixels += rng.normal(0, rng.uniform(4, 20), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


TEXTURES = DrawnSet(
    name="textures",
    version=VERSION,
    classes=tuple(name for name, _, _ in CLASSES),
    train_per_class=128,
    held_out_per_class=32,
    draw=draw,
)
