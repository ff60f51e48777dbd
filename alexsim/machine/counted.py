"""Names of machines and devices as they are given: in any case, with a count, as in ``a100x4``."""

from __future__ import annotations

import re

from alexsim.errors import ProfileError, known_as, plain
from alexsim.machine.sheet import names

MOST = 16
"""Devices in one node."""
_COUNTED = (r"(?P<count>[0-9]{1,9})x(?P<name>.+)", r"(?P<name>.+)x(?P<count>[0-9]{1,9})")
"""A device's name with a count before or behind it, without separators."""


def as_written(name: str) -> str:
    """A machine's name as lists have it, behind a device's its count: ``a100x4``.

    What is not known stays.

    Raises:
        ProfileError: it counts more than a node has, or what is no device.
    """
    written, count = count_of(name)
    return written if count is None else f"{written}x{count}"


def devices_in(name: str) -> int | None:
    """The count beside a device's name, as in ``a100x4``; None where there is none.

    Raises:
        ProfileError: it counts more than a node has, or what is no device.
    """
    return count_of(name)[1]


def count_of(name: str) -> tuple[str, int | None]:
    """A machine or a device as lists have it, and the count beside the device's name."""
    if written := known_as(name, names("machines")) or known_as(name, names("devices")):
        return written, None
    for match in (re.fullmatch(pattern, plain(name)) for pattern in _COUNTED):
        if match is None:
            continue
        count = int(match["count"])
        if listed := known_as(f"{match['name']}x{count}", names("machines")):
            return listed, None
        if several := known_as(match["name"], names("machines")):
            raise ProfileError(
                f"{name}: {several} is a machine, and a count is of a device, as in a100x4;"
                " --network LINK joins machines"
            )
        if written := known_as(match["name"], names("devices")):
            if 1 <= count <= MOST:
                return written, count
            raise ProfileError(
                f"{name}: a node has 1 to {MOST} devices, not {count}; --network LINK joins nodes,"
                f" as in --machine {written}x8 --network 100gbe --gpus 32"
            )
    return name, None
