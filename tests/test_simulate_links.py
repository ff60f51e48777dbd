"""Devices that are machines of their own, beyond a link: bounds that the clock must keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
from calibrations import calibrated
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.costs.correction import UNFITTED
from alexsim.costs.libraries import load_library
from alexsim.costs.measured import REST, Calibration, machine_of, signature
from alexsim.editions.load import load_network
from alexsim.machine.link import load_link
from alexsim.machine.machine import Machine
from alexsim.machine.sheet import Quantity
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import simulate
from alexsim.simulate.timer import Timer

OP_S, COPY_S, REST_S = 3e-3, 1e-3, 2e-3


def calibration(made: Plan) -> Calibration:
    """Every op takes 3 ms, every copy 1 ms."""
    images = made.batch_size
    parts = {(p.layer.name, p.column): p for ps in made.network.parts for p in ps}
    ops = {REST: ((images, images, REST_S),)}
    for op in made.ops():
        seconds = COPY_S if op.kind in (OpKind.POST, OpKind.WAIT) else OP_S
        name = signature(op, parts.get((op.layer, op.column)))
        ops[name] = ((images, images, seconds),)
    return calibrated(ops)


def on(made: Plan, machine: Machine) -> Simulation:
    timer = Timer(
        machine=machine, library=load_library("measured"), correction=UNFITTED,
        calibration=calibration(made),
    )  # fmt: skip
    return simulate(made, timer, data="none")


def linked(made: Plan, bytes_per_s: float, latency_s: float) -> Machine:
    link = load_link("10gbe")

    def spec(value: float) -> Quantity:
        return Quantity(value=value, kind="spec", source="a test")

    link = replace(
        link, bytes_per_s=spec(bytes_per_s), efficiency=spec(1.0), latency_s=spec(latency_s)
    )
    return replace(machine_of(calibration(made)), network=link)


@pytest.fixture(scope="module", params=["serial", "overlap"])
def made(request: pytest.FixtureRequest) -> Plan:
    network = load_network("alexnet-2012")
    return plan(network, batch_size=4, schedule=request.param, backend="aten")


def work_s(made: Plan, device: int) -> float:
    """What one device computes and copies; the first one also begins the step."""
    seconds = {OpKind.POST: COPY_S, OpKind.WAIT: COPY_S, OpKind.BARRIER: 0.0}
    total = sum(seconds.get(op.kind, OP_S) for op in made.devices[device].ops)
    return total + (REST_S if device == 0 else 0.0)


def test_devices_of_one_process_take_turns_and_machines_do_not(made: Plan) -> None:
    together = on(made, machine_of(calibration(made))).step_s
    assert together >= work_s(made, 0) + work_s(made, 1) - COPY_S * 2 * len(made.exchanges)
    apart = on(made, linked(made, 1e15, 0.0)).step_s
    assert max(work_s(made, 0), work_s(made, 1)) <= apart < together


@settings(max_examples=25, deadline=None)
@given(st.floats(1e5, 1e10), st.just(0.0) | st.floats(1e-12, 0.05))
def test_a_step_takes_at_least_what_its_links_and_devices_take(
    bytes_per_s: float, latency_s: float
) -> None:
    made = plan(load_network("alexnet-2012"), batch_size=4, backend="aten")
    found = on(made, linked(made, bytes_per_s, latency_s)).step_s
    for source in ("gpu0", "gpu1"):
        sent = sum(e.size_bytes for e in made.exchanges if e.source == source)
        assert found >= sent / bytes_per_s + latency_s
    assert found >= max(work_s(made, 0), work_s(made, 1)) - 1e-9
    barriers = sum(op.kind == OpKind.BARRIER for op in made.devices[0].ops)
    # And at most everything one after the other.
    most = work_s(made, 0) + work_s(made, 1) + made.exchanged_bytes / bytes_per_s
    assert found <= most + (barriers + 3 + len(made.exchanges)) * latency_s + 1e-6


def test_a_slower_link_never_makes_a_step_faster(made: Plan) -> None:
    steps = [on(made, linked(made, rate, 1e-4)).step_s for rate in (1e9, 1e8, 1e7, 1e6)]
    assert steps == sorted(steps)
    assert steps[-1] > 2 * steps[0]
    waits = [on(made, linked(made, 1e9, latency)).step_s for latency in (0, 1e-3, 1e-2)]
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]


def test_a_step_takes_as_many_journeys_as_messages_wait_for_each_other() -> None:
    """A barrier is one, at which what was posted before it has come too; the loss, broken files and
    whether to stop are two each, because gloo asks before it sends."""
    made = plan(load_network("alexnet-2012"), batch_size=4, backend="aten")
    journey_s = 1e3
    barriers = sum(op.kind == OpKind.BARRIER for op in made.devices[0].ops)
    assert barriers == 11
    step_s = on(made, linked(made, 1e15, journey_s)).step_s
    assert step_s == pytest.approx((barriers + 3 * 2) * journey_s, rel=1e-3)
