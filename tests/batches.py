"""Minibatches in plain numpy: what their bytes are to become, and whether two are the same."""

from __future__ import annotations

import numpy as np

from alexsim.data.loader import Batch
from alexsim.data.normalising import Normalising
from alexsim.data.slots import Pixels
from alexsim.data.statistics import Floats


def floats(batch: Batch) -> Floats:
    """What a network reads of a minibatch, ``[N, H, W, C]``."""
    return normalised(batch.images, batch.normalising)


def normalised(images: Pixels, todo: Normalising) -> Floats:
    """Image by image, as float32 rounds every step."""
    done = []
    for pixels, noise, factor, mirrored in zip(
        images, todo.noise, todo.factor, todo.mirrored, strict=True
    ):
        image = pixels[:, ::-1] if mirrored else pixels
        image = image.astype(np.float32) + noise - todo.mean
        image = image if todo.deviation is None else image / todo.deviation
        done.append(image * factor)
    return np.stack(done)


def same(a: Batch, b: Batch) -> bool:
    """Whether two minibatches have the same images and labels."""
    return bool(np.array_equal(floats(a), floats(b)) and np.array_equal(a.labels, b.labels))
