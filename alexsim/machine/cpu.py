"""This machine's processor."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name(*, family: bool = False) -> str:
    """The processor's name, with ``family`` and model number where two processors share a name.

    Without ``/proc/cpuinfo``, what Python's ``platform`` says.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = facts.get("model name") or platform.processor() or platform.machine()
    if family and facts.get("cpu family"):
        return f"{name} (family {facts['cpu family']}, model {facts.get('model', '')})"
    return name
