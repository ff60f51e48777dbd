"""What a device holds while each op runs, against sums over its buffers one by one."""

from __future__ import annotations

import pytest
from chains import CHAINS
from drawn import networks
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.editions.load import load_network
from alexsim.ledger.tables import memory_table
from alexsim.ledger.timeline import Moment, holdings, memory_timeline
from alexsim.network.network import Network
from alexsim.plan.plan import Buffer, DevicePlan, Plan
from alexsim.plan.planner import plan

POLICIES = ("as-released", "in-place", "reuse")


def sharers(made: Plan, device: DevicePlan) -> list[list[Buffer]]:
    """Buffers that overwrite one another, found by following ``shares``."""
    by_name = {buffer.name: buffer for buffer in device.buffers}
    groups: dict[str, list[Buffer]] = {}
    for buffer in device.buffers:
        root = buffer
        while root.shares in by_name:
            root = by_name[root.shares]
        # Gradients land one at a time, all in the same place, unless places are packed.
        landing = made.spec.policy != "reuse" and buffer.category == "workspace"
        groups.setdefault("landing" if landing else root.name, []).append(buffer)
    return list(groups.values())


def alive(made: Plan, device: DevicePlan, position: int) -> dict[str, int]:
    """Bytes by category while an op runs, summed anew for it."""
    found: dict[str, int] = {}
    for group in sharers(made, device):
        if min(b.first for b in group) <= position <= max(b.last for b in group):
            size = max(buffer.size_bytes for buffer in group)
            largest = [buffer for buffer in group if buffer.size_bytes == size]
            owner = next((b for b in largest if not b.shares), largest[0])
            found[owner.category] = found.get(owner.category, 0) + size
    scratch = device.ops[position].scratch_bytes
    if scratch:
        found["workspace"] = found.get("workspace", 0) + scratch
    return found


def assert_agrees(made: Plan) -> None:
    """The timeline is what sums, op by op, over lists of buffers give; nothing touched is dead."""
    for device, table in zip(made.devices, memory_table(made), strict=True):
        moments = memory_timeline(device)
        assert [moment.op_id for moment in moments] == [op.id for op in device.ops]
        for position, moment in enumerate(moments):
            assert moment.by_category == alive(made, device, position), moment.op_id
        assert_touched_is_held(device)
        assert_peak_is_the_plan_s(device, moments, table.by_category)


def assert_touched_is_held(device: DevicePlan) -> None:
    held = holdings(device)
    sizes = [one.buffer.size_bytes for one in held]
    assert sizes == sorted(sizes, reverse=True)
    place = {(one.buffer.block, one.buffer.channel): one for one in held}
    assert len(place) == len(held)
    buffers = {buffer.name: buffer for buffer in device.buffers}
    touched = [
        (position, buffers[name])
        for position, op in enumerate(device.ops)
        for name in (*op.reads, *op.writes)
        if name in buffers
    ]
    assert touched
    for position, buffer in touched:
        one = place[buffer.block, buffer.channel]
        assert one.first <= position <= one.last, (position, buffer.name)
        assert one.buffer.size_bytes >= buffer.size_bytes


def assert_peak_is_the_plan_s(
    device: DevicePlan, moments: tuple[Moment, ...], table: dict[str, int]
) -> None:
    without = [
        moment.total_bytes - op.scratch_bytes
        for moment, op in zip(moments, device.ops, strict=True)
    ]
    assert max(without) == device.live_peak_bytes
    assert max(moment.total_bytes for moment in moments) <= device.total_bytes
    # The table has the most scratch of any op, the fullest op its own.
    peak = without.index(max(without))
    at_peak = {one.buffer.name for one in holdings(device) if one.first <= peak <= one.last}
    assert at_peak == set(device.resident)
    by_category = dict(moments[peak].by_category)
    by_category["workspace"] = (
        by_category.get("workspace", 0) - device.ops[peak].scratch_bytes + device.scratch_bytes
    )
    planned = {key: size for key, size in table.items() if key not in ("padding", "context")}
    assert {k: v for k, v in by_category.items() if v} == {k: v for k, v in planned.items() if v}


@pytest.mark.parametrize("name", CHAINS)
def test_every_edition_holds_what_its_buffers_say(name: str) -> None:
    network = load_network(name)
    for backend in ("", "aten"):
        for policy in POLICIES:
            for gpus in {1, network.columns}:
                assert_agrees(
                    plan(network, gpus=gpus, batch_size=2, policy=policy, backend=backend)
                )


@given(
    network=networks(),
    one=st.booleans(),
    schedule=st.sampled_from(["serial", "overlap"]),
    policy=st.sampled_from(POLICIES),
    backend=st.sampled_from(["", "aten"]),
)
@settings(max_examples=60, deadline=None)
def test_any_chain_holds_what_its_buffers_say(
    network: Network, one: bool, schedule: str, policy: str, backend: str
) -> None:
    assert_agrees(
        plan(
            network,
            gpus=1 if one else None,
            batch_size=3,
            schedule=schedule,
            policy=policy,
            backend=backend,
        )
    )


def test_memory_moves_only_where_it_is_reused() -> None:
    network = load_network("alexnet-2012")
    for policy in POLICIES:
        for device in plan(network, batch_size=2, policy=policy, backend="aten").devices:
            totals = {
                moment.total_bytes - op.scratch_bytes
                for moment, op in zip(memory_timeline(device), device.ops, strict=True)
            }
            assert (len(totals) > 10) if policy == "reuse" else (len(totals) == 1)
