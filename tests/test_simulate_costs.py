"""Cost models against the facts, against limits that no kernel beats, and against each other."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexsim.costs.correction import load_correction
from alexsim.costs.cost import Work, convolution_shape
from alexsim.costs.cublas import product_of_2014
from alexsim.costs.cuda_convnet import (
    FIRST_RELEASE,
    SECOND_RELEASE,
    Launch,
    first_generation,
    launch_of,
    seconds,
)
from alexsim.costs.cudnn import VERSIONS, algorithms, candidates
from alexsim.costs.gemm import gemm
from alexsim.costs.libraries import library_names, load_library, load_library_for
from alexsim.costs.rounds import Round, lane_share
from alexsim.editions.load import load_network
from alexsim.errors import ProfileError
from alexsim.machine.device import load_architecture, load_device
from alexsim.machine.machine import load_machine
from alexsim.network.counts import forward
from alexsim.network.layers import Convolution
from alexsim.plan.plan import Op, OpKind
from alexsim.plan.planner import plan
from alexsim.simulate.simulator import default_library

FERMI = load_device("gtx580")
NETWORK = load_network("alexnet-2012")
PLAN = plan(NETWORK)

# Layer, pass: grid, shared bytes per block, sums per thread, work padding, ms at the bound: the
# table of the Fermi kernels (cuda-convnet v1, per GPU at 128 images; conv3 over both inputs).
KERNELS = {
    ("conv1", "forward"): (9075, 6912, 16, 1.025, 13.1),
    # Of its 6 sums, 3 for each of two pixels in turn.
    ("conv1", "grad_weight"): (1815 * 8, 8256, 3, 1.058, 24.1),
    ("conv2", "forward"): (2916, 5120, 32, 1.12, 27.9),
    ("conv2", "grad_input"): (3 * 729, 9280, 16, 0.913, 24.8),
    ("conv2", "grad_weight"): (486 * 42, 12544, 16, 1.12, 33.0),
    ("conv4", "forward"): (1014, 5120, 32, 1.333, 16.6),
    ("conv4", "grad_input"): (12 * 169, 9280, 16, 0.90, 12.3),
    ("conv4", "grad_weight"): (39 * 72, 12544, 16, 1.333, 19.7),
    ("conv5", "forward"): (676, 5120, 32, 1.333, 11.1),
    ("conv5", "grad_input"): (12 * 169, 9280, 16, 0.90, 8.2),
    ("conv5", "grad_weight"): (26 * 72, 12544, 16, 1.333, 13.1),
}


def op_of(layer: str, kind: str) -> Op:
    return next(op for op in PLAN.devices[0].ops if (op.layer, op.kind) == (layer, kind))


def work_of(op: Op) -> Work:
    return Work(kind=op.kind, part=PLAN.part(op), batch_size=128, count=op.count, fused=op.fused)


def milliseconds_at_the_bound(work: Work, launch: Launch) -> float:
    """The table's bound: a multiply-add or a load is issued per clock, and a load of one word takes
    the load/store lanes of Fermi two clocks."""
    sums, loads = launch.round.sums, launch.round.loads
    bound = sums / max(sums + loads, 2 * loads)
    return 1e3 * work.count.flop * launch.padding / (FERMI.flop_per_s * bound)


@pytest.mark.parametrize(("layer", "kind"), KERNELS)
def test_the_fermi_kernels_are_those_of_the_table(layer: str, kind: str) -> None:
    blocks, shared, sums, padding, milliseconds = KERNELS[layer, kind]
    work = work_of(op_of(layer, kind))
    launch = first_generation(work)
    assert (launch.blocks, launch.round.sums) == (blocks, sums)
    # A thread's words lie in shared memory, whose rows may have one word more.
    assert 4 * 128 * launch.round.words == pytest.approx(shared, rel=0.03)
    assert launch.padding == pytest.approx(padding, abs=0.005)
    assert milliseconds_at_the_bound(work, launch) == pytest.approx(milliseconds, rel=0.01)
    # Words that are brought, addresses and barriers come on top, and what the last wave loses.
    assert 1.2 < 1e3 * seconds(FERMI, work, launch)[0] / milliseconds < 1.6


def test_the_sums_at_the_bound_are_the_facts() -> None:
    totals = dict.fromkeys(("forward", "grad_input", "grad_weight"), 0.0)
    for op in PLAN.devices[0].ops:
        if op.layer.startswith("conv") and op.kind in totals:
            work = work_of(op)
            totals[op.kind] += milliseconds_at_the_bound(work, first_generation(work))
    assert totals["forward"] == pytest.approx(91, rel=0.02)
    assert totals["grad_input"] == pytest.approx(62, rel=0.02)
    assert totals["grad_weight"] == pytest.approx(116, rel=0.02)


def test_releases_of_cuda_convnet_differ_as_its_log_says() -> None:
    """Weight gradients 33 % faster since September 2011, batches of 32 and 64 about twice since
    February 2012: there by mechanism, blocks of 128 images against blocks of as many as there are.
    """

    def milliseconds(kind: str, library: str, batch: int) -> float:
        work = replace(work_of(op_of("conv2", kind)), batch_size=batch)
        work = replace(work, count=forward(work.part, batch))
        return seconds(FERMI, work, launch_of(FERMI, work, library))[0]

    first, second, last = FIRST_RELEASE, SECOND_RELEASE, "cuda-convnet"
    assert milliseconds("grad_weight", first, 128) == pytest.approx(
        4 / 3 * milliseconds("grad_weight", second, 128)
    )
    for kind in ("forward", "grad_input"):
        assert milliseconds(kind, second, 128) == milliseconds(kind, last, 128)
        assert 1.7 < milliseconds(kind, second, 32) / milliseconds(kind, last, 32) < 2.3
        assert 1.3 < milliseconds(kind, second, 64) / milliseconds(kind, last, 64) < 2.3


ROUNDS = st.builds(
    Round, st.integers(1, 8), st.integers(1, 16), st.integers(1, 64), st.integers(1, 32),
    st.floats(0, 64), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]),
)  # fmt: skip


@given(ROUNDS, st.sampled_from(["fermi", "kepler", "maxwell"]), st.floats(1, 4))
def test_a_round_takes_no_less_for_a_better_multiprocessor(
    of: Round, name: str, better: float
) -> None:
    architecture = load_architecture(name)
    share = lane_share(architecture, of)
    assert 0 < share <= 1
    for key in ("issue_warps_per_clock", "load_store_lanes_per_sm"):
        more = architecture.changed(**{key: getattr(architecture, key).value * better})
        assert lane_share(more, of) >= share * 0.999999
    # What one load brings at once costs no more than word by word.
    assert share >= lane_share(architecture, replace(of, distinct_width=1, common_width=1)) * 0.9999


def test_products_on_fermi_keep_the_published_bounds() -> None:
    """Lai and Seznec 2013: at most 82.5 % of peak on a GTX 580, 57.6 % on a GTX 680; SHOC's table:
    60 % with CUDA 3.2 on four cards, up to 71 % since CUDA 4.1."""
    for card, most in (("gtx580", 0.825), ("gtx680", 0.576)):
        device = load_device(card)
        share = 2 * 8192**3 / gemm(device, 8192, 8192, 8192)[0] / device.flop_per_s
        assert most - 0.15 < share < most
    old = 2 * 4096**3 / gemm(FERMI, 4096, 4096, 4096, cublas="cuda-3")[0] / FERMI.flop_per_s
    assert old == pytest.approx(0.6, abs=0.02)


def test_products_of_one_image_wait_as_measured() -> None:
    """DeepBench, Titan X, CUDA 7.5, no transposes: milliseconds of thin and of large products."""
    card = load_device("titan-x-maxwell")
    measured = {
        (1760, 64, 1760): 0.247, (2560, 64, 2560): 0.361, (4096, 64, 4096): 0.657,
        (4096, 128, 4096): 0.957, (3072, 128, 1024): 0.185, (5124, 9124, 2048): 39.8,
        (4608, 48000, 1536): 131.1,
    }  # fmt: skip
    for sides, milliseconds in measured.items():
        assert 1e3 * product_of_2014(card, *sides)[0] == pytest.approx(milliseconds, rel=0.4), sides


def test_blocks_of_cuda_convnet_are_whole() -> None:
    """32 images per block and thread row: four each where that divides the batch, two, or one."""
    op = op_of("conv2", "forward")
    per_batch = {}
    for batch in (1, 32, 33, 64, 96, 127, 128):
        work = replace(work_of(op), batch_size=batch)
        work = replace(work, count=forward(work.part, batch))
        launch = first_generation(work)
        per_batch[batch] = launch.padding * batch
        assert launch.round.sums == 8 * {128: 4, 64: 2}.get(batch, 1)
    assert per_batch[1] == pytest.approx(per_batch[32])
    assert per_batch[33] == pytest.approx(per_batch[64])
    assert per_batch[127] == pytest.approx(per_batch[128])
    assert per_batch[96] == pytest.approx(3 * per_batch[32])


def direct(name: str) -> bool:
    return not name.startswith(("cudnn-v3", "cudnn-v4", "cudnn-v5", "cudnn-v6", "cudnn-v7"))


@pytest.mark.parametrize("device", ["gtx580", "k40", "titan-x-maxwell", "p100", "v100", "h200"])
@pytest.mark.parametrize("library", [n for n in library_names() if n != "measured"])
def test_no_direct_algorithm_beats_the_roofline(device: str, library: str) -> None:
    card, model = load_device(device), load_library(library)
    bound = load_library("roofline")
    reduced = model.algorithms - {"implicit"}
    for op in PLAN.devices[0].ops:
        if op.kind in (OpKind.FORWARD, OpKind.GRAD_WEIGHT, OpKind.UPDATE):
            work = work_of(op)
            time = sum(cost.seconds for cost in model.costs(card, work))
            least = bound.costs(card, work)[0].seconds
            # FFT and Winograd need fewer multiplications, by up to 4 or so.
            assert time >= least / (6 if reduced else 1) * 0.999, op.id
            assert time < 60 * least + 1e-3, op.id


@pytest.mark.parametrize("device", ["l4", "t4", "titan-x-maxwell", "v100"])
def test_an_implicit_product_is_bound_by_arithmetic_and_by_memory(device: str) -> None:
    model = load_library("cudnn-v2")
    for layer in ("conv1", "conv2", "conv3"):
        work = work_of(op_of(layer, "forward"))
        times = []
        for share in (0.5, 0.75, 1.0, 2.0):
            card = load_device(device)
            card = card.changed(memory_bytes_per_s=share * card.memory_bytes_per_s.value)
            times.append(model.costs(card, work)[0].seconds)
            assert times[-1] >= work.count.flop / card.flop_per_s
        assert times == sorted(times, reverse=True)


def test_newer_versions_choose_among_more_algorithms_and_are_never_slower() -> None:
    card, work = load_device("titan-x-maxwell"), work_of(op_of("conv4", "forward"))
    times = []
    for old, new in itertools.pairwise(VERSIONS):
        assert algorithms(old) <= algorithms(new)
    for version in VERSIONS:
        model = load_library(f"cudnn-{version}")
        times.append(model.costs(card, work)[0].seconds)
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0]


@pytest.mark.parametrize("library", ["cudnn-v4", "cudnn-v8", "fbfft", "nervana-winograd"])
def test_the_fastest_way_is_taken_and_none_is_corrected_by_itself(library: str) -> None:
    model, card = load_library(library), load_device("titan-x-maxwell")
    several = 0
    for op in PLAN.devices[0].ops:
        if not op.count.mac:
            continue
        work = work_of(op)
        if not isinstance(work.part.layer, Convolution):
            continue
        shape = convolution_shape(work)
        ways = candidates(card, op.kind, shape, model.algorithms, "fp32")
        several += len(ways) > 1
        chosen = model.costs(card, work, "fp32")[0]
        alone = [
            replace(model, algorithms=frozenset({name})).costs(card, work, "fp32")[0]
            for name in ways
        ]
        assert chosen.seconds == min(cost.seconds for cost in alone)
        # A correction of one way alone would lead a faster card to a slower way.
        assert {cost.traits for cost in alone} == {chosen.traits}
        assert all(load_correction().time(cost) >= cost.least_s > 0 for cost in alone)
    assert several > 5


def test_a_product_takes_at_least_its_flop_and_bytes() -> None:
    card = load_device("titan-x-maxwell")
    for rows, columns, depth in ((1, 1, 1), (64, 169, 1728), (4096, 128, 9216), (4096, 1, 4096)):
        time, limit = gemm(card, rows, columns, depth)
        assert time >= 2 * rows * columns * depth / card.flop_per_s
        operands = rows * depth + depth * columns + rows * columns
        assert time >= 4 * operands / card.memory_bytes_per_s.value
        assert limit in ("compute", "memory", "launch")
    assert gemm(card, 4096, 1, 4096, vectors=True)[1] == "memory"
    assert gemm(card, 2048, 2048, 2048)[1] == "compute"


def test_tensor_cores_speed_up_products_in_half_precision() -> None:
    card = load_device("v100")
    single = gemm(card, 4096, 4096, 4096)[0]
    assert gemm(card, 4096, 4096, 4096, precision="fp16")[0] < single / 4
    old = load_device("titan-x-maxwell")
    assert gemm(old, 4096, 4096, 4096, precision="fp16")[0] == gemm(old, 4096, 4096, 4096)[0]


@pytest.mark.parametrize("name", ["mi100", "rx6900-xt", "i7-6700k", "cortex-a57x4", "v100"])
def test_libraries_run_on_the_devices_of_their_platform_alone(name: str) -> None:
    machine = load_machine(name)
    device = machine.device
    able = {
        "hip": {"miopen"},
        "cpu": {"onednn", "im2col-gemm"},
        "cuda": {*library_names()} - {"miopen", "onednn"},
    }[device.architecture.platform] | {"roofline", "measured"}
    assert default_library(machine) in able - {"roofline", "measured"}
    for library in library_names():
        if library not in able:
            with pytest.raises(ProfileError, match=f"{library} does not run on .*roofline"):
                load_library_for(library, device, "fp32")
            continue
        model = load_library_for(library, device, "fp32")
        if library == "measured":
            continue
        # No prediction is over the device's peaks, and a CPU's host issues nothing beside it.
        ops = [op for op in PLAN.devices[0].ops if op.count.mac]
        costs = [cost for op in ops for cost in model.costs(device, work_of(op))]
        assert all(load_correction().time(cost) >= cost.least_s > 0 for cost in costs if cost.flop)
        assert device.architecture.platform != "cpu" or not any(cost.of_host for cost in costs)


def test_advice_without_a_trial_costs_what_was_measured() -> None:
    """Hardly anything in AlexNet's layers, much in depthwise ones: forward convolutions of eight
    cards, of which the fastest algorithm and the one that cuDNN advises were timed."""
    correction, ratios = load_correction(), {}
    for network in ("alexnet-owt", "mobilenet_v2"):
        times = []
        for library in ("cudnn-v7", "cudnn-v7-heuristic"):
            model = load_library(library, "mxnet")
            total = 0.0
            for part, *_ in load_network(network).parts:
                if isinstance(part.layer, Convolution):
                    work = Work(
                        kind=OpKind.FORWARD,
                        part=part,
                        batch_size=16,
                        count=forward(part, 16),
                    )
                    total += correction.time(model.costs(load_device("v100"), work)[0])
            times.append(total)
        ratios[network] = times[1] / times[0]
    assert 0.95 < ratios["alexnet-owt"] < 1.5
    assert ratios["mobilenet_v2"] > 1.2
