"""A step's memory as the snapshot that ``torch.cuda.memory._dump_snapshot`` would write.

pytorch.org/memory_viz and ``python -m torch.cuda._memory_viz trace_plot`` draw it: here from the
plan alone, so that a step can be looked at before it runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

from alexsim.ledger.timeline import Holding, holdings
from alexsim.plan.plan import DevicePlan, Plan


def snapshot(plan: Plan) -> dict[str, Any]:
    """Every device's allocations, op by op; the number of an op stands for its time."""
    return {
        "segments": [_segment(index, device) for index, device in enumerate(plan.devices)],
        "device_traces": [_events(device) for device in plan.devices],
    }


def snapshot_bytes(plan: Plan) -> bytes:
    """The snapshot as a pickle of plain lists, dictionaries, strings and integers."""
    return pickle.dumps(snapshot(plan), protocol=4)


def _segment(index: int, device: DevicePlan) -> dict[str, Any]:
    """The arena and the room for scratch behind it, as they are after the last event."""
    blocks = list(_blocks(device))
    alive = sum(block["size"] for block in blocks if block["state"] == "active_allocated")
    return {
        "device": index,
        "address": 0,
        "total_size": device.total_bytes,
        "allocated_size": alive,
        "active_size": alive,
        "requested_size": alive,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": blocks,
    }


def _blocks(device: DevicePlan) -> Iterable[dict[str, Any]]:
    """What is alive after the last event, and the gaps between: readers go back from there."""
    reached = 0
    for address, holding in sorted(_placed(device), key=lambda placed: placed[0]):
        if holding.last + 1 < len(device.ops):
            continue
        if address > reached:
            yield _block("inactive", reached, address - reached, [])
        yield _block("active_allocated", address, holding.buffer.size_bytes, _frames(holding))
        reached = address + holding.buffer.size_bytes
    if device.total_bytes > reached:
        yield _block("inactive", reached, device.total_bytes - reached, [])


def _placed(device: DevicePlan) -> Iterable[tuple[int, Holding]]:
    """Everything that is held, with its address."""
    blocks = {block.name: block.offset_bytes for block in device.blocks}
    within: dict[str, int] = {}
    for holding in sorted(holdings(device), key=lambda h: (h.buffer.block, h.buffer.channel)):
        # Slices of a block may interleave in memory; here they lie one behind the other.
        block = holding.buffer.block
        yield blocks[block] + within.get(block, 0), holding
        within[block] = within.get(block, 0) + holding.buffer.size_bytes


def _events(device: DevicePlan) -> list[dict[str, Any]]:
    begins: dict[int, list[tuple[int, Holding]]] = {}
    ends: dict[int, list[tuple[int, Holding]]] = {}
    for address, holding in _placed(device):
        begins.setdefault(holding.first, []).append((address, holding))
        ends.setdefault(holding.last, []).append((address, holding))
    events = []
    for position, op in enumerate(device.ops):
        frames = [{"name": op.id, "filename": device.name, "line": position}]
        for address, holding in begins.get(position, ()):
            events.append(
                _event("alloc", address, holding.buffer.size_bytes, position, _frames(holding))
            )
        if op.scratch_bytes:
            scratch = [{"name": "scratch (workspace)", "filename": op.id, "line": position}]
            events += [
                _event(action, device.arena_bytes, op.scratch_bytes, position, scratch)
                for action in ("alloc", "free_requested", "free_completed")
            ]
        for address, holding in ends.get(position, ()):
            # What lives across steps stays.
            if position + 1 < len(device.ops):
                for action in ("free_requested", "free_completed"):
                    size = holding.buffer.size_bytes
                    events.append(_event(action, address, size, position, frames))
    return events


def _frames(holding: Holding) -> list[dict[str, Any]]:
    buffer = holding.buffer
    return [
        {"name": buffer.name, "filename": str(buffer.category), "line": holding.first},
        {"name": f"{buffer.category} of {buffer.layer}", "filename": buffer.device, "line": 0},
    ]


def _block(state: str, address: int, size: int, frames: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "address": address,
        "size": size,
        "requested_size": size,
        "state": state,
        "frames": frames,
    }


def _event(
    action: str, address: int, size: int, position: int, frames: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "action": action,
        "addr": address,
        "size": size,
        "stream": 0,
        "time_us": position,
        "frames": frames,
    }
