"""How fast this machine reads images for a step: the calibration's rates of the data path."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from alexsim.data import builtin
from alexsim.data.images import Crop, load_crops
from alexsim.simulate.costs.measured import Rate

_FILES, _REPEATS = 32, 5


def data_rates(crop_side: int, channels: int) -> tuple[Rate, Rate]:
    """Images per second and core: from file to crop, and from crop to normalised floats.

    The files are drawn as those of the built-in data: 256 pixels on the shorter side, quality 85.
    """
    with tempfile.TemporaryDirectory() as folder:
        crops = []
        for index in range(_FILES):
            path = Path(folder) / f"{index}.JPEG"
            builtin.draw(index % len(builtin.CLASSES), index).save(path, "JPEG", quality=85)
            crops.append(Crop(path=str(path), top=1, left=2, mirror=bool(index % 2)))
        size = sum(Path(crop.path).stat().st_size for crop in crops) // _FILES
        loads = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            pixels, _ = load_crops(crops, crop_side, channels)
            loads.append((time.perf_counter() - started) / _FILES)
    mean = np.full(pixels.shape[1:], 120, dtype=np.float32)
    noise = np.ones(channels, dtype=np.float32)
    images = np.empty(pixels.shape, dtype=np.float32)
    floats = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        for image, source in zip(images, pixels, strict=True):
            # The loader's passes: copy, colour noise, mean, scale.
            image[:] = source
            rows = image.reshape(len(image), -1)
            rows += np.tile(noise, image.shape[1])
            image -= mean
            image *= np.float32(1 / 1.1)
        floats.append((time.perf_counter() - started) / _FILES)
    return _rate("image load", f"{size:,} bytes", loads), _rate(
        "image normalise", f"{crop_side} x {crop_side}", floats
    )


def _rate(what: str, shape: str, seconds: list[float]) -> Rate:
    median = statistics.median(seconds)
    return Rate(what=what, shape=shape, seconds=median, per_second=1 / median, unit="image")
