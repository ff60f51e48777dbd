"""Documents of earlier versions: what they said in names alone, as the fields that say it now."""

from __future__ import annotations

from typing import Any

from alexsim.plan.records import OpKind

_NAMED = {str(kind): kind for kind in OpKind} | {"post": OpKind.POST, "wait": OpKind.WAIT}


def complete(document: dict[str, Any]) -> None:
    """Add to a checked document what its version did not write."""
    for span in (span for spans in document["spans"].values() for span in spans):
        _fill(span, _said_by(span["id"], span["device"]))
    for device in document["memory"]["devices"]:
        for one in device["alive_at_peak"]:
            _fill(one, {"label": one["name"].removeprefix(f"{device['name']}/")})
    for one in document["exchanges"]:
        way = f".{one['source']}-{one['target']}"
        _fill(one, {"label": one["name"].removesuffix(way)})


def _fill(found: dict[str, Any], said: dict[str, Any]) -> None:
    found |= {key: value for key, value in said.items() if found.get(key) is None}


def _said_by(name: str, device: str) -> dict[str, Any]:
    """Of an op's run, by its id: ``conv1.a.forward``, ``pool2.a.forward.gpu0-gpu1.post`` ..."""
    before, _, last = name.rpartition(".")
    # Of several inputs, each has a gradient with a number.
    kind = _NAMED.get(last.rstrip("0123456789"), OpKind.CLEAR)
    if ".barrier." in name:
        kind = OpKind.BARRIER
    index = device.removeprefix("gpu")
    return {
        "activity": kind.activity,
        "kind": str(kind),
        "layer": "" if kind in (OpKind.UPLOAD, OpKind.BARRIER) else name.partition(".")[0],
        "exchange": before if kind.activity == "exchange" else "",
        "device_index": int(index) if index.isdecimal() else -1,
    }
