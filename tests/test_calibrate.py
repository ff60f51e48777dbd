"""Calibrations: times by chunks, replicas, cards; and what measures them, with a card's clock faked
where there is none."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from calibrations import BYTES_PER_S, LATENCY_S, calibrated
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.costs.correction import UNFITTED
from alexsim.costs.libraries import load_library
from alexsim.costs.measured import (
    ACROSS,
    MOST_SCATTER,
    REST,
    Calibration,
    in_chunks,
    machine_of,
    signature,
)
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, MeasurementError, PlanError, ProfileError
from alexsim.execute.aten.chunks import chunks
from alexsim.fidelity.kernel_calls import call_of
from alexsim.fidelity.kernel_fields import device_of
from alexsim.fidelity.kernel_rows import read_kernels
from alexsim.machine.link import load_link
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile import clock as clocks
from alexsim.profile import microbench, others
from alexsim.profile.calibrate import _scatter, calibrate
from alexsim.profile.clock import Clock, clocks_text
from alexsim.profile.microbench import cudnn_version, kernel_rows, network_rates, usual_rates
from alexsim.profile.nvml import Sample
from alexsim.profile.sittings import Bench, Round
from alexsim.report.rows import csv_text
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import simulate_network
from alexsim.simulate.timer import Timer

OP_S, REST_S, HALF_S = 3e-3, 2e-3, 5e-3


# Times by chunks


def test_whole_ops_lie_on_the_lines_between_measurements() -> None:
    points = ((10, 10, 2.0), (20, 20, 3.0), (40, 40, 9.0))
    at = {images: in_chunks(points, images, images) for images in (5, 10, 15, 20, 30, 40, 50)}
    assert at == {5: 1.5, 10: 2.0, 15: 2.5, 20: 3.0, 30: 6.0, 40: 9.0, 50: 12.0}
    with pytest.raises(ProfileError, match="no measurement of 'b'"):
        calibrated({"a": points}).seconds("b", 10, 10)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 1), st.floats(1e-3, 1), st.integers(0, 6),
    st.lists(st.integers(1, 200), min_size=2, max_size=4, unique=True), st.integers(1, 300),
)  # fmt: skip
def test_an_op_takes_what_its_chunks_take(
    fixed_s: float, image_s: float, most: int, measured: list[int], images: int
) -> None:
    """By the executor's own slices, if a chunk takes a constant and so much per image. Two sizes of
    chunks must have been measured to tell both: a chunk of 1 is one, where images are few."""

    def size(count: int) -> int:
        return min(1 << most, 1 << (count.bit_length() - 1))

    def seconds(count: int) -> float:
        slices = chunks(count, size(count))
        return sum(fixed_s + image_s * (part.stop - part.start) for part in slices)

    points = [(known, size(known), seconds(known)) for known in sorted({1, 2, 4, *measured})]
    assert in_chunks(points, images, size(images)) == pytest.approx(seconds(images))
    for known, chunk, taken_s in points:
        assert in_chunks(points, known, chunk) == pytest.approx(taken_s)


def test_twelve_images_in_chunks_of_eight_are_no_middle_of_eight_and_sixteen() -> None:
    points = ((4, 4, 5.0), (8, 8, 8.0), (16, 16, 12.0))
    assert in_chunks(points, 12, 8) == 13.0
    assert in_chunks(points, 12, 12) == 10.0
    with pytest.raises(ProfileError, match="both sides of 8"):
        calibrated({"forward winograd": points}).seconds("forward direct", 8, 8)


def test_an_op_by_another_algorithm_is_another_op() -> None:
    """Winograd's method takes many images: what was timed with few says nothing of it."""
    few, many = (
        {op.id: (signature(op, made.part(op)), op.algorithm) for op in made.ops() if op.layer}
        for made in (
            plan(load_network("alexnet-2012"), batch_size=size, backend="aten") for size in (8, 16)
        )
    )
    algorithms = {many[name][1] for name in few if few[name][0] != many[name][0]}
    assert algorithms == {"winograd"}
    assert all(few[name][1] == many[name][1] for name in few if few[name][0] == many[name][0])


# Replicas, machines, cards


def known_ops(made: Plan) -> Calibration:
    """Every op takes 3 ms at the plan's images, on two of four threads 5 ms."""
    images = made.batch_size
    parts = {(p.layer.name, p.column): p for ps in made.network.parts for p in ps}
    ops = {REST: [(images, images, REST_S)]}
    for op in made.ops():
        if op.kind not in (OpKind.BARRIER, OpKind.ALL_REDUCE):
            ops[signature(op, parts.get((op.layer, op.column)))] = [(images, images, OP_S)]
    half = dict.fromkeys(ops, ((images, images, HALF_S),))
    return calibrated(ops, half_ops=half, threads=4)


def spec(replicas: int, **choices: object) -> PlanSpec:
    network = load_network("lenet-5")
    choices = {"batch_size": 8 * replicas, "replicas": replicas} | choices
    return PlanSpec(network=network, **choices)


def on(known: Calibration, wanted: PlanSpec, network: str = "", **link: float) -> Simulation:
    joined = load_link(network) if network else None
    if joined:
        joined = joined.changed(**link)
    timer = Timer(
        machine=machine_of(known, joined), library=load_library("measured"), correction=UNFITTED,
        calibration=known,
    )  # fmt: skip
    return simulate_network(wanted, timer, data="none")


@pytest.fixture(scope="module")
def replica() -> Plan:
    return plan(spec(2, backend="aten"))


def sums_s(made: Plan, count: int) -> float:
    """Two rounds per other process, each to memory that all share and back again."""
    sizes = [op.count.moved_bytes for op in made.ops() if op.kind == OpKind.ALL_REDUCE]
    rate = min(BYTES_PER_S, 2 * BYTES_PER_S / count)
    ring = [2 * (count - 1) * (LATENCY_S / 2 + size / count / rate) for size in sizes]
    levels = 2 * math.ceil(math.log2(count))
    tree = [levels * (LATENCY_S / 2 + size / rate) for size in sizes]
    return sum(map(min, ring, tree))


@pytest.mark.parametrize(("count", "times"), [(2, 1), (3, 2), (4, 2), (8, 4)])
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_replicas_share_the_cores_and_sum(
    replica: Plan, count: int, times: int, schedule: str
) -> None:
    """Of four threads two replicas have two each, three and four one each, and eight take turns."""
    known = known_ops(replica)
    ops = sum(op.kind != OpKind.ALL_REDUCE for op in replica.ops())
    work_s = times * HALF_S * (ops + 1)
    found = on(known, spec(count, schedule=schedule))
    assert found.step_s == pytest.approx(work_s + sums_s(replica, count), rel=1e-6)
    assert found.devices_count == count
    # The same replicas as GPUs of a network of one column.
    as_gpus = spec(1, partition="replicas", gpus=count, batch_size=8 * count, schedule=schedule)
    assert on(known, as_gpus).step_s == pytest.approx(found.step_s)


def test_machines_do_not_take_turns_and_wait_for_a_slow_link(replica: Plan) -> None:
    known = known_ops(replica)
    here = on(known, spec(4))
    rates = (1e12, 1e9, 1e8, 1e7)
    steps = [on(known, spec(4), "10gbe", bytes_per_s=rate, efficiency=1.0) for rate in rates]
    took = [found.step_s for found in steps]
    assert took == sorted(took)
    alone_s = (sum(op.kind != OpKind.ALL_REDUCE for op in replica.ops())) * OP_S + REST_S
    assert alone_s <= took[0] < here.step_s / 2
    # What a ring of four sends of all gradients: 3/4 of them, twice.
    gradients = replica.reduced_bytes
    assert took[-1] >= 1.5 * gradients / rates[-1]
    waits = [on(known, spec(4), "10gbe", latency_s=latency).step_s for latency in (0, 1e-3, 1e-2)]
    assert waits == sorted(waits)
    # Layers with weights are summed by a tree of two levels, up and down; at the end of a step
    # three results cross, each after a question for it.
    journeys = 4 * len(replica.network.weighted_layers) + 3 * 2
    step_s = on(known, spec(4), "10gbe", bytes_per_s=1e15, latency_s=1e3).step_s
    assert step_s == pytest.approx(1e3 * journeys, rel=1e-3)


def test_a_card_computes_alone_and_sums_over_its_links(replica: Plan) -> None:
    known = replace(known_ops(replica), device="cuda", cards=4, multiprocessors=132)
    alone_s = sum(op.kind != OpKind.ALL_REDUCE for op in replica.ops()) * OP_S + REST_S
    found = on(known, spec(4))
    # All gradients cross every link one and a half times, if nothing is lost.
    assert found.step_s > alone_s + 1.5 * replica.reduced_bytes / BYTES_PER_S
    faster = [
        replace(rate, seconds=rate.seconds / 10, per_second=10 * rate.per_second)
        if rate.what == ACROSS
        else rate
        for rate in known.rates
    ]
    assert alone_s < on(replace(known, rates=tuple(faster)), spec(4)).step_s < found.step_s
    # A card computes by itself, however many others do.
    assert found.layers == on(known, spec(2)).layers
    with pytest.raises(PlanError, match=r"has 4 device\(s\) and no network; 8 are asked for"):
        on(known, spec(8))
    assert on(known, spec(8), "10gbe").step_s > found.step_s


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"partition": "hybrid", "gpus": 2}, "that hybrid plans split"),
        ({"optimizer": "adamw", "replicas": 2}, "not of adamw's"),
    ],
)
def test_what_was_not_measured_is_refused(
    replica: Plan, choices: dict[str, object], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        on(known_ops(replica), replace(spec(1, batch_size=16), **choices))


# Measuring


@pytest.fixture(scope="module")
def measured() -> Calibration:
    """Two columns on this CPU, as far as a test needs it."""
    network = load_network("lenet-5")
    bench = Bench(PlanSpec(network=network, backend="native"), [2, 4], copies=[2, 4])
    known, _ = calibrate(bench, [2, 4], rounds=2, threads=1)
    return known


@pytest.mark.parametrize("replicas", [1, 2, 5])
def test_every_op_of_a_replica_has_a_time(measured: Calibration, replicas: int) -> None:
    made = plan(spec(replicas, batch_size=3 * replicas, backend=measured.backend))
    names = {
        signature(op, made.part(op) if op.layer else None)
        for op in made.ops()
        if op.kind not in (OpKind.BARRIER, OpKind.ALL_REDUCE)
    }
    assert names <= measured.ops.keys()
    assert all(measured.seconds(name, 3, 3, replicas=replicas) > 0 for name in names)


def test_what_others_take_of_the_cores_is_neither_ours_nor_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(others, "_STAT", stat)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    ticks = os.sysconf("SC_CLK_TCK")

    def at(time_s: float, busy_s: float, ours_s: float) -> others.Moment:
        stat.write_text(f"cpu  {int(ticks * busy_s)} 0 0 {int(ticks * 99)} 7 0 0 0 5 5\ncpu0 1\n")
        return replace(others.Moment.now(), time_s=time_s, ours_s=ours_s)

    begin = at(0, 10, 1)
    assert begin.all_s == 10
    # Two cores for ten seconds: we took twelve of the twenty, others four, and four were idle.
    assert at(10, 26, 13).others_share(begin) == pytest.approx(4 / 20, abs=1 / ticks)
    assert at(10, 22, 13).others_share(begin) == 0
    stat.unlink()
    assert others.Moment.now().others_share(others.Moment.now()) == 0


class FakeEvent:
    """As ``torch.cuda.Event``: a card on which every call takes a millisecond."""

    calls = 0

    def __init__(self, **_: bool) -> None:
        self._at = 0

    def record(self) -> None:
        self._at = FakeEvent.calls

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: FakeEvent) -> float:
        return float(end._at - self._at)


def test_a_card_is_timed_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def run() -> None:
        FakeEvent.calls += 1

    before = FakeEvent.calls
    assert Clock("cuda").seconds(run) == pytest.approx(1e-3)
    # A warm-up, one to learn how long it takes, and 20 ms of calls in a row each time.
    assert FakeEvent.calls - before == 2 + clocks.REPEATS * 20
    # The host's clock sees no card work.
    assert Clock("cpu").seconds(run) < 1e-4
    assert Clock("cuda").alone_s(run) < 1e-3


def test_clocks_are_the_medians_of_the_card_that_worked() -> None:
    sample = Sample(
        time_s=0, card=0, utilisation=1, memory_bytes=1, power_w=1, sm_mhz=1, memory_mhz=None,
        pcie_sent_bytes_per_s=None, pcie_received_bytes_per_s=None,
    )  # fmt: skip
    samples = [replace(sample, sm_mhz=mhz) for mhz in (1980, 1965, 1980)]
    samples += [replace(sample, sm_mhz=345, utilisation=0.1)] * 9
    samples.append(replace(sample, card=1, sm_mhz=9999, memory_mhz=9999))
    assert clocks_text(samples, "") == "SM 1980 MHz (medians, by NVML)"
    assert clocks_text(samples[-2:-1], "") == "SM 345 MHz (medians, by NVML)"
    assert clocks_text([], "no pynvml") == "clocks unknown: no pynvml"
    with clocks.watched("cuda") as said:
        pass
    assert said()
    with clocks.watched("cpu") as said:
        pass
    assert not said()


def test_rows_of_kernels_are_read_as_the_work_that_was_timed(
    measured: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate that a calibration shows, and a row's columns as predictions read them, as if it
    were of a known card. Nothing is computed."""
    monkeypatch.setitem(microbench._SIZES, "meta", ((256, 512), 4))
    times = count(1)
    monkeypatch.setattr(Clock, "seconds", lambda self, run: 1e-3 * next(times))
    monkeypatch.setattr(Clock, "alone_s", Clock.seconds)
    # cuDNN's default, which would not be the float32 that rows say.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    kernels = [*network_rates(load_network("resnet18"), "meta"), *usual_rates("meta")]
    assert not torch.backends.cudnn.allow_tf32
    known = replace(measured, machine="Tesla T4", clocks="SM 1005 MHz, memory 5000 MHz")
    path = tmp_path / "rows.csv"
    path.write_text(csv_text(kernel_rows(kernels, known)))
    seen = Counter()
    for row, kernel in zip(read_kernels(str(path)), kernels, strict=True):
        assert row.time_s == pytest.approx(kernel.rate.seconds, rel=1e-5)
        seen[row.op] += 1
        if row.op == "launch":
            continue
        work = kernel.rate.seconds * kernel.rate.per_second
        assert call_of(row).flop == pytest.approx(work if kernel.rate.unit == "FLOP" else 0)
    assert min(seen[op] for op in ("launch", "stream", "linear")) >= 2
    assert seen["conv"] > 60
    card = device_of("Tesla T4", known.clocks)
    assert card.clock_hz.value == 1005e6
    assert [cudnn_version(number) for number in (91002, 8902, 7605)] == ["9.10.2", "8.9.2", "7.6.5"]


def test_steps_that_say_nothing_are_no_calibration() -> None:
    """What is written can be read: the bound of both is one."""

    def rounds(*seconds: float) -> dict[int, list[Round]]:
        return {4: [Round(batch_size=4, step_s=s, ops={}, disturbed=True) for s in seconds]}

    assert 0 < _scatter(rounds(1, 1, 2, 1, 0.5, 1, 1)) < MOST_SCATTER
    with pytest.raises(MeasurementError, match=r"up to 20\.0 times off .* Nothing was written"):
        _scatter(rounds(1, 20, 10, 1, 1, 1, 15))


def test_rounds_are_measured_in_several_places_and_again_if_disturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    runs: Counter[int] = Counter()

    class Fake:
        """A step whose every third run is disturbed; of 4 images, every one."""

        def __init__(self, of: Plan, *_: object) -> None:
            self.plan, self.device, self.executor = of, "cpu", SimpleNamespace(state=dict)
            made.append(of.batch_size)

        def __call__(self) -> Round:
            size = self.plan.batch_size
            runs[size] += 1
            disturbed = size == 4 or runs[size] % 3 == 0
            return Round(batch_size=size, step_s=1.0, ops={}, disturbed=disturbed)

    monkeypatch.setattr("alexsim.profile.sittings.Step", Fake)
    network = load_network("lenet-5")
    bench = Bench(PlanSpec(network=network, policy="reuse", backend="aten"), [2, 4])
    measured = bench.rounds(list(bench.plans.values()), 5)
    # Three sittings, of two rounds, two, and one; each begins with a step that is not looked at.
    assert made == 3 * [2, 4]
    assert {size: len(rounds) for size, rounds in measured.items()} == {2: 5, 4: 5}
    assert not any(each.disturbed for each in measured[2])
    assert all(each.disturbed for each in measured[4])
    assert runs[4] == 3 + 5 + 5


def test_memory_that_a_card_has_not_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("alexsim.profile.sittings.Step", full)
    network = load_network("lenet-5")
    bench = Bench(
        PlanSpec(network=network, gpus=1, policy="reuse", backend="aten"), [2, 4], device="cuda"
    )
    with pytest.raises(AlexsimError, match="steps of 2, 4 images do not fit on the card"):
        bench.steps(list(bench.plans.values()))


@pytest.mark.gpu
def test_a_card_is_calibrated_as_a_cpu_is(tmp_path: Path) -> None:
    from alexsim.cli.app import main
    from alexsim.costs.measured import read

    path, rows = tmp_path / "card.json", tmp_path / "rows.csv"
    with pytest.raises(SystemExit) as ended:
        main(
            "check calibrate --net resnet18 --device cuda --batches 16,32,64 --check 48"
            f" --rounds 10 --rows {rows} -o {path}".split()
        )
    assert not ended.value.code
    known = read(str(path))
    assert known.device == "cuda"
    assert known.cards == torch.cuda.device_count()
    assert known.flop_per_s > 1e12
    found = list(csv.DictReader(rows.read_text("utf-8").splitlines()))
    assert {"memcpy", "conv", "launch"} <= {row["op"] for row in found}
    one = on(known, PlanSpec(network=load_network("resnet18"), batch_size=48))
    assert 1e-3 < one.step_s < 1
    bench = Bench(
        PlanSpec(network=load_network("resnet18"), gpus=1, backend="aten"), [48], device="cuda"
    )
    (step,) = bench.steps([bench.plans[48]])
    times = sorted(step().step_s for _ in range(15))
    assert one.step_s == pytest.approx(times[7], rel=0.1)
