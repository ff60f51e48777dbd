"""The host's work to issue ops: when it shows, in sums, in fits and on the engine's clock."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexsim.costs.correction import UNFITTED, Waits, load_correction, paced, paced_by_host
from alexsim.costs.cost import Cost
from alexsim.editions.load import load_network
from alexsim.fidelity.fit import Observation, _Model
from alexsim.machine.machine import load_machine
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import simulate_network
from alexsim.simulate.timer import timer_of

SECONDS = st.sampled_from([0.0, 1e-6, 3e-6, 8e-6, 5e-5])
OPS = st.lists(
    st.tuples(SECONDS, st.lists(SECONDS, min_size=1, max_size=2)), min_size=1, max_size=9
)


def ops_of(times: list[tuple[float, list[float]]]) -> list[list[Cost]]:
    return [
        [*(Cost(k, "memory", ("memory",)) for k in kernels), Cost(host, "launch", ("overhead",))]
        for host, kernels in times
    ]


def followed_s(times: list[tuple[float, list[float]]]) -> float:
    """An op starts when it is issued, and those before it have ended."""
    issued, ended = 0.0, 0.0
    for host, kernels in times:
        issued += host
        ended = max(ended, issued) + sum(kernels)
    return ended


@given(OPS)
def test_pieces_that_set_the_pace_add_up_to_the_time_of_all(
    times: list[tuple[float, list[float]]],
) -> None:
    ops = ops_of(times)
    counted = UNFITTED.times(ops)
    assert math.fsum(map(math.fsum, counted)) == pytest.approx(followed_s(times), abs=1e-15)
    each_waited = UNFITTED.times(ops, waits="op")
    alone = [followed_s([each]) for each in times]
    assert [math.fsum(op) for op in each_waited] == pytest.approx(alone, abs=1e-15)
    loop = math.fsum(map(math.fsum, UNFITTED.times(ops, waits="never")))
    many = 2000
    assert loop == pytest.approx(followed_s(times * many) / many, rel=1e-2, abs=1e-7)


@given(
    st.lists(OPS, min_size=1, max_size=4),
    st.lists(st.sampled_from(["step", "op", "never"]), min_size=4, max_size=4),
)
def test_a_fit_counts_the_same_pieces(
    rows: list[list[tuple[float, list[float]]]], waits: list[Waits]
) -> None:
    rows = [row for row in rows if followed_s(row)] or [[(1e-6, [1e-6])]]
    observations = [
        Observation(id=str(i), ops=ops_of(row), waits=when, measured_s=1.0, noise=0.1)
        for i, (row, when) in enumerate(zip(rows, waits, strict=False))
    ]
    model = _Model(observations, ("memory", "overhead"), UNFITTED)
    design, logarithms = model.linearised(np.array([0.2, -0.3]))
    fitted = {"memory": 0.2, "overhead": -0.3}
    for place, each in enumerate(observations):
        scaled = [
            [cost.lasting(cost.seconds * math.exp(fitted[cost.traits[0]])) for cost in costs]
            for costs in each.ops
        ]
        times = UNFITTED.times(scaled, waits=each.waits)
        total = math.fsum(map(math.fsum, times))
        assert logarithms[place] == pytest.approx(math.log(total), abs=1e-9)
        # Shares of both add up; a tie may be counted either way.
        assert design[place].sum() == pytest.approx(1.0)


def simulated(name: str, batch: int) -> tuple[Simulation, list[list[Cost]]]:
    machine, correction = load_machine("rtx2080-ti"), load_correction()
    timer = timer_of("cudnn-v7", machine, correction)
    spec = PlanSpec(network=load_network(name), batch_size=batch)
    simulation = simulate_network(spec, timer, data="none")
    return simulation, []


@pytest.mark.parametrize(("name", "batch"), [("mobilenet_v2", 2), ("alexnet-owt", 128)])
def test_the_engine_takes_as_long_as_the_sums_say(name: str, batch: int) -> None:
    """Two roads: tasks on the engine's clock, and the largest sum of issues and kernels."""
    simulation, _ = simulated(name, batch)
    spans = sorted(simulation.trace.spans, key=lambda span: span.start_s)
    kernels = [s for s in spans if s.queue == "compute" and s.activity == "computing"]
    issues = {s.op_id.removeprefix("issue "): s for s in spans if s.queue == "issue"}
    assert issues
    upload_s = sum(s.duration_s for s in spans if s.activity == "upload")
    ended = upload_s
    for span in kernels:
        begun = max(ended, issues[span.op_id].end_s if span.op_id in issues else 0.0)
        assert span.start_s == pytest.approx(begun, rel=1e-9)
        ended = begun + span.duration_s
    assert simulation.step_s == pytest.approx(ended, rel=1e-6)
    waits = simulation.issue_s / simulation.step_s
    assert waits > 0.5 if batch == 2 else waits < 0.01
    assert sum(e.share for e in simulation.elasticities) == pytest.approx(1.0)


def test_what_sets_no_pace_takes_no_time() -> None:
    ops = ops_of([(5e-5, [1e-6]), (5e-5, [3e-4]), (1e-6, [1e-6])])
    times = [[cost.seconds for cost in costs] for costs in ops]
    assert paced_by_host(ops, times) == 1
    assert paced(ops, times) == [[0.0, 5e-5], [3e-4, 5e-5], [1e-6, 0.0]]
