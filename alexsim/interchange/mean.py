"""Mean images: Caffe's ``.binaryproto``, or three numbers, as the square that training crops."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alexsim.errors import InterchangeError
from alexsim.interchange.caffe_messages import Floats, blob_values, new_message, parsed
from alexsim.network.network import Network


def mean_bytes(mean: Floats) -> bytes:
    """A mean image ``[side, side, channels]`` as Caffe's ``.binaryproto``: BGR, channels first.

    Raises:
        InterchangeError: there is no package ``protobuf``.
    """
    blob = new_message("BlobProto")
    planes = mean.transpose(2, 0, 1)[::-1]
    blob.num, (blob.channels, blob.height, blob.width) = 1, planes.shape
    blob.data.append(np.ascontiguousarray(planes, "<f4").tobytes())
    return bytes(blob.SerializeToString())


def mean_of(given: str, network: Network, side: int) -> Floats:
    """The mean image ``[side, side, channels]`` that a file or a number per channel stands for.

    A file's image may be smaller or larger than the square: what is subtracted is the centre of
    either, and lies at the centre of the result.

    Raises:
        InterchangeError: it is neither, or of another number of channels than the network's images.
    """
    channels, *crop = network.input_shape
    if Path(given).suffix != ".binaryproto":
        return np.full((side, side, channels), _levels(given, channels), np.float32)
    try:
        planes = _planes(Path(given).read_bytes(), given)
    except OSError as error:
        raise InterchangeError(f"cannot read {given}: {error.strerror}") from error
    if len(planes) != channels or min(planes.shape[1:]) < max(crop):
        raise InterchangeError(
            f"{given} is an image of {' x '.join(map(str, planes.shape))}; {network.name} needs"
            f" {channels} channels of at least {max(crop)} x {max(crop)}"
        )
    image = planes[::-1].transpose(1, 2, 0)
    return _square(image, max(crop), side)


def _levels(given: str, channels: int) -> Floats:
    try:
        levels = np.array([float(text) for text in given.split(",")], np.float32)
    except ValueError:
        levels = np.empty(0, np.float32)
    if len(levels) != channels or not np.isfinite(levels).all():
        raise InterchangeError(
            f"--mean must be a .binaryproto file, or {channels} number(s) with commas (red, green,"
            f" blue); got {given!r}"
        )
    return levels


def _planes(data: bytes, where: str) -> Floats:
    values = blob_values(parsed(data, "BlobProto", where), where)
    if values.ndim not in (3, 4) or not values.size or values.shape[:-3] not in ((), (1,)):
        raise InterchangeError(f"{where} holds no image, but numbers of shape {values.shape}")
    return values.reshape(values.shape[-3:])


def _square(image: Floats, crop: int, side: int) -> Floats:
    if image.shape[:2] == (side, side):
        return image.copy()
    top, left = ((extent - crop) // 2 for extent in image.shape[:2])
    before = (side - crop) // 2
    around = (before, side - crop - before)
    return np.pad(image[top : top + crop, left : left + crop], (around, around, (0, 0)), "edge")
