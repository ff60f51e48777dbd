"""TensorBoard's event files, written without TensorFlow, TensorBoard or PyTorch.

A file is records, each with its length and checksums (TFRecord); a record is an ``Event``, a
message of Protocol Buffers. Only what is used here of ``event.proto``, ``summary.proto`` and the
hparams plugin's ``api.proto`` is known here, by field numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from PIL import Image

from alexsim.page.trackers.series import Row, Series
from alexsim.report.pictures import png

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types."""
_STRING = 7
"""TensorFlow's ``DT_STRING``."""
_RGB = 3
_CASTAGNOLI = 0x82F63B78
"""CRC-32C's polynomial, its lowest bit first."""


def event_file(series: Series) -> Iterator[bytes]:
    """The file's records: its version, the settings, then an event per step."""
    first = series.rows[0]
    yield _record(_event(first.wall_s, 0, _bytes(3, b"brain.Event:2")))
    summary = b"".join(_bytes(1, value) for value in _settings(series.settings))
    yield _record(_event(first.wall_s, 0, _bytes(5, summary)))
    for row in series.rows:
        yield _record(_event(row.wall_s, row.step, _bytes(5, _summary(row))))


def flat(settings: Mapping[str, Any], place: str = "") -> dict[str, str | float | bool]:
    """Nested settings by their places, ``recipe.stages[0].weight_rate``; null is left
    out."""
    leaves: dict[str, str | float | bool] = {}
    for key, value in settings.items():
        name = f"{place}.{key}" if place else key
        if isinstance(value, list):
            value = {f"[{index}]": each for index, each in enumerate(value)}
        if isinstance(value, Mapping):
            leaves |= {leaf.replace(".[", "["): held for leaf, held in flat(value, name).items()}
        elif value is not None:
            leaves[name] = value
    return leaves


def _settings(settings: Mapping[str, Any]) -> Iterator[bytes]:
    """Values that two plugins read: hyperparameters to compare runs by, and all of it as text."""
    hyperparameters = b"".join(
        _bytes(1, _bytes(1, name.encode()) + _bytes(2, _setting(value)))
        for name, value in flat(settings).items()
    )
    started = _number(1, 0) + _bytes(3, hyperparameters)
    yield _bytes(1, b"_hparams_/session_start_info") + _plugin(b"hparams", started)
    text = "".join(f"    {line}\n" for line in json.dumps(settings, indent=2).splitlines())
    tensor = _number(1, _STRING) + _bytes(2, _bytes(2, _number(1, 1))) + _bytes(8, text.encode())
    yield _bytes(1, b"config") + _bytes(8, tensor) + _plugin(b"text", b"")


def _setting(value: str | float | bool) -> bytes:
    """A ``google.protobuf.Value``."""
    if isinstance(value, bool):
        return _number(4, value)
    if isinstance(value, str):
        return _bytes(3, value.encode())
    return _key(2, _FIXED64) + struct.pack("<d", value)


def _plugin(name: bytes, content: bytes) -> bytes:
    return _bytes(9, _bytes(1, _bytes(1, name) + _bytes(2, content)))


def _summary(row: Row) -> bytes:
    values = [
        _bytes(1, tag.encode()) + _key(2, _FIXED32) + struct.pack("<f", _float32(value))
        for tag, value in row.values.items()
    ]
    values += [
        _bytes(1, tag.encode()) + _bytes(4, _image(picture))
        for tag, picture in row.pictures.items()
    ]
    return b"".join(_bytes(1, value) for value in values)


def _float32(value: float) -> float:
    """What ``struct`` can pack: beyond the largest float32 is infinity."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


def _image(picture: Image.Image) -> bytes:
    sizes = _number(1, picture.height) + _number(2, picture.width) + _number(3, _RGB)
    return sizes + _bytes(4, png(picture))


def _event(wall_s: float, step: int, what: bytes) -> bytes:
    told = _number(2, step) if step else b""  # 0 is what a field that is left out holds
    return _key(1, _FIXED64) + struct.pack("<d", wall_s) + told + what


# Protocol Buffers: a key is a field's number and how its value is written.


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _key(field, _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits to a byte, the lowest first; the eighth says that more follow."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


# TFRecord


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked(length), data, _masked(data)))


def _masked(data: bytes) -> bytes:
    """A checksum as TFRecord has it: rotated and shifted, as the data may hold checksums too."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> list[int]:
    """What each byte does to the checksum."""
    table = []
    for entry in range(256):
        crc = entry
        for _ in range(8):
            crc = crc >> 1 ^ _CASTAGNOLI if crc & 1 else crc >> 1
        table.append(crc)
    return table
