"""IDX, the form of MNIST: a file of images, and one of their labels.

A magic number whose last byte is the number of axes, their lengths as 32-bit numbers, the most
significant byte first, and then bytes (yann.lecun.com/exdb/mnist, "file formats").
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.arrays.batch import Arrays, Batch, whole
from alexsim.errors import DataError

_NAME = re.compile(r"(.*)images([-.])idx3(-ubyte(?:\.gz)?)", re.IGNORECASE | re.DOTALL)
_UNSIGNED_BYTES = 0x0800


def is_idx(name: str) -> bool:
    """Whether a file is called as one of images: ``train-images-idx3-ubyte``, ``.gz`` or not."""
    return _NAME.fullmatch(name) is not None


def read_idx(path: Path) -> Arrays:
    """Images of a file, and their labels from the file beside it.

    Classes are the labels as numbers: IDX has no names.

    Raises:
        DataError: a file is missing, damaged, cut off or of another kind, or the two differ in how
            many images there are.
    """
    labelled = _labels_of(path)
    images, labels = _array(path, 3), _array(labelled, 1)
    if len(images) != len(labels):
        raise DataError(f"{path}: {len(images):,} images, but {len(labels):,} in {labelled.name}")
    classes = [str(label) for label in labels.tolist()]
    names = [str(index) for index in range(len(images))]
    return Arrays({path: Batch(images[..., None], classes, names)})


def _labels_of(path: Path) -> Path:
    """The file of labels: as that of the images, packed or not."""
    name = _NAME.sub(r"\1labels\2idx1\3", path.name)
    plain = name.removesuffix(".gz")
    for beside in (name, plain, f"{plain}.gz"):
        if path.with_name(beside).is_file():
            return path.with_name(beside)
    raise DataError(f"{path}: its labels, {name}, do not lie beside it")


def _array(path: Path, axes: int) -> NDArray[np.uint8]:
    data, header = whole(path), 4 * (1 + axes)
    if len(data) < header:
        raise DataError(f"{path}: cut off: {len(data)} bytes, fewer than those of its header")
    magic, *shape = struct.unpack(f">{1 + axes}I", data[:header])
    if magic != _UNSIGNED_BYTES + axes:
        raise DataError(
            f"{path}: its magic number is 0x{magic:08x}; bytes of {axes} axes have"
            f" 0x{_UNSIGNED_BYTES + axes:08x}"
        )
    if len(data) - header != math.prod(shape):
        size = " x ".join(f"{length:,}" for length in shape)
        raise DataError(
            f"{path}: {len(data) - header:,} bytes behind its header, which says {size}: cut off,"
            " or another file"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
