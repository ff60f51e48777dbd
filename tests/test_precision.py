"""Mixed precision: which type each number has, what that holds and moves, and how long it takes."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_graph import GRAPHS, conv, graphs, network

from alexsim.cli.app import main
from alexsim.costs.correction import UNFITTED, load_correction
from alexsim.costs.gemm import gemm, peak_flop_per_s
from alexsim.costs.libraries import load_library_for
from alexsim.editions.load import load_network
from alexsim.errors import PlanError, ProfileError
from alexsim.execute.executor import Executor
from alexsim.machine.machine import load_machine
from alexsim.network.layers import (
    Add,
    Auxiliary,
    Concat,
    Elementwise,
    FullyConnected,
    Layer,
    LayerNorm,
    Operator,
    Parameter,
    Product,
    ReLU,
    Role,
    Saved,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan.plan import Buffer, Category, OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.precision import LISTS, output_bytes
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulator import simulate, simulate_network
from alexsim.simulate.tasks import TaskList
from alexsim.simulate.timer import timer_of

SOME = settings(deadline=None, derandomize=True, max_examples=40)
MACROS = {
    "half": ("LOWER_PRECISION_FP",),
    "float": ("FP32",),
    "float result": ("FP32_SET_OPT_DTYPE", "DIFFERENT_REDISPATCH_SIGNATURE"),
}


def test_the_lists_are_those_of_pytorch() -> None:
    spec = importlib.util.find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    header = (Path(spec.origin).parent / "include/ATen/autocast_mode.h").read_text("utf-8")
    for rule, macros in MACROS.items():
        names = set()
        for macro in macros:
            body = re.search(rf"#define AT_FORALL_{macro}\(_\)((?:.*\\\n)*.*\n)", header)
            assert body is not None
            names |= set(re.findall(r"_\((?:ADD_NS\()?(\w+)", body[1]))
        if torch.__version__.startswith("2.13."):
            assert names == LISTS[rule]
        others = frozenset().union(*(LISTS[other] for other in LISTS if other != rule))
        assert not names & others


def test_what_is_on_no_list_takes_the_widest_type_of_what_it_reads() -> None:
    """PyTorch's own promotion, which the rule for all other layers rests on."""
    half, wide = torch.ones(2, 4, 6, 6, dtype=torch.bfloat16), torch.ones(2, 4, 6, 6)
    f, scale = torch.nn.functional, torch.ones(4)
    for same in (
        f.relu(half), f.hardswish(half), f.gelu(half), f.silu(half), f.max_pool2d(half, 2),
        f.avg_pool2d(half, 2), f.adaptive_avg_pool2d(half, 1), f.dropout(half, 0.5),
        half + half, half * half, torch.cat([half, half]), f.batch_norm(
            half, scale.clone(), scale.clone(), scale, scale, training=True
        ),
    ):  # fmt: skip
        assert same.dtype == torch.bfloat16
    for widened in (half + wide, half * wide, torch.cat([half, wide]), half * scale[:, None, None]):
        assert widened.dtype == torch.float32


def buffers(planned: Plan) -> dict[str, Buffer]:
    return {buffer.name: buffer for device in planned.devices for buffer in device.buffers}


UNEVEN = network(
    conv("c0", 4), ReLU(name="r0"), conv("c1", 4), LayerNorm(name="n1"),
    Concat(name="cat", inputs=("r0", "n1")),
)  # fmt: skip
"""What lies side by side would have two types: the ReLU's output is half, the norm's is not."""
NETWORKS = st.one_of(graphs(), st.sampled_from([*GRAPHS.values(), load_network("alexnet-2012")]))


@SOME
@example(net=UNEVEN, policy="in-place", fusion="none", schedule="serial", frozen=False)
@given(
    NETWORKS, st.sampled_from(["as-released", "in-place", "reuse"]),
    st.sampled_from(["none", "kernels"]), st.sampled_from(["serial", "overlap"]), st.booleans(),
)  # fmt: skip
def test_every_buffer_has_its_type(
    net: Network, policy: str, fusion: str, schedule: str, frozen: bool
) -> None:
    trainable = frozenset(net.weighted_layers[-1:]) if frozen else None
    full, mixed = (
        plan(
            net, batch_size=8, policy=policy, fusion=fusion, schedule=schedule, optimizer="sgd",
            trainable=trainable, precision=precision,
        )
        for precision in ("fp32", "amp")
    )  # fmt: skip
    sizes = output_bytes(net, "amp")
    before, after = buffers(full), buffers(mixed)
    outputs = (Category.ACTIVATION, Category.ACTIVATION_GRAD, Category.REMOTE, Category.REMOTE_GRAD)
    copies = 0
    for name, buffer in after.items():
        if name.endswith((".cast", ".half")):
            assert buffer.item_bytes == 2 or not name.endswith(".half")
            copies += buffer.size_bytes
        elif buffer.category in outputs:
            assert buffer.item_bytes == sizes[buffer.layer], name
        else:
            assert (buffer.shape, buffer.item_bytes) == (
                before[name].shape,
                before[name].item_bytes,
            )
        # What lies side by side, or shares memory, has one type.
        assert buffer.item_bytes == after.get(buffer.shares, buffer).item_bytes
    blocks: dict[tuple[str, str], set[int]] = {}
    for buffer in after.values():
        if buffer.category in outputs:
            blocks.setdefault((buffer.device, buffer.block), set()).add(buffer.item_bytes)
    assert all(len(items) == 1 for items in blocks.values())
    # A gradient or output that shares float32 memory has its own where types differ.
    apart = sum(
        after[name].size_bytes
        for name, buffer in before.items()
        if buffer.shares and not after[name].shares
    )
    for one, other in zip(full.devices, mixed.devices, strict=True):
        assert other.live_peak_bytes <= one.live_peak_bytes + copies + apart
    # Every copy is made before it is read; every op that is not a cast is still there.
    for device in mixed.devices:
        made = set()
        for op in device.ops:
            made |= set(op.writes)
            assert {n for n in op.reads if n.endswith((".cast", ".half"))} <= made, op.id
    assert {op.id for op in full.ops()} <= {op.id for op in mixed.ops()}
    assert sum(op.count.mac for op in full.ops()) == sum(op.count.mac for op in mixed.ops())


def test_bytes_by_hand() -> None:
    """A fully connected layer of float32 images: each is cast once, and so is each weight."""
    net = Network(
        name="by hand",
        input_shape=(6, 1, 1),
        layers=(
            FullyConnected(name="fc1", units=10),
            FullyConnected(name="fc2", units=3),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )
    mixed = plan(net, batch_size=4, precision="amp")
    count = {op.id: op.count for op in mixed.ops()}
    x, y, z, w1, w2 = 4 * 6, 4 * 10, 4 * 3, 6 * 10 + 10, 10 * 3 + 3
    forward = count["fc1.a.forward"]
    assert forward.cast_bytes == (4 + 2) * (x + w1)
    assert forward.moved_bytes - forward.cast_bytes == 2 * (x + w1 + y)
    assert count["fc2.a.forward"].cast_bytes == (4 + 2) * w2
    assert count["fc2.a.grad_weight"].moved_bytes == 2 * (y + z + w2) + (2 + 4) * w2
    assert count["fc2.a.grad_input"].moved_bytes == 2 * (y + z + 30)
    assert count["softmax.a.forward"].moved_bytes == 2 * z + 4 * z
    assert count["fc1.a.update"].moved_bytes == 4 * 5 * w1
    held = buffers(mixed)
    assert held["gpu0/fc1.a.x0.cast"].size_bytes == 2 * x
    assert held["gpu0/fc1.a.weight.half"].size_bytes == 2 * 60
    assert held["gpu0/fc1.a.weight.momentum"].size_bytes == 4 * 60
    # Autocast's copies of the weights live until the layer's backward pass is over.
    reuse = plan(net, batch_size=4, precision="amp", policy="reuse")
    (device,) = reuse.devices
    order = [op.id for op in device.ops]
    for layer, last in (("fc1", "grad_weight"), ("fc2", "grad_input")):
        half = buffers(reuse)[f"gpu0/{layer}.a.weight.half"]
        assert order[half.first] == f"{layer}.a.forward"
        assert order[half.last] == f"{layer}.a.{last}"


def test_half_weights_of_turns_are_cast_once() -> None:
    spec = PlanSpec(
        network=load_network("alexnet-owt"), partition="hybrid", gpus=2, batch_size=64,
        precision="amp",
    )  # fmt: skip
    casts = {op.id: op.count.cast_bytes for op in plan(spec).ops() if op.kind == OpKind.FORWARD}
    assert casts["fc7.a.turn0.forward"] > 6 * 4096 * 2048 > casts["fc7.a.turn1.forward"] == 0


def test_layers_that_share_parameters_share_their_copies() -> None:
    """The first that computes in half precision makes them: a lookup in the table does not."""
    table = Parameter("weight", (6, 6), Role.WEIGHT)
    lookup = Operator(name="table", target="embedding", shape=(6,), operands=(table,))
    times = Product(1, 6, 6)
    first, second = (
        Operator(
            name=name, target="linear", shape=(6,), operands=(table,), shares="table",
            products=(times,), grad_products=((times,),), keeps=Saved((0,)),
        )
        for name in ("first", "second")
    )  # fmt: skip
    layers = (lookup, first, second, SoftmaxCrossEntropy(name="cost"))
    net = Network(name="tied", input_shape=(6,), layers=layers)
    mixed = plan(net, batch_size=4, precision="amp", policy="reuse")
    halves = [name for name in buffers(mixed) if name.endswith("weight.half")]
    assert halves == ["gpu0/first.a.weight.half"]
    casts = {op.id: op.count.cast_bytes for op in mixed.ops() if op.kind == OpKind.FORWARD}
    assert casts == {
        "table.a.forward": 0,
        "first.a.forward": 6 * (24 + 36),
        "second.a.forward": 0,
        "cost.a.forward": 0,
    }
    readers = {op.id for op in mixed.ops() if halves[0] in op.reads}
    assert readers == {
        f"{layer}.a.{kind}"
        for layer in ("first", "second")
        for kind in ("grad_weight", "grad_input")
    } | {"second.a.forward"}


def block() -> Network:
    """Self-attention of eight tokens in two heads, after a norm; added to what went in."""

    def operator(name: str, target: str, *inputs: str, **fields: object) -> Operator:
        shape = fields.pop("shape", (8, 16))
        return Operator(name=name, target=target, inputs=inputs, shape=shape, **fields)

    def linear(name: str, read: str, units: int) -> Operator:
        weight = Parameter("weight", (units, 16), Role.WEIGHT)
        return operator(
            name, "linear", read, shape=(8, units), operands=(weight,), keeps=Saved((0,)),
            products=(Product(8, 16, units),), grad_products=((Product(8, units, 16),),),
        )  # fmt: skip

    scores, mixed = Product(8, 8, 8, 2, per_image=True), Product(8, 8, 16, 2, per_image=True)
    norm = (Parameter("weight", (16,), Role.SCALE), Parameter("bias", (16,), Role.SHIFT))
    means = Auxiliary("mean", (8, 1), "norm")
    layers: tuple[Layer, ...] = (
        linear("embed", "input", 16),
        operator("norm", "layer_norm", "embed", operands=norm, flop=Elementwise(1024, 1408, 512),
                 keeps=Saved((0,), beside=(means,))),
        linear("query", "norm", 16), linear("key", "norm", 16), linear("value", "norm", 16),
        operator("attend", "scaled_dot_product_attention", "query", "key", "value",
                 products=(scores, scores), keeps=Saved((0, 1, 2), output=True),
                 grad_products=((scores, mixed), (scores,), ())),
        operator("flat", "reshape", "attend", is_view=True),
        Add(name="sum", inputs=("embed", "flat")),
        operator("scaled", "mul", "sum", operands=norm[:1], flop=Elementwise(128, 128, 128)),
        operator("exponents", "softmax", "scaled", flop=Elementwise(640, 512)),
        FullyConnected(name="head", units=5),
        SoftmaxCrossEntropy(name="cost"),
    )  # fmt: skip
    return Network(name="block", input_shape=(8, 16), layers=layers)


def test_a_product_that_autocast_keeps_in_float32_is_timed_so() -> None:
    layer = Operator(name="x", target="cdist", shape=(64, 64), products=(Product(64, 64, 64),))
    ends = (FullyConnected(name="fc", units=5), SoftmaxCrossEntropy(name="cost"))
    net = Network(name="distances", input_shape=(64, 64), layers=(layer, *ends))
    seconds = []
    for precision in ("fp32", "amp"):
        timer = timer_of("cudnn-v8", load_machine("a100"), UNFITTED, precision)
        listed = TaskList(plan=plan(net, batch_size=512, precision=precision), timer=timer,
                          data="none")  # fmt: skip
        listed.build(1)
        seconds.append(listed.costs.pieces["x.a.forward"][0].seconds)
    assert seconds[0] == seconds[1]


def test_types_of_operators() -> None:
    assert output_bytes(block(), "amp") == {
        "input": 4, "embed": 2, "norm": 4, "query": 2, "key": 2, "value": 2, "attend": 2, "flat": 2,
        "sum": 2, "scaled": 4, "exponents": 4, "head": 2, "cost": 4,
    }  # fmt: skip
    assert set(output_bytes(block(), "fp32").values()) == {4}


MACHINES = ("v100", "a100", "h200", "p100", "rtx3090")


@SOME
@given(
    st.one_of(graphs(), st.just(block()), st.sampled_from(list(GRAPHS.values()))),
    st.sampled_from(MACHINES), st.sampled_from(["cudnn-v7", "cudnn-v8", "roofline"]),
    st.sampled_from(["fp32", "tf32", "fp16", "amp", "pytorch"]), st.sampled_from([1, 32, 4096]),
    st.booleans(), st.sampled_from(["none", "kernels"]),
)  # fmt: skip
def test_no_op_is_over_the_peak_of_its_type(
    net: Network, name: str, library: str, precision: str, images: int, fitted: bool, fusion: str
) -> None:
    machine = load_machine(name)
    device, correction = machine.device, load_correction() if fitted else UNFITTED
    try:
        timer = timer_of(library, machine, correction, precision)
    except ProfileError:
        return
    amp = precision == "amp"
    made = plan(net, batch_size=images, precision="amp" if amp else "fp32", fusion=fusion)
    listed = TaskList(plan=made, timer=timer, data="none")
    listed.build(1)
    half = {"convolution", "fullyconnected", "linear", "scaled_dot_product_attention"}
    for op in made.ops():
        if op.id not in listed.costs.pieces:
            continue
        seconds = sum(cost.seconds for cost in listed.costs.pieces[op.id]) * (1 + 1e-9)
        layer = made.part(op).layer
        kind = layer.target if isinstance(layer, Operator) else type(layer).__name__.lower()
        word = precision
        if amp:
            word = "fp16" if kind in half else "fp32"
        elif precision == "pytorch":
            takes = kind == "convolution" and library != "cudnn-v7"
            word = "tf32" if takes and device.tensor_tf32_flop_per_s else "fp32"
        done = sum(cost.flop for cost in listed.costs.pieces[op.id])
        assert done <= peak_flop_per_s(device, word) * seconds, op.id
        if word != "fp32" or library == "roofline":
            assert done == op.count.flop, op.id
        halved = precision == "fp16" and op.kind != OpKind.UPDATE
        moved = op.count.moved_bytes / (2 if halved else 1)
        assert moved <= device.memory_bytes_per_s.value * seconds, op.id


@pytest.mark.parametrize("precision", ["fp32", "amp"])
def test_an_operators_products_take_their_time(precision: str) -> None:
    """Every product as one of cuBLAS's, never below what the op's bytes take."""
    machine = load_machine("a100")
    timer = timer_of("cudnn-v8", machine, UNFITTED, precision)
    made = plan(block(), batch_size=1 << 16, precision=precision)
    listed = TaskList(plan=made, timer=timer, data="none")
    listed.build(1)
    flop = {op.id: sum(cost.flop for cost in listed.costs.pieces[op.id]) for op in made.ops()
            if op.id in listed.costs.pieces}  # fmt: skip
    images, scores = 1 << 16, 2 * 8 * 8 * 8 * 2
    assert flop["attend.a.forward"] == 2 * scores * images
    grads = [flop[f"attend.a.grad_input{index}"] for index in range(3)]
    assert grads == [3 * scores * images, scores * images, 0]
    for kind in ("forward", "grad_weight", "grad_input"):
        assert flop[f"query.a.{kind}"] == 2 * 8 * 16 * 16 * images
    assert not [op.id for op in made.ops() if op.layer == "flat"]
    kind = "fp16" if precision == "amp" else "fp32"

    def product(rows: int, columns: int, depth: int, batches: int = 1) -> float:
        return gemm(
            machine.device, rows, columns, depth, batches=batches, split=True, vectors=True,
            operands_move=False, precision=kind,
        )[0]  # fmt: skip

    scores_s, mixed_s = product(8, 8, 8, 2 * images), product(8, 16, 8, 2 * images)
    for op, times in {
        "attend.a.forward": (scores_s, scores_s),
        "attend.a.grad_input0": (scores_s, mixed_s),
        "attend.a.grad_input1": (scores_s,),
        "query.a.forward": (product(8 * images, 16, 16),),
        "query.a.grad_weight": (product(16, 16, 8 * images),),
    }.items():
        costs = [cost for cost in listed.costs.pieces[op] if cost.flop]
        assert len(costs) == len(times)
        assert sorted(c.seconds for c in costs) == sorted(
            max(seconds, cost.least_s) for seconds, cost in zip(times, costs, strict=True)
        )
    simulation = simulate(made, timer, data="none")
    assert math.isfinite(simulation.step_s)
    assert simulation.computed.half_type == ("bf16" if precision == "amp" else "")


def test_float16_checks_its_gradients_and_bfloat16_does_not() -> None:
    net = load_network("vgg-f")
    made = plan(net, batch_size=32, precision="amp")
    for name, times in (("v100", 5 + 2), ("a100", 5)):
        machine = load_machine(name)
        timer = timer_of("cudnn-v8" if name == "a100" else "cudnn-v7", machine, UNFITTED, "amp")
        listed = TaskList(plan=made, timer=timer, data="none")
        listed.build(1)
        (cost, *_) = listed.costs.pieces["fc6.a.update"]
        parameters = net.part_of("fc6", 0).parameters
        bytes_per_s = machine.device.memory_bytes_per_s.value
        assert cost.seconds == pytest.approx(4 * times * parameters / bytes_per_s)


def test_a_plan_and_its_timer_have_one_precision_and_nothing_runs_it() -> None:
    net, machine = load_network("lenet-5"), load_machine("a100")
    timer = timer_of("cudnn-v8", machine, UNFITTED, "amp")
    with pytest.raises(PlanError, match="needs a plan of precision amp; this one's is fp32"):
        simulate_network(PlanSpec(network=net), timer)
    with pytest.raises(PlanError, match="no backend runs it"):
        PlanSpec(network=net, precision="amp", backend="aten")
    with pytest.raises(PlanError, match="precision must be one of fp32, amp; got 'bf16'"):
        PlanSpec(network=net, precision="bf16")
    with pytest.raises(PlanError, match="is counted, not run"):
        Executor(plan(net, precision="amp"))
    with pytest.raises(ProfileError, match=r"cudnn-v5\.1 has no fp16 kernels"):
        load_library_for("cudnn-v5.1", load_machine("p100").device, "amp")
    with pytest.raises(ProfileError, match="cudnn-v7 has no bf16 kernels"):
        load_library_for("cudnn-v7", machine.device, "amp")


@pytest.mark.parametrize("name", ["resnet50", "alexnet-owt"])
def test_mixed_precision_lies_between_all_half_and_float32(name: str) -> None:
    """By the mechanism; of fits, kernels of the precisions teach trees of their own."""
    machine = load_machine("a100")
    for correction in (UNFITTED, load_correction()):
        times = {}
        for precision in ("fp16", "amp", "pytorch", "fp32"):
            spec = PlanSpec(
                network=load_network(name), batch_size=128, optimizer="sgd",
                precision="amp" if precision == "amp" else "fp32",
            )  # fmt: skip
            timer = timer_of("cudnn-v8", machine, correction, precision)
            times[precision] = simulate_network(spec, timer, data="none").step_s
        assert max(times["fp16"], times["amp"]) < times["pytorch"] < times["fp32"]
        assert times["fp16"] < times["amp"] or correction is not UNFITTED


@pytest.mark.parametrize(
    ("line", "said", "keys"),
    [
        ("a100 --precision amp", "mixed: products in bf16", ("amp", "bf16", True, True)),
        ("v100 --precision amp", "mixed: products in fp16", ("amp", "fp16", True, False)),
        ("p100 --library cudnn-v7 --precision amp", "no tensor cores",
         ("amp", "fp16", False, False)),
        ("a100", "PyTorch itself would use TF32 here: --precision pytorch",
         ("fp32", "", False, True)),
        ("a100 --library roofline", "", ("fp32", "", False, False)),
        ("a100 --precision pytorch", "convolutions in TF32, the rest", ("pytorch", "", True, True)),
        ("v100", "", ("fp32", "", False, False)),
    ],
)  # fmt: skip
def test_which_type_was_taken_is_said(
    line: str, said: str, keys: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", "--net", "lenet-5", "--machine", *line.split(), *more])
        assert not ended.value.code
        told.append(capsys.readouterr().out)
    answer = " ".join(told[0].split())
    assert said in answer
    assert said or not re.search("PyTorch|mixed:", answer)
    document = json.loads(told[1])
    names = ("precision", "half_type", "tensor_cores", "tf32_by_default")
    assert tuple(document[name] for name in names) == keys
