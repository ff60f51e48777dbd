"""Documents of earlier versions: what they said in names alone, as the fields that say it now."""

from __future__ import annotations

from typing import Any, TypeVar

from alexsim.documents.base import Part
from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.step import DeviceMemory, PlannedTransfer, SpanTimes
from alexsim.plan.plan import OpKind

_NAMED = {str(kind): kind for kind in OpKind} | {"post": OpKind.POST, "wait": OpKind.WAIT}
_Part = TypeVar("_Part", bound=Part)


def complete(document: PlanDocument) -> PlanDocument:
    """With what its version did not write."""
    spans: dict[str, Any] = {"simulated": tuple(map(_span, document.spans.simulated))}
    if isinstance(document, ProfileDocument):
        spans["measured"] = tuple(map(_span, document.spans.measured))
    devices = tuple(map(_device, document.memory.devices))
    return document.model_copy(
        update={
            "spans": document.spans.model_copy(update=spans),
            "memory": document.memory.model_copy(update={"devices": devices}),
            "exchanges": tuple(map(_transfer, document.exchanges)),
        }
    )


def _filled(part: _Part, said: dict[str, Any]) -> _Part:
    missing = {key: value for key, value in said.items() if key not in part.model_fields_set}
    return part.model_copy(update=missing) if missing else part


def _device(device: DeviceMemory) -> DeviceMemory:
    alive = tuple(
        _filled(buffer, {"label": buffer.name.removeprefix(f"{device.name}/")})
        for buffer in device.alive_at_peak
    )
    return device.model_copy(update={"alive_at_peak": alive})


def _transfer(transfer: PlannedTransfer) -> PlannedTransfer:
    way = f".{transfer.source}-{transfer.target}"
    return _filled(transfer, {"label": transfer.name.removesuffix(way)})


def _span(span: SpanTimes) -> SpanTimes:
    """By an op's id: ``conv1.a.forward``, ``pool2.a.forward.gpu0-gpu1.post`` ..."""
    before, _, last = span.id.rpartition(".")
    # Of several inputs, each has a gradient with a number.
    kind = _NAMED.get(last.rstrip("0123456789"), OpKind.CLEAR)
    if ".barrier." in span.id:
        kind = OpKind.BARRIER
    index = span.device.removeprefix("gpu")
    return _filled(
        span,
        {
            "activity": kind.activity,
            "kind": str(kind),
            "layer": "" if kind in (OpKind.UPLOAD, OpKind.BARRIER) else span.id.partition(".")[0],
            "exchange": before if kind.activity == "exchange" else "",
            "device_index": int(index) if index.isdecimal() else -1,
        },
    )
