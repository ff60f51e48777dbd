"""How fast this machine reads images for a step: the calibration's rates of the data path."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from alexsim.builtin import textures
from alexsim.costs.measured import Rate
from alexsim.data.images import Crop, load_crops
from alexsim.data.normalising import Normalising
from alexsim.execute.upload import normalise, operands
from alexsim.profile.clock import Clock

_FILES, _REPEATS = 32, 5
_JPEGS = 64
_JPEG_SIDE = 256
METHOD = "JPEGs of 256 x 256 by Pillow in one thread; images as train reads its own"


def data_rates(crop_side: int, channels: int) -> tuple[Rate, ...]:
    """Images per second and core: JPEGs, from file to crop, and from crop to normalised floats.

    The files are those of the built-in textures: 256 pixels on the shorter side, quality 85.
    """
    with tempfile.TemporaryDirectory() as folder:
        crops = []
        for index in range(_FILES):
            path = Path(folder) / f"{index}.JPEG"
            textures.draw(index % len(textures.CLASSES), index).save(path, "JPEG", quality=85)
            crops.append(Crop(path=str(path), top=1, left=2))
        size = sum(Path(crop.path).stat().st_size for crop in crops) // _FILES
        loads = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            pixels, _ = load_crops(crops, crop_side, channels)
            loads.append((time.perf_counter() - started) / _FILES)
    normalising = operands(
        Normalising(
            mean=np.full(pixels.shape[1:], 120, dtype=np.float32),
            deviation=None,
            noise=np.ones((_FILES, channels), dtype=np.float32),
            factor=np.full(_FILES, 1 / 1.1, dtype=np.float32),
            mirrored=np.arange(_FILES) % 2 == 1,
        )
    )
    landed = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    images = torch.empty(pixels.shape).permute(0, 3, 1, 2)
    floats = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        normalise(landed, images, normalising)
        floats.append((time.perf_counter() - started) / _FILES)
    return (
        _decoding(),
        _rate("image load", f"{size:,} bytes", loads),
        _rate("image normalise", f"{crop_side} x {crop_side}", floats),
    )


def _rate(what: str, shape: str, seconds: list[float]) -> Rate:
    median = statistics.median(seconds)
    return Rate(what=what, shape=shape, seconds=median, per_second=1 / median, unit="image")


def _decoding() -> Rate:
    """JPEGs in one thread."""
    files = [_jpeg(seed) for seed in range(_JPEGS)]

    def decode() -> list[np.ndarray]:
        return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]

    seconds = Clock("cpu").seconds(decode) / _JPEGS
    shape = f"{sum(map(len, files)) // _JPEGS:,} bytes"
    return _rate("jpeg decode", shape, [seconds])


def _jpeg(seed: int) -> bytes:
    """A picture with detail at every scale, so that it takes as many bytes as a photograph."""
    generator = np.random.default_rng(seed)
    pixels = np.full((_JPEG_SIDE, _JPEG_SIDE, 3), 128.0)
    side = 4
    while side <= _JPEG_SIDE:
        coarse = generator.normal(0, 40 * (4 / side) ** 0.5, (side, side, 3))
        pixels += np.repeat(np.repeat(coarse, _JPEG_SIDE // side, 0), _JPEG_SIDE // side, 1)
        side *= 2
    file = io.BytesIO()
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
