"""The simulator: golden figures, what must hold, and that every number it is given matters."""

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from alexsim.costs.correction import UNFITTED, load_correction
from alexsim.costs.libraries import load_library
from alexsim.documents.simulation import simulation_document
from alexsim.editions.load import load_network
from alexsim.errors import PlanError, ProfileError
from alexsim.machine.collectives import all_reduce_s, load_nccl
from alexsim.machine.machine import Machine, changed, load_machine
from alexsim.machine.paths import between, from_host, to_host
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.stages import training_of
from alexsim.report.simulation import simulation_tables
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import simulate_network
from alexsim.simulate.timer import DataPath, Timer

ALEXNET = load_network("alexnet-2012")
PAIR = load_machine("gtx580x2")
GOLDEN = Path(__file__).parent / "golden"


def simulated(
    configuration: PlanSpec,
    machine: Machine = PAIR,
    library: str = "cuda-convnet",
    data: DataPath = "jpeg",
    whole_pipeline: bool = False,
) -> Simulation:
    timer = Timer(
        machine=machine,
        library=load_library(library),
        correction=UNFITTED if library == "roofline" else load_correction(),
    )
    return simulate_network(configuration, timer, data=data, whole_pipeline=whole_pipeline)


TWO = PlanSpec(network=ALEXNET)


GOLDENS = {
    "gtx580x2": (TWO, "gtx580x2", "cuda-convnet"),
    "gtx580x2-host-overlap": (
        replace(TWO, schedule="overlap", transport="host"),
        "gtx580x2",
        "cuda-convnet",
    ),
    "k20x8-hybrid": (
        PlanSpec(network=load_network("alexnet-owt"), gpus=8, partition="hybrid", batch_size=1024),
        "k20x8",
        "cuda-convnet2",
    ),
    "p100-caffenet": (PlanSpec(network=load_network("caffenet")), "p100", "cudnn-v5.1"),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_the_same_figures_as_ever(name: str) -> None:
    configuration, machine, library = GOLDENS[name]
    result = simulated(configuration, load_machine(machine), library)
    document = simulation_document(
        result, configuration, training_of(result, images=1_281_167, epochs=90)
    ).document()
    del document["alexsim"]
    # Whoever means to change them writes them anew with: python tests/test_simulate.py
    assert document == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_the_prediction_of_2012_is_not_far_from_five_to_six_days() -> None:
    result = simulated(TWO)
    days = result.training_days_interval(1_281_167, 90)
    assert days.low < 5 < days.high
    assert 0.4 < result.step_s < 0.6
    one = simulated(
        PlanSpec(network=load_network("alexnet-1gpu"), gpus=1), load_machine("gtx580x1")
    )
    # Paper, section 3.5: the two-GPU net takes slightly less time than the one-GPU net.
    assert 1.0 < one.step_s / result.step_s < 1.15


def test_gpu_1_idles_while_gpu_0_does_the_last_layer() -> None:
    first, second = simulated(TWO).devices
    fc8 = sum(layer.total_s for layer in simulated(TWO).layers if layer.name == "fc8")
    assert first.idle_s < second.idle_s
    assert second.idle_s - first.idle_s == pytest.approx(fc8, rel=0.2)


def test_ideal_figures_are_those_of_the_articles() -> None:
    assert simulated(TWO).ideal_forward_images_per_s == pytest.approx(2183, abs=1)


@pytest.mark.parametrize(
    ("machine", "explained"),
    [
        (PAIR, True),
        (replace(PAIR, name="two cards"), True),
        (load_machine("gtx580-1.5gb"), True),
        (changed(PAIR, {"device.clock_mhz": 1600}), False),
        (replace(load_machine("k20x8"), name="GTX 580"), False),
    ],
    ids=["2012", "another name", "another memory", "another clock", "another card"],
)
def test_articles_speeds_are_explained_by_the_cards_peak(machine: Machine, explained: bool) -> None:
    """The text is about 1.581 TFLOP/s: the device's figure decides, whatever the machine's name."""
    result = simulated(TWO, machine)
    assert (round(result.device_flop_per_s / 1e12, 3) == 1.581) == explained
    text = io.StringIO()
    training = training_of(result, images=1_281_167, epochs=90)
    tables = simulation_tables(result, TWO, training, shown=["articles"])
    Console(file=text, width=80).print(tables)
    assert ("Articles say" in text.getvalue()) == explained


def test_bytes_sent_are_bytes_received() -> None:
    result = simulated(TWO)
    for end in ("source", "target"):
        of_gpu0 = sum(e.size_bytes for e in result.exchanges if getattr(e, end) == "gpu0")
        of_gpu1 = sum(e.size_bytes for e in result.exchanges if getattr(e, end) == "gpu1")
        assert of_gpu0 + of_gpu1 == 57.25 * 1024 * 1024


def test_a_serial_step_longer_than_the_data_path_never_waits_for_it() -> None:
    fast, whole = simulated(TWO), simulated(TWO, whole_pipeline=True)
    assert whole.step_s == pytest.approx(fast.step_s, rel=1e-12)
    assert {s.device for s in whole.trace.spans} > {s.device for s in fast.trace.spans}


SLOWER = {
    "device.clock_hz": 0.8,
    "device.memory_bytes_per_s": 0.8,
    "link.bytes_per_s": 0.5,
    "link.efficiency": 0.5,
    "link.latency_s": 100,
}
PIPELINE = {
    "disk_bytes_per_s": 0.01,
    "decode_images_per_s": 0.1,
    "crop_images_per_s": 0.1,
}


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("key", [*SLOWER, *PIPELINE])
def test_every_number_of_a_machine_matters(key: str, schedule: str) -> None:
    configuration = replace(TWO, schedule=schedule)
    owner, _, number = key.rpartition(".")
    now = getattr(getattr(PAIR, owner) if owner else PAIR, number).value
    slower = changed(PAIR, {key: now * {**SLOWER, **PIPELINE}[key]})
    assert simulated(configuration, slower).step_s > 1.001 * simulated(configuration).step_s


def test_transport_direction_and_sharing_matter() -> None:
    peer, host = (simulated(replace(TWO, transport=t)) for t in ("peer", "host"))
    assert sum(e.seconds for e in host.exchanges) > 1.5 * sum(e.seconds for e in peer.exchanges)
    one = changed(PAIR, {"devices_per_uplink": 2, "uplink.bytes_per_s": 1e9})
    # Two uploads over one uplink take turns.
    assert simulated(TWO, one).step_s > simulated(TWO).step_s + 0.05
    assert simulated(replace(TWO, schedule="overlap")).step_s < peer.step_s


def test_the_two_directions_of_a_link_are_two_resources() -> None:
    there, back = between(PAIR, 0, 1, 1000), between(PAIR, 1, 0, 1000)
    assert not set(there.holds) & set(back.holds)
    # What leaves a card meets what else leaves it, and what arrives what else arrives.
    assert set(there.holds) & set(to_host(PAIR, 0, 1, 1000).holds)
    assert set(there.holds) & set(from_host(PAIR, 1, 1000).holds)
    assert not set(there.holds) & set(from_host(PAIR, 0, 1000).holds)
    shared = load_machine("k20x8")
    near, far = between(shared, 0, 1, 1000), between(shared, 0, 4, 1000)
    assert set(far.holds) - set(near.holds) >= {"uplink0.up", "uplink1.down"}


def test_more_memory_never_changes_time() -> None:
    more = changed(PAIR, {"device.memory_bytes": 64e9, "device.context_bytes": 1.0})
    assert simulated(TWO, more).step_s == simulated(TWO).step_s


@settings(deadline=None, max_examples=40)
@given(
    key=st.sampled_from(
        ["device.clock_hz", "device.memory_bytes_per_s", "link.bytes_per_s", "link.efficiency"]
    ),
    factor=st.floats(1.0, 1.3),
    batch=st.integers(1, 200),
    library=st.sampled_from(["cuda-convnet", "im2col-gemm", "cudnn-v4", "roofline"]),
    transport=st.sampled_from(["peer", "host"]),
)
def test_a_faster_machine_never_makes_a_serial_step_slower(
    key: str, factor: float, batch: int, library: str, transport: str
) -> None:
    configuration = replace(TWO, batch_size=batch, transport=transport)
    owner, _, number = key.partition(".")
    now = getattr(getattr(PAIR, owner), number).value
    faster = changed(
        PAIR, {key: min(now * factor, 1.0) if number == "efficiency" else now * factor}
    )
    before = simulated(configuration, library=library).step_s
    assert simulated(configuration, faster, library).step_s <= before * (1 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 256),
    partition=st.sampled_from(["columns", "replicas"]),
    schedule=st.sampled_from(["serial", "overlap"]),
    transport=st.sampled_from(["peer", "host"]),
    data=st.sampled_from(["jpeg", "none"]),
    decode=st.sampled_from([100, 600]),
)
def test_critical_path_and_devices_add_up_to_the_step(
    batch: int, partition: str, schedule: str, transport: str, data: str, decode: int
) -> None:
    result = simulated(
        PlanSpec(
            network=ALEXNET, gpus=2, partition=partition, batch_size=2 * batch, schedule=schedule,
            transport=transport,
        ),
        changed(PAIR, {"decode_images_per_s": decode}),
        data=data,
        whole_pipeline=True,
    )  # fmt: skip
    path = result.critical_path
    assert path[0].start_s == 0.0
    assert path[-1].end_s == pytest.approx(result.step_s)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in itertools.pairwise(path))
    for device in result.devices:
        exposed = (
            device.exposed_exchange_s, device.exposed_all_reduce_s, device.exposed_upload_s,
        )  # fmt: skip
        assert device.busy_s + sum(exposed) + device.idle_s == pytest.approx(result.step_s)
        assert device.exposed_exchange_s <= device.exchange_s + 1e-9
        assert device.exposed_upload_s <= device.upload_s + 1e-9
        assert device.exposed_all_reduce_s <= result.all_reduce_s + 1e-9
        assert device.busy_s <= result.step_s * (1 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(1, 256),
    schedule=st.sampled_from(["serial", "overlap"]),
    transport=st.sampled_from(["peer", "host"]),
    library=st.sampled_from(["cuda-convnet", "cudnn-v4", "roofline"]),
)
def test_spans_of_a_queue_never_overlap_and_fill_no_more_than_the_step(
    batch: int, schedule: str, transport: str, library: str
) -> None:
    result = simulated(
        replace(TWO, batch_size=batch, schedule=schedule, transport=transport), library=library
    )
    by_queue: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for span in result.trace.spans:
        by_queue.setdefault((span.device, span.queue), []).append((span.start_s, span.end_s))
    for spans in by_queue.values():
        spans.sort()
        assert all(a[1] <= b[0] + 1e-12 for a, b in itertools.pairwise(spans))
    for device in result.devices:
        assert device.busy_s <= result.step_s * (1 + 1e-9)
    assert result.step_interval.low < result.step_s < result.step_interval.high


def test_replicas_share_the_images_and_sum_their_gradients() -> None:
    net = load_network("alexnet-owt")
    machine = load_machine("k20x8")
    one = simulated(PlanSpec(network=net, gpus=1, partition="replicas"), machine)
    eight = simulated(PlanSpec(network=net, gpus=8, partition="replicas", batch_size=1024), machine)
    hybrid = simulated(PlanSpec(network=net, gpus=8, partition="hybrid", batch_size=1024), machine)
    assert one.all_reduce_s == 0.0
    assert eight.all_reduce_s > hybrid.all_reduce_s > 0.0
    # Krizhevsky 2014: the hybrid wins, because fully connected gradients stay where they are.
    assert hybrid.step_s < eight.step_s
    assert 4 < 8 * one.step_s / eight.step_s < 8
    # Buffers for the gradients of fully connected layers, which one device adds to the momentum.
    extra = eight.devices[0].memory_bytes - one.devices[0].memory_bytes
    weights = [(9216, 4096), (4096, 4096), (4096, 1000)]
    assert extra == 4 * sum(inputs * units for inputs, units in weights)
    # An eighth of the weights and momentum is more than what is gathered (see test_hybrid).
    assert hybrid.devices[0].memory_bytes < one.devices[0].memory_bytes


def test_the_transport_of_gradients_matters() -> None:
    configuration = PlanSpec(
        network=load_network("alexnet-owt"), gpus=8, partition="replicas", batch_size=1024
    )
    for name in ("k20x8", "dgx-1"):
        machine = load_machine(name)
        peer, host = (
            simulated(replace(configuration, transport=t), machine, "cudnn-v2", "none")
            for t in ("peer", "host")
        )
        assert host.all_reduce_s > 1.2 * peer.all_reduce_s


def test_replicas_of_two_columns_sum_over_the_network() -> None:
    """One adapter carries both columns' gradients; the rest of the step is that of one machine."""
    machine = load_machine("gtx580x2", "", "10gbe")
    one = simulated(TWO, machine)
    many = simulated(replace(TWO, replicas=4, batch_size=4 * TWO.batch_size), machine)
    assert (many.devices_count, many.replicas, many.partition) == (8, 4, "columns")
    assert many.exchanges == one.exchanges
    network = machine.network
    assert network is not None
    parameters = [
        sum(p.parameters for ps in TWO.network.parts for p in ps if p.column == column)
        for column in (0, 1)
    ]
    # A ring of four moves 3/4 of the buffer twice, at half the adapter's rate.
    ring_s = [2 * 3 / 4 * 4 * count / (network.effective_bytes_per_s / 2) for count in parameters]
    assert many.all_reduce_s == pytest.approx(sum(ring_s) / 2, rel=0.01)
    longer = many.step_s - one.step_s
    # Gradients are stored before they are summed, which takes some time too.
    assert max(ring_s) <= longer <= 1.1 * max(ring_s)


def test_replicas_that_share_an_uplink_upload_slower() -> None:
    configuration = PlanSpec(
        network=load_network("alexnet-owt"), gpus=4, partition="replicas", batch_size=512
    )
    machine = load_machine("k20x8")
    shared = simulated(configuration, machine, data="none").devices[0].upload_s
    own = changed(machine, {"devices_per_uplink": 1})
    alone = simulated(configuration, own, data="none").devices[0].upload_s
    assert shared == pytest.approx(4 * alone, rel=0.02)


def test_columns_on_two_nodes_exchange_over_the_network() -> None:
    nodes = load_machine("gtx580x2", "", "10gbe")
    apart = changed(nodes, {"devices_per_node": 1})
    for transport in ("peer", "host"):
        configuration = replace(TWO, transport=transport)
        near, far = simulated(configuration, nodes), simulated(configuration, apart)
        assert sum(e.seconds for e in far.exchanges) > 3 * sum(e.seconds for e in near.exchanges)
        slow = changed(apart, {"network.bytes_per_s": 1e8})
        assert simulated(configuration, slow).step_s > far.step_s
    assert between(apart, 0, 1, 8).holds == ("link0.up", "node0.out", "node1.in", "link1.down")


def test_a_step_bound_by_the_data_path_is_as_sure_as_the_data_path() -> None:
    slow = changed(PAIR, {"decode_images_per_s": 50})
    result = simulated(TWO, slow)
    assert result.step_s == pytest.approx(128 / 50)
    assert result.step_interval.low > 0.55 * result.step_s
    assert 1.5 < result.step_interval.high / result.step_s < 1.7
    # A little slower than the devices: whichever is slower at either end counts.
    alone = simulated(TWO, library="roofline", data="none")
    even = changed(PAIR, {"decode_images_per_s": 128 / (1.2 * alone.step_s)})
    both = simulated(TWO, even, "roofline")
    assert both.step_s == pytest.approx(1.2 * alone.step_s)
    assert both.step_interval.low == pytest.approx(alone.step_interval.low, rel=0.03)
    assert both.step_interval.high == pytest.approx(
        both.step_s * result.step_interval.high / result.step_s
    )


def test_gradients_are_summed_while_the_backward_pass_goes_on() -> None:
    configuration = PlanSpec(
        network=load_network("alexnet-owt"), gpus=8, partition="replicas", batch_size=1024
    )
    serial = simulated(configuration, load_machine("k20x8"), data="none")
    overlap = simulated(
        replace(configuration, schedule="overlap"), load_machine("k20x8"), data="none"
    )
    assert overlap.all_reduce_s == pytest.approx(serial.all_reduce_s)
    assert overlap.step_s < serial.step_s - 0.5 * serial.all_reduce_s
    spans = {span.op_id: span for span in overlap.trace.spans}
    first, last = spans["fc8.a.all_reduce"], spans["conv1.a.all_reduce"]
    assert first.end_s < spans["conv1.a.grad_weight"].start_s < last.start_s
    assert {span.queue for span in overlap.trace.spans} >= {"compute", "network"}
    assert overlap.backward_s == pytest.approx(serial.backward_s, rel=0.2)
    # Its upload is hidden, in the serial step it is part of the forward pass.
    upload_s = serial.devices[0].exposed_upload_s
    assert overlap.forward_s == pytest.approx(serial.forward_s - upload_s, rel=0.1)


def test_hundreds_of_gpus_wait_for_their_network() -> None:
    net = load_network("alexnet-owt")
    images, steps = 128, {}
    for network in ("10gbe", "100gbe"):
        machine = changed(load_machine("p100", "", network), {"devices_per_node": 16})
        for count in (16, 256):
            configuration = PlanSpec(
                network=net, gpus=count, partition="replicas", batch_size=images * count
            )
            steps[network, count] = simulated(configuration, machine, "cudnn-v5.1", "none")
    for count in (16, 256):
        alone, wide = steps["10gbe", count], steps["100gbe", count]
        assert (alone.step_s > wide.step_s) == (count > 16)  # sixteen share a node
    slow = steps["10gbe", 256]
    rate = 1.125e9 * load_nccl().network_share.value
    least = 2 * 15 / 16 * 4 * net.parameters / rate
    assert slow.all_reduce_s - steps["10gbe", 16].all_reduce_s == pytest.approx(least, rel=0.05)
    assert slow.images_per_s < 0.6 * 16 * steps["10gbe", 16].images_per_s


def test_every_node_reads_and_decodes_its_own_images() -> None:
    net, machine = load_network("alexnet-owt"), load_machine("dgx-1", "", "100gbe")
    hosts = [
        simulated(
            PlanSpec(network=net, gpus=count, partition="replicas", batch_size=1024),
            machine,
            "cudnn-v5.1",
        ).host_s
        for count in (8, 16, 32)
    ]
    assert hosts == pytest.approx([hosts[0], hosts[0] / 2, hosts[0] / 4])


def test_an_all_reduce_is_at_least_its_bytes_over_the_link() -> None:
    machine = load_machine("k20x8")
    rate = machine.link.effective_bytes_per_s
    size = 244_000_000
    assert all_reduce_s(machine, 1, size, peer=True) == 0.0
    for count in (2, 4, 8):
        least = 2 * (count - 1) / count * size / rate
        assert least <= all_reduce_s(machine, count, size, peer=True) < 1.1 * least
    # Small buffers go by a tree: fewer rounds of latency.
    assert all_reduce_s(machine, 8, 4, peer=True) < 14 * machine.link.latency_s.value


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"gpus": 3}, "gpus must be 1 or 2"),
        ({"partition": "replicas", "gpus": 3}, "does not divide over 3"),
        ({"partition": "replicas", "gpus": 4}, "has 2 device"),
        ({"partition": "rows"}, "partition must be one of columns"),
        ({"partition": "replicas"}, "partition replicas needs a number of GPUs"),
    ],
)
def test_impossible_configurations_are_named(choices: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        simulated(replace(TWO, **choices))


def test_unknown_libraries_list_the_near_ones() -> None:
    with pytest.raises(ProfileError, match="did you mean cudnn-v4"):
        load_library("cudnn-4")


def write_goldens() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for name, (configuration, machine, library) in GOLDENS.items():
        result = simulated(configuration, load_machine(machine), library)
        document = simulation_document(
            result, configuration, training_of(result, images=1_281_167, epochs=90)
        ).document()
        del document["alexsim"]
        (GOLDEN / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write_goldens()
