"""What holds of every prediction, whatever the machine, network, library, schedule and split.

Machines are those that ship, with some numbers changed by up to eight times either way.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
from chains import CHAINS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alexsim.costs import cuda_convnet
from alexsim.costs.correction import UNFITTED, correction_of, load_correction
from alexsim.costs.cost import Work, convolution_shape
from alexsim.costs.gemm import gemm, peak_flop_per_s
from alexsim.costs.libraries import library_names, load_library, load_library_for
from alexsim.costs.precision import STEP_PRECISIONS, plan_precision
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, ProfileError
from alexsim.machine.collectives import all_gather_s, all_reduce_s
from alexsim.machine.device import Device, device_names, load_device
from alexsim.machine.machine import Machine, changed, load_machine, machine_names
from alexsim.machine.paths import between, from_host, to_host
from alexsim.network.layers import Convolution
from alexsim.network.network import Network
from alexsim.plan.buffers import partial_sum_copies
from alexsim.plan.plan import Category, OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.critical import elasticities, part_of
from alexsim.simulate.engine import Task, run
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import default_library, planned, simulate_network
from alexsim.simulate.summary import TimedSteps
from alexsim.simulate.tasks import TaskList
from alexsim.simulate.timer import DataPath, Timer

LAWS = settings(deadline=None, derandomize=True, max_examples=60)
ROUND = 1 + 1e-9

MORE = {
    "device.clock_hz": 1, "device.multiprocessors": 1, "device.memory_bytes_per_s": 1,
    "link.bytes_per_s": 1, "link.efficiency": 1, "link.latency_s": -1,
    "uplink.bytes_per_s": 1, "uplink.latency_s": -1,
    "peer_link.bytes_per_s": 1, "peer_link.latency_s": -1,
    "network.bytes_per_s": 1, "network.latency_s": -1,
    "decode_workers": 1, "decode_images_per_s": 1, "crop_workers": 1, "crop_images_per_s": 1,
    "disk_bytes_per_s": 1, "host_staging_bytes_per_s": 1,
}  # fmt: skip
"""Every number of a machine that is a resource: more is better, or less (latencies)."""
WHOLE = ("device.multiprocessors", "decode_workers", "crop_workers")


def value(machine: Machine, key: str) -> float | None:
    owner, _, number = key.rpartition(".")
    of = getattr(machine, owner) if owner else machine
    return None if of is None else float(getattr(of, number).value)


def scaled(machine: Machine, key: str, factor: float) -> Machine:
    """The machine with ``factor`` times of a resource, at least one more of what is counted."""
    now = value(machine, key)
    if now is None:
        return machine
    then = now * factor ** MORE[key]
    if key in WHOLE:
        then = max(1, round(then)) if factor < 1 else max(now + 1, round(then))
    return changed(machine, {key: min(then, 1.0) if key.endswith("efficiency") else then})


@st.composite
def machines(draw: st.DrawFn, network: str | None = None) -> Machine:
    name = draw(st.sampled_from((*machine_names(), *device_names())))
    networks = ("", "10gbe", "100gbe") if network is None else (network,)
    machine = load_machine(name, "", draw(st.sampled_from(networks)))
    for key in draw(st.sets(st.sampled_from(sorted(MORE)), max_size=5)):
        machine = scaled(machine, key, 2.0 ** draw(st.floats(-3, 3)))
    for key in draw(st.sets(st.sampled_from(["devices_per_uplink", "devices_per_node"]))):
        machine = changed(machine, {key: draw(st.sampled_from([1, 2, 4, 8]))})
    return machine


@st.composite
def timers(draw: st.DrawFn, machine: Machine) -> Timer:
    """A library that can compute so on the device, corrected or not."""
    name = draw(st.sampled_from([name for name in library_names() if name != "measured"]))
    precision = draw(st.sampled_from(STEP_PRECISIONS))
    try:
        library = load_library_for(name, machine.device, precision)
    except ProfileError:
        library, precision = load_library(name), "fp32"
    correction = correction_of(name) if draw(st.booleans()) else UNFITTED
    return Timer(machine=machine, library=library, correction=correction, precision=precision)


SIMULATED = [
    load_network(name)
    for name in ("lenet-5", "cifar10-quick", "alexnet-2012", "alexnet-owt", "vgg-f")
]


@st.composite
def configurations(draw: st.DrawFn, networks: Sequence[Network] = tuple(SIMULATED)) -> PlanSpec:
    network = draw(st.sampled_from(networks))
    split_by = ("columns", "replicas", "hybrid")[: 2 + (network.columns == 1)]
    partition = draw(st.sampled_from(split_by))
    images = draw(st.sampled_from([1, 3, 16, 31, 64, 100, 128, 256]))
    copies = draw(st.sampled_from([1, 2, 4, 8]))
    split = {"replicas": copies} if partition == "columns" else {"gpus": copies}
    return PlanSpec(
        network=network,
        partition=partition,
        variable_batch=partition == "hybrid" and copies > 1 and draw(st.booleans()),
        batch_size=images * copies,
        schedule=draw(st.sampled_from(["serial", "overlap"])),
        transport=draw(st.sampled_from(["", "peer", "host"])),
        policy=draw(st.sampled_from(["as-released", "in-place", "reuse"])),
        **split,
    )


def simulated(configuration: PlanSpec, timer: Timer, data: DataPath) -> Simulation:
    machine, columns = timer.machine, configuration.network.columns
    devices = configuration.shares * (columns if configuration.partition == "columns" else 1)
    assume(machine.network is not None or devices <= machine.devices_per_node.value)
    typed = replace(configuration, precision=plan_precision(timer.precision))
    return simulate_network(typed, timer, data=data)


PATHS = st.sampled_from(["jpeg", "none"])


@LAWS
@given(st.data(), machines(), configurations(), st.sampled_from(sorted(MORE)), PATHS)
def test_more_of_any_resource_is_never_slower(
    data: st.DataObject, machine: Machine, configuration: PlanSpec, key: str, path: DataPath
) -> None:
    timer = data.draw(timers(machine))
    faster = scaled(machine, key, data.draw(st.sampled_from([1.01, 1.3, 2, 5])))
    before = simulated(configuration, timer, path).step_s
    after = simulated(configuration, replace(timer, machine=faster), path).step_s
    assert after <= before * ROUND


@LAWS
@given(st.data(), machines("10gbe"), configurations(), PATHS)
def test_links_twice_as_fast_are_never_slower_nor_more_than_twice_as_fast(
    data: st.DataObject, machine: Machine, configuration: PlanSpec, path: DataPath
) -> None:
    timer = data.draw(timers(machine))
    chosen = data.draw(st.sets(st.sampled_from(["link", "uplink", "peer_link", "network"])))
    faster = machine
    for name in chosen:
        faster = scaled(faster, f"{name}.bytes_per_s", 2)
    before = simulated(configuration, timer, path).step_s
    after = simulated(configuration, replace(timer, machine=faster), path).step_s
    assert before / 2 / ROUND <= after <= before * ROUND


@LAWS
@given(st.data(), machines("100gbe"), configurations(), st.sampled_from([2, 3, 8, 16]), PATHS)
def test_each_of_n_gpus_is_never_faster_than_one_alone(
    data: st.DataObject, machine: Machine, alone: PlanSpec, count: int, path: DataPath
) -> None:
    timer = data.draw(timers(machine))
    partition = data.draw(st.sampled_from(["columns", "replicas"]))
    gpus = 1 if partition == "replicas" else None
    one = replace(
        alone, partition=partition, gpus=gpus, replicas=1, variable_batch=False,
        batch_size=alone.op_images,
    )  # fmt: skip
    times = {"gpus": count} if gpus else {"replicas": count}
    many = replace(one, batch_size=count * one.batch_size, **times)
    found, whole = (simulated(each, timer, path) for each in (one, many))
    assert whole.step_s * ROUND >= found.step_s
    assert whole.images_per_s <= count * found.images_per_s * ROUND


@LAWS
@given(st.data(), machines(), configurations(), PATHS)
def test_the_parts_are_the_whole_and_no_rate_is_over_its_peak(
    data: st.DataObject, machine: Machine, configuration: PlanSpec, path: DataPath
) -> None:
    timer = data.draw(timers(machine))
    found = simulated(configuration, timer, path)
    layers, ops = defaultdict(float), defaultdict(float)
    for layer in found.layers:
        layers[layer.device] += layer.total_s
    for op in found.ops:
        ops[op.device] += op.seconds
    for device in found.devices:
        computing = pytest.approx(device.busy_s, rel=1e-6)
        assert layers[device.name] == computing
        assert ops[device.name] == computing
        exposed = (
            device.exposed_exchange_s, device.exposed_all_reduce_s, device.exposed_upload_s,
        )  # fmt: skip
        assert min(exposed) >= 0
        assert device.busy_s + sum(exposed) + device.idle_s == pytest.approx(found.step_s, rel=1e-6)
    critical = found.critical_path
    assert sum(span.duration_s for span in critical) == pytest.approx(found.step_s, rel=1e-6)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in itertools.pairwise(critical))
    assert 0 < found.utilisation <= ROUND
    if not timer.library.algorithms - {"implicit"}:
        assert found.done_share == 1
    assert found.images_per_s <= (found.devices_count * found.ideal_training_images_per_s * ROUND)
    passed = found.batch_size / found.forward_s
    assert passed <= found.ideal_forward_images_per_s * ROUND
    link = max(machine.link.effective_bytes_per_s, machine.link.return_bytes_per_s)
    if machine.peer_link is not None:
        link = max(link, machine.peer_link.effective_bytes_per_s)
    for exchange in found.exchanges:
        # In a collective every device has a link that carries something.
        links = 1 if exchange.turn is None else found.devices_count
        assert exchange.size_bytes <= links * link * exchange.seconds * ROUND


PASSES = ("forward", "grad_input", "grad_weight", "update")


def gains_as_said(
    part: tuple[str, str],
    times: float,
    before: tuple[float, dict[tuple[str, str], float]],
    after: tuple[float, dict[tuple[str, str], float]],
) -> None:
    """A step's length is convex in the time of a part: from a part that is ``times`` as fast it
    gains at most what the elasticity says, and at least what that of the faster step says. Both are
    one figure where the critical path stays the same; elsewhere a path beside it has taken over."""
    (before_s, shares), (after_s, left) = before, after
    assert sum(shares.values()) == pytest.approx(1)
    most = (1 - 1 / times) * shares.get(part, 0.0) * before_s
    least = (times - 1) * left.get(part, 0.0) * after_s
    assert least - 1e-9 * before_s <= before_s - after_s <= most + 1e-9 * before_s


FASTER = st.sampled_from([1 / 0.99, 1 / 0.99, 2, 16])


@LAWS
@given(st.data(), machines(), configurations(), FASTER, PATHS)
def test_an_elasticity_is_what_a_step_that_is_simulated_again_gains(
    data: st.DataObject, machine: Machine, configuration: PlanSpec, times: float, path: DataPath
) -> None:
    timer = data.draw(timers(machine))

    def figures(faster: dict[tuple[str, str], float]) -> tuple[float, dict[tuple[str, str], float]]:
        found = simulated(configuration, replace(timer, faster=faster), path)
        return found.step_s, {
            (each.part, each.pass_name): each.share for each in found.elasticities
        }

    before = figures({})
    names = [layer.name for layer in configuration.network.layers]
    computed = [key for key in before[1] if key[1]] or list(itertools.product(names, PASSES))
    part = data.draw(st.sampled_from(sorted(computed)))
    gains_as_said(part, times, before, figures({part: times}))


@LAWS
@given(st.data(), machines(), configurations(), FASTER, PATHS)
def test_so_are_those_of_transfers_and_of_the_hosts_work(
    data: st.DataObject, machine: Machine, configuration: PlanSpec, times: float, path: DataPath
) -> None:
    timer = data.draw(timers(machine))
    simulated(configuration, timer, "none")  # the machine has so many devices
    made = planned(replace(configuration, precision=plan_precision(timer.precision)), machine)
    listed = TaskList(plan=made, timer=timer, data=path)
    listed.build(12)

    def figures() -> tuple[float, dict[tuple[str, str], float]]:
        timed = TimedSteps(listed=listed, times=run(listed.tasks), steps=12, looked_at=5)
        ends = (timed.closing(step)[0] for step in (5, 4))
        found = elasticities(listed, timed.times, *ends)
        return timed.step_s, {(each.part, each.pass_name): each.share for each in found}

    before = figures()
    part = data.draw(st.sampled_from(sorted(before[1], key=lambda key: (key[1], key[0]))))
    for task, (item, queue) in zip(listed.tasks, listed.ops, strict=True):
        task.seconds /= times if part_of(item, queue) == part else 1
    gains_as_said(part, times, before, figures())


EVERY = [load_network(name) for name in CHAINS]


def ops_of(made: Plan, timer: Timer) -> TaskList:
    listed = TaskList(plan=made, timer=timer, data="none")
    listed.build(1)
    return listed


@LAWS
@given(
    st.data(), machines(), st.sampled_from(EVERY), st.sampled_from([1, 8, 50, 128]),
    st.sampled_from(["device.clock_hz", "device.multiprocessors", "device.memory_bytes_per_s"]),
)  # fmt: skip
def test_no_op_is_over_a_peak_nor_slower_on_a_faster_device(
    data: st.DataObject, machine: Machine, network: Network, images: int, key: str
) -> None:
    timer = data.draw(timers(machine))
    fusion = data.draw(st.sampled_from(["none", "kernels"]))
    replicas = data.draw(st.sampled_from([1, 2]))
    made = plan(
        network, batch_size=replicas * images, replicas=replicas, fusion=fusion,
        precision=plan_precision(timer.precision),
    )  # fmt: skip
    faster = replace(
        timer, machine=scaled(machine, key, data.draw(st.sampled_from([1.01, 1.3, 5])))
    )
    before, after = (ops_of(made, each).costs.pieces for each in (timer, faster))
    peak = peak_flop_per_s(machine.device, timer.best_precision)
    bandwidth = machine.device.memory_bytes_per_s.value
    for op in made.ops():
        if op.id not in before:
            continue
        seconds = sum(cost.seconds for cost in before[op.id])
        assert sum(cost.seconds for cost in after[op.id]) <= seconds * ROUND, op.id
        done = sum(cost.flop for cost in before[op.id])
        assert done <= peak * seconds * ROUND, op.id
        if not timer.library.algorithms - {"implicit"}:
            assert done == op.count.flop
        halved = timer.precision == "fp16" and op.kind != OpKind.UPDATE
        assert op.count.moved_bytes / (1 + halved) <= bandwidth * seconds * ROUND, op.id


@LAWS
@given(st.data(), machines(), st.sampled_from(EVERY), st.sampled_from([1, 8, 50, 128, 4096]))
def test_a_fused_op_is_never_dearer_than_its_parts(
    data: st.DataObject, machine: Machine, network: Network, images: int
) -> None:
    timer = data.draw(timers(machine))
    fused, apart = (
        ops_of(plan(network, batch_size=replicas * images, replicas=replicas), timer)
        for replicas in (1, 2)
    )
    some = {op.layer for op in fused.plan.ops() if op.fused}
    assume(some)
    spent: tuple[dict[str, float], ...] = (defaultdict(float), defaultdict(float))
    for total, listed in zip(spent, (fused, apart), strict=True):
        for op in listed.plan.ops():
            if op.layer in some and op.kind in (OpKind.GRAD_WEIGHT, OpKind.UPDATE):
                # What the host's work on an op outlasts its kernels is no kernel's time.
                kernels = (cost for cost in listed.costs.pieces[op.id] if not cost.of_host)
                total[op.layer] += sum(cost.seconds for cost in kernels)
    for layer in some:
        assert spent[0][layer] <= spent[1][layer] * ROUND, layer


@LAWS
@given(
    st.data(), machines(), st.sampled_from(EVERY), st.sampled_from([1, 8, 50, 128, 4096]),
    st.sampled_from(["", "aten", "triton"]),
)  # fmt: skip
def test_two_layers_in_one_kernel_are_never_dearer_than_apart(
    data: st.DataObject, machine: Machine, network: Network, images: int, backend: str
) -> None:
    timer = data.draw(timers(machine))
    made, apart = (
        plan(
            network,
            batch_size=images,
            backend=backend,
            fusion=fusion,
            precision="fp32" if backend else plan_precision(timer.precision),
        )
        for fusion in ("kernels", "none")
    )
    first_of = {op.epilogue: op.layer for op in made.ops() if op.epilogue}
    spent: tuple[dict[str, float], ...] = (defaultdict(float), defaultdict(float))
    for total, listed in zip(spent, (ops_of(made, timer), ops_of(apart, timer)), strict=True):
        for op in listed.plan.ops():
            if op.id in listed.costs.pieces:
                layer = first_of.get(op.layer, op.layer)
                total[layer] += sum(cost.seconds for cost in listed.costs.pieces[op.id])
    assert spent[0].keys() == spent[1].keys()
    for layer, seconds in spent[0].items():
        assert seconds <= spent[1][layer] * ROUND, layer
        assert layer in first_of.values() or seconds == spent[1][layer]


SIDES = st.sampled_from([1, 9, 64, 130, 400, 4096])


@LAWS
@given(
    st.sampled_from([load_device(name) for name in ("gtx580", "k40", "p100", "h200")]),
    SIDES, SIDES, st.integers(1, 500_000), st.floats(-8, 0),
)  # fmt: skip
def test_a_product_is_split_as_is_fastest(
    device: Device, rows: int, columns: int, depth: int, narrower: float
) -> None:
    """Never dearer than unsplit; and each multiprocessor more, or a wider memory, may only help."""
    bandwidth = device.memory_bytes_per_s.value * 2**narrower

    def seconds(more: int, width: float, *, split: bool = True) -> float:
        count = device.multiprocessors.value + more
        card = device.changed(multiprocessors=count, memory_bytes_per_s=width * bandwidth)
        return gemm(card, rows, columns, depth, split=split, operands_move=False)[0]

    now = seconds(0, 1)
    assert now <= seconds(0, 1, split=False)
    for more in (1, 7, 100):
        assert seconds(more, 1) <= now * ROUND
    assert seconds(0, 1.1) <= now * ROUND


@LAWS
@given(machines("100gbe"), st.sampled_from([2, 3, 8, 16]), st.integers(1, 10**9), st.booleans())
def test_no_transfer_is_faster_than_every_link_that_it_crosses(
    machine: Machine, count: int, size: int, peer: bool
) -> None:
    own = max(machine.link.effective_bytes_per_s, machine.link.return_bytes_per_s)
    beyond = machine.network
    assert beyond is not None
    for path in (from_host(machine, 1, size), to_host(machine, 0, 1, size)):
        assert size <= own * path.seconds * ROUND
    fastest = max(own, machine.peer_link.effective_bytes_per_s if machine.peer_link else 0.0)
    assert size <= fastest * between(machine, 0, 1, size).seconds * ROUND
    whole = all_reduce_s(machine, count, size, peer=peer)
    # Whatever the way, each device's buffer leaves it once but for its own part, and so does the
    # sum; only a switch that adds takes each once.
    sums = machine.peer_link is not None and machine.peer_link.sums
    least = (1 if sums else 2 * (count - 1) / count) * size / fastest
    assert least <= whole * ROUND
    gathered = all_gather_s(machine, count, size, peer=peer)
    if machine.collectives == "nccl":
        assert whole / 2 <= gathered * ROUND
        assert gathered <= whole * ROUND
    else:
        assert gathered == pytest.approx(whole / 2)
    apart = changed(machine, {"devices_per_node": 1})
    slowest = min(own, beyond.effective_bytes_per_s)
    between_nodes = all_reduce_s(apart, count, size, peer=peer)
    assert 2 * (count - 1) / count * size <= slowest * between_nodes * ROUND


@LAWS
@given(st.data())
def test_shorter_tasks_never_end_later_where_order_is_given(data: st.DataObject) -> None:
    """The engine adds and takes maxima: what resources that are taken in turns do not ensure."""
    tasks = [
        Task(
            data.draw(st.floats(0, 10)),
            data.draw(st.sampled_from("abc")),
            tuple(data.draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else (),
        )
        for index in range(data.draw(st.integers(1, 12)))
    ]
    shorter = [replace(task, seconds=task.seconds * data.draw(st.floats(0, 1))) for task in tasks]
    assert all(a <= b for a, b in zip(run(shorter).end, run(tasks).end, strict=True))


MACHINES = (
    ("a100", "cudnn-v8"), ("p100", "cudnn-v5.1"), ("titan-x-maxwell", "nervana-winograd"),
    ("k40", "fbfft"), ("h200", "roofline"), ("gtx580x2", "cuda-convnet"),
)  # fmt: skip


@pytest.mark.parametrize("network", EVERY, ids=lambda network: network.name)
def test_no_edition_is_trained_faster_than_the_peak_allows(network: Network) -> None:
    for name, library in MACHINES:
        timer = Timer(
            machine=load_machine(name),
            library=load_library(library),
            correction=correction_of(library),
        )
        found = simulate_network(PlanSpec(network=network, gpus=1), timer, data="none")
        assert 0 < found.utilisation <= ROUND
        assert found.images_per_s < found.ideal_training_images_per_s * ROUND
        assert found.batch_size / found.forward_s < found.ideal_forward_images_per_s * ROUND
        assert found.done_share <= 1
        assert found.utilisation_counts == ("reduced" if found.done_share < 1 else "direct")
        if network.name == "vgg-a" and library in ("cudnn-v8", "cudnn-v5.1", "nervana-winograd"):
            # F(4 x 4, 3 x 3) does 36 multiplications for 144; not all that is done is Winograd's.
            assert 0.25 < found.done_share < 0.6
        if not timer.library.algorithms - {"implicit"}:
            assert found.done_share == 1


@pytest.mark.parametrize("network", EVERY, ids=lambda network: network.name)
def test_partial_sums_take_the_time_of_the_memory_that_holds_them(network: Network) -> None:
    made = plan(network)
    device, buffers = load_device("gtx580"), made.devices[0].buffers
    for op in made.devices[0].ops:
        part = made.part(op) if op.kind == OpKind.GRAD_WEIGHT else None
        if part is None or not isinstance(part.layer, Convolution):
            continue
        (held,) = (
            buffer
            for buffer in buffers
            if buffer.category == Category.PARTIAL_SUM
            and (buffer.layer, buffer.name.split(".")[-2]) == (op.layer, op.id.split(".")[1])
        )
        work = Work(kind=op.kind, part=part, batch_size=128, count=op.count)
        copies = partial_sum_copies(part)
        assert held.shape[0] == copies
        _, sums = cuda_convnet.convolution(device, work, "cuda-convnet")
        # Written, then read and added; the bias gradient sums the outputs'.
        moved = 2 * copies * 4 * part.weight_count + convolution_shape(work).output_bytes
        assert sums.least_s == pytest.approx(moved / device.memory_bytes_per_s.value)
        few = part.input_shape[0] // part.layer.groups <= 3
        blocks = cuda_convnet.first_generation(work).blocks
        assert blocks % copies == 0, (few, blocks)


@pytest.mark.parametrize("factor", [1e-12, 1e18])
@pytest.mark.parametrize("key", sorted(MORE))
def test_no_number_of_a_machine_makes_a_figure_that_is_none(key: str, factor: float) -> None:
    machine = load_machine("dgx-1", "", "10gbe")
    if key.endswith("efficiency"):
        factor = min(factor, 1.0)
    if key in WHOLE:
        factor = max(factor, 1.0)
    timer = Timer(
        machine=changed(machine, {key: factor}),
        library=load_library(default_library(machine)),
        correction=load_correction(),
    )
    lenet = PlanSpec(network=load_network("lenet-5"), gpus=16, partition="replicas")
    found = simulate_network(replace(lenet, batch_size=160), timer)
    assert 0 < found.step_s < math.inf
    for beyond in (1e-13, 1e19, math.nan, math.inf, -1.0):
        with pytest.raises(AlexsimError, match=key.rpartition(".")[2]):
            changed(machine, {key: beyond})
