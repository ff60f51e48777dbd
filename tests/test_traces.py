"""Steps as Chrome traces: events that readers accept, times and counts that are the plan's."""

from __future__ import annotations

import gzip
import json
import math
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.ledger.timeline import memory_timeline
from alexsim.machine.machine import load_machine
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile import profiler
from alexsim.profile.profiler import Underlay
from alexsim.profile.step_profile import StepProfile
from alexsim.report.chrome_trace import (
    Clock,
    both_clocks,
    chrome_trace,
    packed,
    rank_traces,
    repeated,
)
from alexsim.report.trace_ops import launches
from alexsim.simulate.simulator import on_machine, planned
from alexsim.trace import Trace
from alexsim.units import MIB

Event = dict[str, Any]
Profiled = tuple[StepProfile, Underlay]
TORCH = 100
"""First thread of ``torch.profiler``'s events."""
FAST = ("--net", "lenet-5", "--batch", "2", "--rounds", "1", "--threads", "1")


@pytest.fixture(scope="module", params=["lenet", "two_gpus"])
def found(request: pytest.FixtureRequest) -> Profiled:
    return request.getfixturevalue(request.param)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def unpacked(path: Path) -> Event:
    return json.loads(gzip.decompress(path.read_bytes()))


def whole(found: Profiled) -> list[Event]:
    profile, under = found
    return chrome_trace(both_clocks(profile, under.events))["traceEvents"]


def simulated(**choices: Any) -> Clock:
    wanted = PlanSpec(network=load_network("alexnet-2012"), gpus=None, **choices)
    machine = load_machine("gtx580x2")
    trace = on_machine(wanted, machine).trace
    return Clock(name="simulated", plan=planned(wanted, machine), trace=repeated(trace, 2))


def ns(event: Event) -> tuple[int, int]:
    """Start and end in whole nanoseconds, which is how far the times are written."""
    start, length = round(1e3 * event["ts"]), round(1e3 * event.get("dur", 0))
    assert 1e3 * event["ts"] == pytest.approx(start, abs=1e-3)
    return start, start + length


def threads(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """Slices by thread, outer before inner."""
    found: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        if event["ph"] == "X":
            found.setdefault((event["pid"], event["tid"]), []).append(event)
    for slices in found.values():
        slices.sort(key=lambda event: (ns(event)[0], -ns(event)[1]))
    return found


def open_slice(slices: list[Event], when: int) -> Event:
    """The slice that began last and is not over: the one to which Perfetto ties an arrow."""
    stack: list[Event] = []
    for event in slices:
        start, _ = ns(event)
        if start > when:
            break
        while stack and ns(stack[-1])[1] <= start:
            stack.pop()
        stack.append(event)
    return stack[-1]


def ops_of(events: list[Event]) -> dict[tuple[str, str, int], Event]:
    """Slices of ops, by process name, op and step."""
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    slices = [event for event in events if event["ph"] == "X" and "op" in event.get("args", {})]
    found = {(names[e["pid"]], e["args"]["op"], e["args"]["step"]): e for e in slices}
    assert len(found) == len(slices)
    return found


def test_typed_are_chrome_traces(found: Profiled) -> None:
    profile, under = found
    clocks = both_clocks(profile, under.events)
    documents = [chrome_trace(clocks), *rank_traces(clocks[0]), *rank_traces(clocks[1])]
    for document in documents:
        assert json.loads(gzip.decompress(packed(document))) == document
        # A packed file bears its time in these bytes, unless it is to be the same every time.
        assert packed(document)[4:8] == bytes(4)
        events = document["traceEvents"]
        assert {event["ph"] for event in events} - {"s", "f"} == {"X", "M", "C"}
        processes = [e["pid"] for e in events if e["name"] == "process_name"]
        named = [(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"]
        assert len(set(processes)) == len(processes)
        assert len(set(named)) == len(named)
        for event in events:
            assert isinstance(event["pid"], int)
            assert isinstance(event["tid"], int)
            assert event["pid"] in processes
            if event["ph"] != "M":
                assert math.isfinite(event["ts"])
                assert event["ts"] >= 0
                # A counter belongs to its process.
                assert event["ph"] == "C" or (event["pid"], event["tid"]) in named
            if event["ph"] == "X":
                assert math.isfinite(event["dur"])
                assert event["dur"] >= 0
    assert documents[0]["distributedInfo"] == {"rank": 0, "world_size": 1, "backend": "alexsim"}
    labels = [e["args"]["name"] for e in documents[0]["traceEvents"] if e["name"] == "process_name"]
    devices = [device.name for device in profile.plan.devices]
    assert [label.partition(" (")[0] for label in labels] == 2 * devices
    assert len(set(labels)) == len(labels)


def test_slices_of_a_thread_follow_one_another_or_lie_in_their_step(found: Profiled) -> None:
    profile, under = found
    clocks = both_clocks(profile, under.events)
    for document in (chrome_trace(clocks), *rank_traces(clocks[0]), *rank_traces(clocks[1])):
        ours = {
            key: slices
            for key, slices in threads(document["traceEvents"]).items()
            if key[1] < TORCH
        }
        assert {tid for _, tid in ours} == {1, 7}
        for slices in ours.values():
            stack: list[Event] = []
            for event in slices:
                start, end = ns(event)
                while stack and ns(stack[-1])[1] <= start:
                    stack.pop()
                if stack:
                    assert end <= ns(stack[-1])[1], (event, stack[-1])
                    # What takes no time may stand where what follows it begins.
                    in_step = stack[-1].get("cat") in ("user_annotation", "gpu_user_annotation")
                    assert in_step or start == end
                stack.append(event)


def test_slices_last_as_long_as_their_spans(found: Profiled) -> None:
    profile, _ = found
    events = whole(found)
    slices = ops_of(events)
    seen = 0
    for clock in both_clocks(profile):
        assert len(clock.trace.step_s()) == profile.rounds + 1
        bounds = clock.trace.bounds()
        begins, reached = {}, 0.0
        for step, (low, high) in bounds.items():
            begins[step] = reached - low
            reached += high - low
        for span in clock.trace.spans:
            event = slices[f"{span.device} ({clock.name})", span.op_id, span.step]
            assert event["dur"] == pytest.approx(1e6 * span.duration_s, abs=1.01e-3)
            start = 1e6 * (span.start_s + begins[span.step])
            assert event["ts"] == pytest.approx(start, abs=1.01e-3)
            seen += 1
        steps = [e for e in events if e["name"].startswith("ProfilerStep#")]
        lengths = {e["name"]: e["dur"] for e in steps if e["pid"] == event["pid"]}
        assert lengths == pytest.approx(
            {f"ProfilerStep#{step}": 1e6 * s for step, s in clock.trace.step_s().items()}, abs=2e-3
        )
    assert seen == len(slices) == 2 * (profile.rounds + 1) * sum(1 for _ in profile.plan.ops())


def test_repeating_a_step_keeps_its_durations(two_gpus: Profiled) -> None:
    once = two_gpus[0].simulation.trace
    again = repeated(once, 7)
    assert list(again.bounds()) == list(range(7))
    single = {span.op_id: span.duration_s for span in once.spans}
    assert again.by_op() == {
        op: pytest.approx([seconds] * 7, abs=1e-12) for op, seconds in single.items()
    }
    bounds = list(again.bounds().values())
    for (_, end), (begin, _) in pairwise(bounds):
        assert begin == pytest.approx(end, abs=1e-12)
    assert repeated(Trace(spans=()), 3) == Trace(spans=())


def assert_arrows(plan: Plan, steps: int, clocks: int, events: list[Event]) -> None:
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    by_thread = threads(events)
    arrows: dict[int, dict[str, Event]] = {}
    for event in events:
        if event["ph"] in ("s", "f"):
            assert event["ph"] not in arrows.setdefault(event["id"], {})
            arrows[event["id"]][event["ph"]] = event
    assert len(arrows) == len(plan.exchanges) * steps * clocks
    exchanges = {exchange.name: exchange for exchange in plan.exchanges}
    seen = Counter()
    for arrow in arrows.values():
        begin, end = arrow["s"], arrow["f"]
        exchange = exchanges[begin["name"]]
        assert begin["name"] == end["name"]
        assert end["bp"] == "e"
        assert names[begin["pid"]].startswith(f"{exchange.source} ")
        assert names[end["pid"]].startswith(f"{exchange.target} ")
        assert names[begin["pid"]].partition(" ")[2] == names[end["pid"]].partition(" ")[2]
        assert ns(begin) <= ns(end)
        for point, kind in ((begin, "post"), (end, "wait")):
            around = open_slice(by_thread[point["pid"], point["tid"]], ns(point)[0])
            assert around["args"]["op"] == f"{exchange.name}.{kind}"
            start, over = ns(around)
            assert start == over == ns(point)[0] or start <= ns(point)[0] < over
        seen[exchange.name] += 1
    assert set(seen.values()) <= {steps * clocks}


def test_an_arrow_leads_from_every_post_into_its_wait(found: Profiled) -> None:
    profile, _ = found
    assert_arrows(profile.plan, profile.rounds + 1, 2, whole(found))
    assert bool(profile.plan.exchanges) == (len(profile.plan.devices) == 2)


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_arrows_hold_where_ops_meet_to_the_nanosecond(schedule: str) -> None:
    clock = simulated(batch_size=16, schedule=schedule)
    assert_arrows(clock.plan, 2, 1, chrome_trace([clock])["traceEvents"])


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("policy", ["as-released", "reuse"])
def test_counters_are_the_memory_timeline(schedule: str, policy: str) -> None:
    clock = simulated(batch_size=16, schedule=schedule, policy=policy)
    events = chrome_trace([clock])["traceEvents"]
    slices = ops_of(events)
    for pid, device in enumerate(clock.plan.devices, start=1):
        counters = [e for e in events if e["ph"] == "C" and e["pid"] == pid]
        assert {e["name"] for e in counters} == {"memory, MiB"}
        moments = [
            (ns(slices[f"{device.name} (simulated)", op.id, step])[0], moment.by_category)
            for step in (0, 1)
            for op, moment in zip(device.ops, memory_timeline(device), strict=True)
            if op.queue == "compute"
        ]
        # In the plan's order they only go forward in time.
        assert [when for when, _ in moments] == sorted(when for when, _ in moments)
        # Only where an op begins, and only what changed.
        assert {ns(e)[0] for e in counters} <= {when for when, _ in moments}
        assert all(a["args"] != b["args"] for a, b in pairwise(counters))
        expected: dict[int, dict[str, float]] = {}
        for when, held in moments:
            expected[when] = {key: round(size / MIB, 3) for key, size in held.items()}
        shown, position = {}, 0
        for when, held in expected.items():
            while position < len(counters) and ns(counters[position])[0] <= when:
                shown = {key: mib for key, mib in counters[position]["args"].items() if mib}
                position += 1
            assert shown == {key: mib for key, mib in held.items() if mib}
        assert position == len(counters)


def test_counts_in_the_trace_are_the_plan_s(found: Profiled) -> None:
    profile, _ = found
    plan = profile.plan
    wanted = {
        "flop": sum(op.count.flop for op in plan.ops()),
        "mac": sum(op.count.mac for op in plan.ops()),
        "elementwise_flop": sum(op.count.elementwise_flop for op in plan.ops()),
        "bytes": sum(op.count.moved_bytes for op in plan.ops()),
    }
    assert wanted["flop"] == 2 * wanted["mac"] > 0
    sums: Counter[tuple[str, int, str]] = Counter()
    for (process, _, step), event in ops_of(whole(found)).items():
        for key in wanted:
            sums[process.partition(" ")[2], step, key] += event["args"].get(key, 0)
        for rate, key in (("GFLOP/s", "flop"), ("GB/s", "bytes")):
            if event["args"].get(key) and event["dur"] > 1:
                per_s = event["args"][key] / event["dur"] / 1e3
                assert event["args"][rate] == pytest.approx(per_s, rel=2e-3, abs=0.051)
    assert len(sums) == 2 * (profile.rounds + 1) * len(wanted)
    for (_, _, key), value in sums.items():
        assert value == wanted[key]


def test_ten_steps_of_two_gpus_stay_small(two_gpus: Profiled) -> None:
    profile, _ = two_gpus
    step = Trace(spans=tuple(span for span in profile.trace.spans if span.step == 0))
    rng = random.Random(0)
    # No two measured steps are the same, which is what makes them hard to pack.
    measured = tuple(
        replace(span, end_s=span.end_s - rng.uniform(0, 0.1) * (span.end_s - span.start_s))
        for span in repeated(step, 10).spans
    )
    clocks = [
        Clock(name="measured", plan=profile.plan, trace=Trace(spans=measured)),
        Clock(name="there", plan=profile.plan, trace=repeated(profile.simulation.trace, 10)),
    ]
    document = chrome_trace(clocks)
    data = packed(document)
    assert len(ops_of(document["traceEvents"])) == 20 * sum(1 for _ in profile.plan.ops())
    assert len(data) < 5_000_000
    assert data == packed(chrome_trace(clocks))


def test_every_rank_has_a_document_of_its_own_ops(two_gpus: Profiled) -> None:
    profile, _ = two_gpus
    for clock in both_clocks(profile):
        documents = rank_traces(clock)
        assert len(documents) == len(profile.plan.devices) == 2
        together = ops_of(chrome_trace([clock])["traceEvents"])
        found: dict[tuple[str, str, int], Event] = {}
        for rank, (document, device) in enumerate(
            zip(documents, profile.plan.devices, strict=True)
        ):
            text = gzip.decompress(packed(document)).decode()
            assert re.findall(r'"rank":\s+(\d+)', text) == [str(rank)]
            assert document["distributedInfo"]["world_size"] == 2
            events = document["traceEvents"]
            mine = ops_of(events)
            assert {op for _, op, _ in mine} == {op.id for op in device.ops}
            assert all(process.startswith(f"{device.name} ") for process, _, _ in mine)
            assert_launched(events, mine)
            found |= mine
        assert found.keys() == together.keys()
        for key, event in found.items():
            assert (event["ts"], event["dur"]) == (together[key]["ts"], together[key]["dur"])


def assert_launched(events: list[Event], ops: dict[tuple[str, str, int], Event]) -> None:
    """Every op that readers see has the launch with its number, no other has; it comes first."""
    launches = {e["args"]["correlation"]: e for e in events if e.get("cat") == "cuda_runtime"}
    assert len(launches) == sum(1 for e in events if e.get("cat") == "cuda_runtime")
    unseen = [event for event in ops.values() if "cat" not in event]
    kernels = {e["args"]["correlation"]: e for e in ops.values() if "cat" in e}
    assert len(kernels) + len(unseen) == len(ops)
    assert launches.keys() == kernels.keys()
    for event in unseen:
        start, end = ns(event)
        assert start % 1000
        assert start // 1000 == end // 1000  # no whole microsecond lies in it
    for number, kernel in kernels.items():
        launch = launches[number]
        assert launch["pid"] == kernel["pid"]
        assert launch["tid"] == 1 != kernel["tid"] == kernel["args"]["stream"]
        assert launch["ts"] <= kernel["ts"]
        kind = kernel["args"]["kind"]
        exchanged = kind in ("exchange_post", "exchange_wait")
        copies = exchanged or kind == "upload"
        assert kernel["cat"] == ("gpu_memcpy" if copies else "kernel")
        assert launch["name"] == ("cudaMemcpyAsync" if copies else "cudaLaunchKernel")
        # By these names Holistic Trace Analysis tells memory, communication and waiting.
        assert kernel["name"].startswith("Memcpy HtoD") == (kind == "upload")
        assert (kernel["name"] == "ncclKernel_SendRecv") == exchanged
        assert kernel["name"].startswith("Sync ") == (kind == "barrier")


def as_hta_reads(event: Event) -> tuple[int, int]:
    return math.ceil(event["ts"]), math.floor(round(event["ts"] + event["dur"], 3))


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_rounded_launches_lie_in_their_steps_before_their_ops(schedule: str) -> None:
    clock = simulated(schedule=schedule)
    for document in rank_traces(clock):
        events = [e for e in document["traceEvents"] if e["ph"] == "X" and "cat" in e]
        assert all(start <= end for start, end in map(as_hta_reads, events))
        steps = {e["name"]: as_hta_reads(e) for e in events if e["cat"] == "user_annotation"}
        assert len(steps) == 2
        launches = {e["args"]["correlation"]: e for e in events if e["cat"] == "cuda_runtime"}
        for event in events:
            if "op" not in event.get("args", {}):
                continue
            low, high = steps[f"ProfilerStep#{event['args']['step']}"]
            begin, end = as_hta_reads(launches[event["args"]["correlation"]])
            assert low <= begin < end <= high
            assert begin < as_hta_reads(event)[0] or event["ts"] == 0
        for cat, name in (("user_annotation", "host"), ("gpu_user_annotation", "compute")):
            threads_of = {
                (e["pid"], e["tid"])
                for e in document["traceEvents"]
                if e["name"] == "thread_name" and e["args"]["name"] == name
            }
            assert {(e["pid"], e["tid"]) for e in events if e["cat"] == cat} >= threads_of


def test_a_single_simulated_step_is_repeated_for_readers_that_drop_the_first_and_last() -> None:
    clock = simulated()
    once = replace(clock, trace=Trace(spans=tuple(s for s in clock.trace.spans if s.step == 0)))
    (first, _) = rank_traces(once)
    steps = [e["name"] for e in first["traceEvents"] if e.get("cat") == "user_annotation"]
    assert steps == [f"ProfilerStep#{n}" for n in range(3)]
    assert len(rank_traces(clock)) == 2


def test_uploads_have_a_bandwidth_and_sums_are_communication() -> None:
    wanted = PlanSpec(
        network=load_network("alexnet-owt"), gpus=2, partition="replicas", batch_size=32
    )
    machine = load_machine("gtx580x2")
    made = planned(wanted, machine)
    (document,) = rank_traces(
        Clock(name="there", plan=made, trace=on_machine(wanted, machine).trace)
    )
    assert document["distributedInfo"]["world_size"] == made.replicas == 2
    slices = [e for e in document["traceEvents"] if e["ph"] == "X"]
    sums = [e for e in slices if e["name"] == "ncclKernel_AllReduce"]
    assert len(sums) == 3 * 8
    for event in (e for e in slices if e["name"].startswith("Memcpy HtoD")):
        rate = event["args"]["bytes"] / event["dur"] / 1e3
        assert event["args"]["memory bandwidth (GB/s)"] == pytest.approx(rate, abs=0.01)


@given(
    gaps=st.lists(st.integers(0, 5000), max_size=30),
    first=st.integers(0, 10**7),
)
def test_launches_never_overlap_nor_come_late(gaps: list[int], first: int) -> None:
    starts = [first / 1000]
    for gap in gaps:
        starts.append(round(starts[-1] + gap / 1000, 3))
    begin, end = max(0.0, starts[0] - 2), starts[-1] + 1
    reached = begin
    for start, (low, high) in zip(starts, launches(starts, begin, end), strict=True):
        assert begin <= low <= min(high, start)
        assert high <= end
        assert low >= reached or low == high  # what takes no time may lie in another
        assert low == high or math.floor(high) - math.ceil(low) >= 1 or high == end
        reached = max(reached, high)


def test_torch_s_events_lie_in_the_ops_of_the_last_step(found: Profiled) -> None:
    profile, under = found
    assert under.events
    last = max(profile.trace.bounds())
    assert last == profile.rounds
    events = whole(found)
    torch_s = [e for e in events if e["ph"] == "X" and e["tid"] >= TORCH]
    assert len(torch_s) == len(under.events)
    assert {e["pid"] for e in torch_s} == {1}
    assert any(e["name"] == "aten::addmm" for e in torch_s)
    spans = sorted(
        (e["ts"], e["ts"] + e["dur"])
        for (process, _, step), e in ops_of(events).items()
        if step == last and process.endswith("(measured)")
    )
    for event in torch_s:
        # The clocks of both are read a microsecond apart.
        around = max((span for span in spans if span[0] <= event["ts"] + 20), default=None)
        assert around is not None, event
        assert event["ts"] + event["dur"] <= around[1] + 20, event
    (step,) = [e for e in events if e["name"] == f"ProfilerStep#{last}" and e["pid"] == 1]
    begins = [e["ts"] for e in torch_s]
    assert step["ts"] - 20 <= min(begins)
    assert max(begins) <= step["ts"] + step["dur"]


def test_sums_over_gpus_are_transfers() -> None:
    wanted = PlanSpec(
        network=load_network("alexnet-owt"), gpus=2, partition="replicas", batch_size=32
    )
    machine = load_machine("gtx580x2")
    clock = Clock(
        name="there", plan=planned(wanted, machine), trace=on_machine(wanted, machine).trace
    )
    events = chrome_trace([clock])["traceEvents"]
    sums = [e for e in events if e["ph"] == "X" and "all_reduce" in e["name"]]
    updates = [op for op in clock.plan.ops() if op.kind == OpKind.UPDATE]
    assert len(sums) == len({op.layer for op in updates}) == 8
    assert {event["cat"] for event in sums} == {"gpu_memcpy"}


def test_steps_follow_one_another_whatever_lay_between() -> None:
    wanted = PlanSpec(network=load_network("lenet-5"), gpus=None, batch_size=2)
    machine = load_machine("gtx580")
    made, once = planned(wanted, machine), on_machine(wanted, machine).trace
    late = Trace(
        spans=tuple(
            replace(span, step=n, start_s=1e3 * n + span.start_s, end_s=1e3 * n + span.end_s)
            for n in (3, 1, 2)
            for span in once.spans
        )
    )
    events = chrome_trace([Clock(name="late", plan=made, trace=late)])["traceEvents"]
    steps = [e for e in events if e["name"].startswith("ProfilerStep#")]
    assert [event["name"] for event in steps] == [f"ProfilerStep#{n}" for n in (1, 2, 3)]
    reached = 0
    for event in steps:
        assert ns(event)[0] == reached
        _, reached = ns(event)
    assert reached == pytest.approx(3e9 * once.step_s()[0], abs=10)


def test_a_file_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "step.json.gz"
    assert run("profile", *FAST, "--trace", str(path), "--torch-profiler", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rounds"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    events = unpacked(path)["traceEvents"]
    processes = [e["args"]["name"] for e in events if e["name"] == "process_name"]
    assert processes[0] == "gpu0 (measured)"
    assert processes[1].startswith("gpu0 (simulated: ")
    assert sum(event.get("cat") == "cpu_op" for event in events) > 100
    assert len(ops_of(events)) == 2 * 2 * 35


def test_a_folder_has_a_file_per_clock_and_rank(tmp_path: Path) -> None:
    folder = tmp_path / "made.by.hand"
    folder.mkdir()
    assert run("profile", *FAST, "--trace", str(folder)) == 0
    assert run("simulate", "--trace", f"{tmp_path}/two/") == 0
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.gz")) == [
        "made.by.hand/measured/rank0.json.gz",
        "made.by.hand/simulated/rank0.json.gz",
        "two/simulated/rank0.json.gz",
        "two/simulated/rank1.json.gz",
    ]
    assert not list(tmp_path.rglob("*.tmp"))
    for path in tmp_path.rglob("*.gz"):
        assert unpacked(path)["distributedInfo"]["rank"] == int(path.name[4])


def test_simulate_leaves_its_step_as_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "step.json.gz"
    assert run("simulate", "--trace", str(path), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    events = unpacked(path)["traceEvents"]
    assert [e["dur"] for e in events if e["name"] == "ProfilerStep#0"] == pytest.approx(
        [1e6 * document["step_s"]] * 2, abs=2e-3
    )
    host = {e["name"] for e in events if e.get("cat") == "host"}
    assert host == {"disk", "decode", "crop"}
    gpu0 = [e for (name, _, _), e in ops_of(events).items() if name.startswith("gpu0 ")]
    busy = sum(e["dur"] for e in gpu0 if e["cat"] == "kernel" and e["args"]["kind"] != "barrier")
    assert busy == pytest.approx(1e6 * document["devices"][0]["busy_s"], rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("profile", "--trace", "x.json"), "must end in .json.gz, or name a folder; got x.json"),
        (("simulate", "--trace", "x.perfetto"), "must end in .json.gz, or name a folder"),
        (("profile", "--torch-profiler"), "--torch-profiler goes under a trace: give --trace"),
        (("simulate", "--trace", "/proc/x.json.gz"), "cannot write /proc/x.json.gz: "),
        (("simulate", "--trace", "/none/x.json.gz"), "cannot write /none/x.json.gz: "),
        (("simulate", "--trace", "/etc/passwd/x.json.gz"), "there is no folder"),
        (("simulate", "--trace", "/proc/x"), "cannot write /proc/x/simulated: "),
        (("simulate", "--trace", "/etc/passwd"), "cannot write /etc/passwd/simulated: "),
    ],
)
def test_mistakes_get_one_line_before_anything_is_measured(
    arguments: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiler, "profile", None)
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert err.count("\n") == 1


def test_a_trace_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("profile", *FAST, "--trace", str(tmp_path / "file" / "x.json.gz")) == 2
    err = capsys.readouterr().err
    assert "x.json.gz: there is no folder" in err
    assert err.count("\n") == 1
