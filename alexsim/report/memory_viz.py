"""A step's memory as the snapshot that ``torch.cuda.memory._dump_snapshot`` would write.

pytorch.org/memory_viz and ``python -m torch.cuda._memory_viz trace_plot`` draw it: here from the
plan alone, so that a step can be looked at before it runs.
"""

from __future__ import annotations

import pickle
from typing import Any

from alexsim.plan.records import DevicePlan, Plan
from alexsim.plan.timeline import Holding, holdings


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
    """The arena at its fullest, and the room for scratch behind it."""
    return {
        "device": index,
        "address": 0,
        "total_size": device.total_bytes,
        "allocated_size": device.total_bytes,
        "active_size": device.total_bytes,
        "requested_size": device.total_bytes,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": [],
        "blocks": [
            {
                "address": 0,
                "size": device.total_bytes,
                "requested_size": device.total_bytes,
                "state": "active_allocated",
                "frames": [],
            }
        ],
    }


def _events(device: DevicePlan) -> list[dict[str, Any]]:
    blocks = {block.name: block.offset_bytes for block in device.blocks}
    held = holdings(device)
    begins: dict[int, list[tuple[int, Holding]]] = {}
    ends: dict[int, list[tuple[int, Holding]]] = {}
    within: dict[str, int] = {}
    for one in sorted(held, key=lambda one: (one.buffer.block, one.buffer.channel)):
        # Slices of one block may interleave in memory; here they lie one behind the other.
        block = one.buffer.block
        address = blocks[block] + within.get(block, 0)
        within[block] = within.get(block, 0) + one.buffer.size_bytes
        begins.setdefault(one.first, []).append((address, one))
        ends.setdefault(one.last, []).append((address, one))
    events = []
    for position, op in enumerate(device.ops):
        frames = [{"name": op.id, "filename": device.name, "line": position}]
        for address, one in begins.get(position, ()):
            events.append(_event("alloc", address, one.buffer.size_bytes, position, _frames(one)))
        if op.scratch_bytes:
            scratch = [{"name": "scratch (workspace)", "filename": op.id, "line": position}]
            events += [
                _event(action, device.arena_bytes, op.scratch_bytes, position, scratch)
                for action in ("alloc", "free_requested", "free_completed")
            ]
        for address, one in ends.get(position, ()):
            # What lives across steps stays.
            if position + 1 < len(device.ops):
                for action in ("free_requested", "free_completed"):
                    size = one.buffer.size_bytes
                    events.append(_event(action, address, size, position, frames))
    return events


def _frames(one: Holding) -> list[dict[str, Any]]:
    buffer = one.buffer
    return [
        {"name": buffer.name, "filename": str(buffer.category), "line": one.first},
        {"name": f"{buffer.category} of {buffer.layer}", "filename": buffer.device, "line": 0},
    ]


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
