"""Memory snapshots: replayed event by event they are the plan, and PyTorch's tools read them."""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from chains import CHAINS
from drawn import networks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.cuda import _memory_viz

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.ledger.timeline import memory_timeline
from alexsim.network.network import Network
from alexsim.plan.plan import DevicePlan, Plan
from alexsim.plan.planner import plan
from alexsim.report.memory_viz import snapshot, snapshot_bytes

POLICIES = ("as-released", "in-place", "reuse")
Snapshot = dict[str, Any]


class PlainUnpickler(pickle.Unpickler):
    """Loads builtins that need no import."""

    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"{module}.{name} is not plain")


def plain(data: bytes) -> Snapshot:
    found = PlainUnpickler(io.BytesIO(data)).load()
    assert found == pickle.loads(data)
    return found


class Heap:
    """An allocator that believes nothing: what is taken is free, what is freed was taken."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken: dict[int, int] = {}
        self.asked: set[int] = set()

    @property
    def live(self) -> int:
        return sum(self.taken.values())

    def play(self, event: dict[str, Any]) -> None:
        address, size = event["addr"], event["size"]
        match event["action"]:
            case "alloc":
                assert size > 0
                assert 0 <= address <= address + size <= self.size
                for other, length in self.taken.items():
                    assert address + size <= other or other + length <= address, event
                self.taken[address] = size
            case "free_requested":
                assert self.taken[address] == size
                assert address not in self.asked
                self.asked.add(address)
            case "free_completed":
                assert self.taken.pop(address) == size
                self.asked.remove(address)
            case other:
                raise AssertionError(other)


def assert_replays(made: Plan) -> None:
    found = plain(snapshot_bytes(made))
    assert len(found["segments"]) == len(found["device_traces"]) == len(made.devices)
    for index, device in enumerate(made.devices):
        assert_device_replays(
            device, index, found["segments"][index], found["device_traces"][index]
        )


def assert_device_replays(
    device: DevicePlan, index: int, segment: dict[str, Any], events: list[dict[str, Any]]
) -> None:
    heap = Heap(device.total_bytes)
    times = [event["time_us"] for event in events]
    assert times == sorted(times)
    moments = memory_timeline(device)
    assert set(times) <= set(range(len(moments)))
    peaks = []
    for position, moment in enumerate(moments):
        peak = heap.live
        for event in (event for event in events if event["time_us"] == position):
            heap.play(event)
            peak = max(peak, heap.live)
        assert peak == moment.total_bytes, moment.op_id
        assert not heap.asked
        peaks.append(peak)
    assert max(peaks) == max(moment.total_bytes for moment in moments) <= device.total_bytes
    # The segment is what is left: from there readers go back.
    assert (segment["device"], segment["address"]) == (index, 0)
    reached, left = 0, {}
    for block in segment["blocks"]:
        assert block["address"] == reached
        assert block["size"] == block["requested_size"] > 0
        if block["state"] == "active_allocated":
            left[reached] = block["size"]
        else:
            assert block["state"] == "inactive"
        reached += block["size"]
    assert left == heap.taken
    assert reached == segment["total_size"] == device.total_bytes
    for key in ("allocated_size", "active_size", "requested_size"):
        assert segment[key] == heap.live


@pytest.mark.parametrize("name", CHAINS)
def test_every_edition_replays(name: str) -> None:
    network = load_network(name)
    for policy in POLICIES:
        assert_replays(plan(network, batch_size=2, policy=policy))


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("policy", POLICIES)
def test_plans_with_scratch_replay(policy: str, schedule: str) -> None:
    for name in ("alexnet-2012", "lenet-5"):
        made = plan(
            load_network(name), batch_size=2, policy=policy, backend="aten", schedule=schedule
        )
        assert all(device.scratch_bytes for device in made.devices)
        assert_replays(made)


@given(
    network=networks(),
    one=st.booleans(),
    policy=st.sampled_from(POLICIES),
    backend=st.sampled_from(["", "aten", "native"]),
)
@settings(max_examples=40, deadline=None)
def test_any_chain_replays(network: Network, one: bool, policy: str, backend: str) -> None:
    assert_replays(
        plan(network, gpus=1 if one else None, batch_size=3, policy=policy, backend=backend)
    )


def test_events_say_whose_bytes_they_are_and_which_op_ends_them() -> None:
    made = plan(load_network("alexnet-2012"), batch_size=2, policy="reuse", backend="aten")
    for device, events in zip(made.devices, snapshot(made)["device_traces"], strict=True):
        buffers = {buffer.name: buffer for buffer in device.buffers}
        scratch = {op.id: op.scratch_bytes for op in device.ops if op.scratch_bytes}
        frees = scratches = 0
        for event in events:
            assert event["stream"] == 0
            frame = event["frames"][0]
            op = device.ops[event["time_us"]]
            if frame["name"] == "scratch (workspace)":
                assert frame["filename"] == op.id
                assert event["size"] == scratch[op.id]
                scratches += 1
            elif event["action"] == "alloc":
                assert event["size"] == buffers[frame["name"]].size_bytes
                assert frame["filename"] == buffers[frame["name"]].category
            else:
                assert frame["name"] == op.id
                frees += 1
        assert scratches == 3 * len(scratch)
        assert frees > 20


@pytest.mark.parametrize("policy", POLICIES)
def test_pytorch_s_own_tools_read_it(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(load_network("alexnet-2012"), batch_size=2, policy=policy, backend="aten")
    data = plain(snapshot_bytes(made))
    total = sum(device.total_bytes for device in made.devices)
    for html in (_memory_viz.trace_plot(data), _memory_viz.segment_plot(data)):
        (files,) = re.findall(r"local_files = (\[.*\])", html)
        (file,) = json.loads(files)
        assert plain(base64.b64decode(file["base64"])) == data
    for draw in (_memory_viz.segments, _memory_viz.memory):
        lines = draw(data, format_flamegraph=str).splitlines()
        assert sum(int(line.rpartition(" ")[2]) for line in lines) == total
    # It adds up blocks and segments, and raises where they differ.
    assert f"total_reserved: {_memory_viz.Bytes(total)}" in _memory_viz.segsum(data)
    events = [event for device in data["device_traces"] for event in device]
    lines = _memory_viz.trace(data).splitlines()
    for start, action in (("del ", "free_requested"), ("# free completed", "free_completed")):
        told = sum(line.startswith(start) for line in lines)
        assert told == sum(event["action"] == action for event in events) > 0
    kept = _memory_viz.filter_alloc_free_pairs(data)
    assert not capsys.readouterr().out, "something was freed that nobody asked for"
    for device, events in zip(made.devices, kept["device_traces"], strict=True):
        lasting = {b.name for b in device.buffers if b.last == len(device.ops) - 1}
        assert {event["action"] for event in events} == {"alloc"}
        assert {event["frames"][0]["name"] for event in events} <= lasting


def test_profile_writes_the_snapshot_of_its_plan(tmp_path: Path) -> None:
    path = tmp_path / "memory.pickle"
    with pytest.raises(SystemExit) as caught:
        main(
            ["profile", "--net", "lenet-5", "--batch", "2", "--rounds", "1", "--threads", "1",
             "--policy", "reuse", "--snapshot", str(path)]
        )  # fmt: skip
    assert not caught.value.code
    made = plan(load_network("lenet-5"), batch_size=2, policy="reuse", backend="native")
    assert plain(path.read_bytes()) == snapshot(made)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
