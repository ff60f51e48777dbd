"""Networks that are graphs: a training step against autograd, in float64."""

from __future__ import annotations

import math
from functools import partial

import graph_reference
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim.errors import NetworkError
from alexsim.execute.aten.elementwise import FORWARD
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.random import dropout_keep
from alexsim.network.layers import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LayerNorm,
    LeakyReLU,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    ReLU,
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Network
from alexsim.network.update_rules import is_state
from alexsim.plan.planner import plan
from alexsim.train.weights import state_shapes

SEED, BATCH, STEPS = 7, 4, 3
RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)


def conv(name: str, filters: int, size: object = 3, **fields: object) -> Convolution:
    fields = {"padding": 1, "rounding": "floor", "weight_std": 0.3, "bias_init": 0.1} | fields
    return Convolution(name=name, filters=filters, size=size, **fields)


def network(*layers: Layer, columns: int = 1) -> Network:
    units, reads = (5, "own") if columns == 1 else ((5, *[0] * (columns - 1)), "all")
    end = (
        FullyConnected(name="fc", units=units, reads=reads, weight_std=0.3),
        SoftmaxCrossEntropy(name="softmax"),
    )
    return Network(name="drawn", input_shape=(3, 9, 7), columns=columns, layers=(*layers, *end))


def around(layer: Layer, *, added: bool) -> Network:
    """The layer behind a convolution; its input may be read by another as well, so that its
    gradient is added to what that gave."""
    side = (
        AdaptiveAveragePool(name="side", size=2, inputs=("first",)),
        Add(name="sum", inputs=("small", "side")),
    )
    small = AdaptiveAveragePool(name="small", size=2)
    return network(conv("first", 6), layer, small, *(side if added else ()))


SINGLE = [
    conv("x", 6, 1, padding=0),
    conv("x", 6, 1, padding=0, bias=False),
    conv("x", 6, (1, 3), padding=(0, 1), stride=(2, 1)),
    conv("x", 6, 3, dilation=2, padding=2, groups=3, bias=False),
    conv("x", 6, (5, 2), dilation=(1, 2), rounding="ceil", stride=2),
    conv("x", 6, 3, groups=6),
    MaxPool(name="x", size=3, stride=2, padding=1, rounding="floor"),
    MaxPool(name="x", size=(3, 2), stride=(2, 3), rounding="ceil"),
    MaxPool(name="x", size=3, stride=1, padding=1, rounding="floor"),
    AveragePool(name="x", size=3, stride=2, padding=1, rounding="ceil"),
    AveragePool(name="x", size=(2, 3), stride=2, padding=1, rounding="floor", count_padding=False),
    AveragePool(name="x", size=2, stride=2, rounding="floor"),
    AdaptiveAveragePool(name="x", size=(4, 3)),
    LocalResponseNorm(name="x", alpha=0.1),
    SpatialResponseNorm(name="x", alpha=0.1),
    BatchNorm(name="x"),
    LayerNorm(name="x"),
    LeakyReLU(name="x", slope=0.2),
    *(kind(name="x") for kind in FORWARD),
    Dropout(name="x", rate=0.3),
    Dropout(name="x", rate=0.3, rescaled=True),
    Dropout(name="x", rate=0.3, rescaled=True, whole_images=True),
]

GRAPHS = {
    "shortcut": network(
        conv("c0", 6), BatchNorm(name="n0"), ReLU(name="r0"),
        conv("c1", 6), BatchNorm(name="n1"), ReLU(name="r1"),
        conv("c2", 6, bias=False), BatchNorm(name="n2"),
        Add(name="a2", inputs=("n2", "r0")), ReLU(name="r2"),
        conv("c3", 8, stride=2), BatchNorm(name="n3"),
        conv("d3", 8, 1, stride=2, padding=0, inputs=("r2",)), BatchNorm(name="m3"),
        Add(name="a3", inputs=("n3", "m3")), ReLU(name="r3"),
        conv("c4", 8), Add(name="a4", inputs=("c4", "r3")),
        conv("c5", 8), Add(name="a5", inputs=("c5", "a4", "r3")),
    ),
    "softmax-of-images": Network(
        name="softmax-of-images", input_shape=(3, 6, 6),
        layers=(conv("c0", 4), ReLU(name="r0"), SoftmaxCrossEntropy(name="softmax")),
    ),
    "sums-of-sums": network(
        conv("c0", 4), conv("c1", 4, inputs=("c0",)), conv("c2", 4, inputs=("c0",)),
        Add(name="a1", inputs=("c1", "c2")),
        conv("c3", 4, inputs=("c0",)), Add(name="a2", inputs=("a1", "c3")),
    ),
    "branches": network(
        conv("c0", 6), ReLU(name="r0"),
        conv("b1", 4, 1, padding=0, inputs=("r0",)), ReLU(name="br1"),
        conv("b3", 5, 3, inputs=("r0",)), ReLU(name="br3"),
        MaxPool(name="bp", size=3, stride=1, padding=1, rounding="floor", inputs=("r0",)),
        conv("bc", 3, 1, padding=0),
        Concat(name="cat", inputs=("br1", "br3", "bc")),
        MaxPool(name="p", size=3, stride=2, rounding="ceil"),
    ),
    "dense": network(
        conv("c0", 6), MaxPool(name="p0", size=2, stride=2, rounding="ceil"),
        BatchNorm(name="n1"), ReLU(name="r1"), conv("c1", 4),
        Concat(name="cat1", inputs=("p0", "c1")),
        BatchNorm(name="n2"), ReLU(name="r2"), conv("c2", 4),
        Concat(name="cat2", inputs=("p0", "c1", "c2")),
        BatchNorm(name="n3"), ReLU(name="r3"), conv("c3", 4),
        Concat(name="cat3", inputs=("cat2", "c3")),
        BatchNorm(name="n4"), ReLU(name="r4"),
    ),
    "copied concatenations": network(
        conv("c0", 4), conv("c1", 5),
        Concat(name="cat1", inputs=("c0", "c1")),
        conv("c2", 4),
        Concat(name="cat2", inputs=("c1", "c2", "c0")),
        ReLU(name="r2"), conv("c3", 4),
        Concat(name="cat3", inputs=("c3", "cat1")),
        BatchNorm(name="n3"), conv("c4", 3),
        conv("c5", 3, inputs=("c1",)),
        Add(name="a", inputs=("c4", "c5")),
    ),
    "excitation": network(
        conv("c0", 6), SiLU(name="s0"),
        AdaptiveAveragePool(name="squeeze", size=1),
        conv("f1", 2, 1, padding=0), SiLU(name="f1s"),
        conv("f2", 6, 1, padding=0), Sigmoid(name="f2s"),
        Multiply(name="excite", inputs=("s0", "f2s")),
        conv("c1", 6), Multiply(name="square", inputs=("c1", "excite")),
        Dropout(name="depth", rate=0.4, rescaled=True, whole_images=True),
        Add(name="a", inputs=("depth", "excite")),
    ),
    "halves": network(
        conv("c0", 6), conv("d0", 6, inputs=("c0",)), Concat(name="cat0", inputs=("c0", "d0")),
        ChannelShuffle(name="left1", part=0, parts=2),
        ChannelShuffle(name="right1", inputs=("cat0",), part=1, parts=2), conv("c1", 6),
        BatchNorm(name="n1"), ReLU(name="r1"), Concat(name="cat1", inputs=("left1", "r1")),
        ChannelShuffle(name="shuffle"), conv("c2", 5), BatchNorm(name="n2"),
    ),
    "heads": network(
        conv("c0", 6), ReLU(name="r0"),
        AveragePool(name="ap", size=3, stride=2, rounding="floor"),
        FullyConnected(name="aux", units=5, weight_std=0.3),
        SoftmaxCrossEntropy(name="aux_softmax", weight=0.3),
        conv("c1", 6, inputs=("r0",)), ReLU(name="r1"),
        FullyConnected(name="late", units=5, weight_std=0.3),
        SoftmaxCrossEntropy(name="late_softmax", weight=0.7),
        MaxPool(name="p", size=2, stride=2, rounding="floor", inputs=("r1",)),
    ),
}  # fmt: skip

COLUMNS = {
    "what two layers read of all columns crosses once": network(
        conv("c0", 4), ReLU(name="r0"),
        conv("c1", 4, reads="all"), BatchNorm(name="n1"),
        conv("c2", 4, reads="all", inputs=("r0",)),
        Add(name="a", inputs=("n1", "c2")), ReLU(name="r"),
        MaxPool(name="p", size=2, stride=2, rounding="ceil"),
        columns=2,
    ),
    "branches of columns": network(
        conv("c0", 4), SiLU(name="s0"),
        conv("b1", 2, 1, padding=0, inputs=("s0",)),
        conv("b3", 3, inputs=("s0",)),
        Concat(name="cat", inputs=("b1", "b3")),
        conv("c1", 4, reads="all"),
        AdaptiveAveragePool(name="squeeze", size=1),
        conv("e", 4, 1, padding=0, reads="all"), Sigmoid(name="es"),
        Multiply(name="excite", inputs=("c1", "es")),
        columns=3,
    ),
    "a concatenation that all columns read": network(
        conv("c0", 4), conv("c1", 4, reads="all"),
        Concat(name="cat", inputs=("c0", "c1")),
        conv("c2", 4, reads="all"),
        Add(name="a", inputs=("c2", "c1")),
        columns=2,
    ),
}  # fmt: skip


def masks_of(net: Network, step: int) -> dict[str, torch.Tensor]:
    masks = {}
    for parts in net.parts:
        layer = parts[0].layer
        if isinstance(layer, Dropout):
            shape = parts[0].auxiliary[0].shape
            keep = dropout_keep(
                seed=SEED, layer=layer.name, step=step, images=range(BATCH),
                units=range(layer.draws(parts[0].output_shape)), rate=layer.rate,
            )  # fmt: skip
            masks[layer.name] = torch.from_numpy(keep).double().view(BATCH, *shape)
    return masks


def minibatch(net: Network, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, *net.input_shape, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, net.classes, (BATCH,), generator=generator)


def ours(net: Network, steps: int = STEPS, **choices: object) -> tuple[list, dict, dict]:
    choices = {"backend": "native", "threads": torch.get_num_threads()} | choices
    executor = Executor(plan(net, batch_size=BATCH, **choices), dtype=torch.float64, seed=SEED)
    executor.initialise()
    first = {name: tensor.clone() for name, tensor in executor.state().items()}
    losses = [
        executor.step(*minibatch(net, step), step=step, hyperparameters=RATES).losses.mean()
        for step in range(steps)
    ]
    losses.append(executor.evaluate(*minibatch(net, 99)).losses.mean())
    return losses, first, executor.state()


def told(answer: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss that is reported: of no image more than that of the least probability there is."""
    most = -math.log(torch.finfo(torch.float64).tiny)
    return (-answer[range(BATCH), labels]).clamp(max=most).mean()


def theirs(net: Network, first: dict, steps: int = STEPS) -> tuple[list, dict]:
    state = {name: tensor.clone() for name, tensor in first.items()}
    trained = [name.removesuffix(".momentum") for name in state if name.endswith(".momentum")]
    for name in trained:
        state[name].requires_grad_()
    losses = []
    for step in range(steps):
        images, labels = minibatch(net, step)
        made = graph_reference.forward(net, state, images, masks_of(net, step), training=True)
        cost = graph_reference.cost(net, made, labels)
        grads = torch.autograd.grad(cost, [state[name] for name in trained])
        answer = made[f"{net.layers[-1].name}.a"]
        losses.append(told(answer, labels).detach())
        with torch.no_grad():
            for name, grad in zip(trained, grads, strict=True):
                value, inc = state[name], state[f"{name}.momentum"].mul_(RATES.momentum)
                layer, _, kind = name.split(".")
                if kind == "weight" and not isinstance(
                    net.parts_of(layer)[0].layer, BatchNorm | LayerNorm
                ):
                    inc.sub_(RATES.weight_rate * (RATES.weight_decay * value + grad))
                else:
                    inc.sub_(RATES.bias_rate * grad)
                value.add_(inc)
    images, labels = minibatch(net, 99)
    with torch.no_grad():
        made = graph_reference.forward(net, state, images, {}, training=False)
    losses.append(told(made[f"{net.layers[-1].name}.a"], labels))
    return losses, {name: tensor.detach() for name, tensor in state.items()}


def assert_trains_as_autograd_does(
    net: Network, *, steps: int = STEPS, learns: bool = True, rounding: float = 1e-15,
    **choices: object,
) -> None:  # fmt: skip
    losses, first, last = ours(net, steps, **choices)
    expected_losses, expected = theirs(net, first, steps)
    torch.testing.assert_close(
        torch.stack(losses), torch.stack(expected_losses), rtol=1e-10, atol=0
    )
    for name, tensor in last.items():
        change, exact = tensor - first[name], expected[name] - first[name]
        # What a batch norm takes away again does not learn.
        assert exact.norm() > 0 or ".bias" in name or not learns, f"{name} did not learn"
        assert (change - exact).norm() <= 1e-10 * exact.norm() + rounding, name


@pytest.mark.parametrize("backend", ["aten", "native"])
@pytest.mark.parametrize("added", [False, True], ids=["written", "added"])
@pytest.mark.parametrize("layer", SINGLE, ids=lambda layer: type(layer).__name__)
def test_a_layer_trains_as_autograd_does(layer: Layer, added: bool, backend: str) -> None:
    assert_trains_as_autograd_does(around(layer, added=added), backend=backend)


@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
@pytest.mark.parametrize(
    "layer",
    [
        conv("x", 4), LocalResponseNorm(name="x", size=3), SpatialResponseNorm(name="x", size=3),
        BatchNorm(name="x"), MaxPool(name="x", size=3, stride=2, rounding="ceil"),
        AveragePool(name="x", size=2, stride=2, rounding="floor"),
    ],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_images_that_lie_as_rows_are_copied_in_scratch_that_is_planned(
    layer: Layer, policy: str
) -> None:
    """A product reads what the layer writes, in its memory or behind a ReLU; or what it reads."""
    first, products = (
        conv("c", 6),
        [
            FullyConnected(name=f"of {name}", units=4, weight_std=0.3, inputs=(name,))
            for name in "xc"
        ],
    )
    both = network(first, layer, *products, Add(name="sum", inputs=("of x", "of c")))
    for net in (network(first, layer), network(first, layer, ReLU(name="r")), both):
        assert_trains_as_autograd_does(net, policy=policy, steps=1)
        made = plan(net, batch_size=BATCH, backend="native", policy=policy)
        Executor(made).initialise()  # refuses scratch beyond the plan's


@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
@pytest.mark.parametrize(
    ("schedule", "backend"), [("serial", "native"), ("overlap", "native"), ("overlap", "aten")]
)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_trains_as_autograd_does(
    name: str, policy: str, schedule: str, backend: str
) -> None:
    assert_trains_as_autograd_does(GRAPHS[name], policy=policy, schedule=schedule, backend=backend)


ONE_INPUT = (
    ReLU, BatchNorm, Dropout, LayerNorm, SiLU, Sigmoid,
    partial(LocalResponseNorm, size=3), partial(conv, filters=4, weight_std=0.1),
    partial(MaxPool, size=3, stride=1, padding=1, rounding="floor", ties="first"),
    partial(AveragePool, size=3, stride=1, padding=1, rounding="floor"),
)  # fmt: skip


@st.composite
def graphs(draw: st.DrawFn) -> Network:
    """Layers of one shape in any graph: sums of sums, concatenations that lie in one block or not,
    outputs that many read; all that nobody reads is joined at the end."""
    layers: list[Layer] = [conv("c", 4)]
    outputs, unread = ["c"], {"c"}

    def add(layer: Layer, *, joined: bool = False) -> None:
        layers.append(layer)
        unread.difference_update(layer.inputs)
        unread.add(layer.name)
        if not joined:
            outputs.append(layer.name)

    # One product: those of products put out what float64 has no probabilities for.
    products = {"product"}
    for index in range(draw(st.integers(2, 9))):
        name = f"l{index}"
        kinds = ("one", "one", "sum", "sum", "concatenation", *products)
        kind = draw(st.sampled_from(kinds))
        products.discard(kind)
        if kind == "one":
            source = draw(st.sampled_from(outputs[-4:]))
            add(draw(st.sampled_from(ONE_INPUT))(name=name, inputs=(source,)))
            continue
        most = 2 if kind == "product" else 3
        sources = st.lists(st.sampled_from(outputs), min_size=2, max_size=most, unique=True)
        read = tuple(draw(sources)) if len(outputs) > 1 else ()
        if read and kind == "concatenation":
            add(Concat(name=f"{name}c", inputs=read), joined=True)
            add(conv(name, 4, 1, padding=0, inputs=(f"{name}c",)))
        elif read:
            add((Add if kind == "sum" else Multiply)(name=name, inputs=read))
    if len(unread) > 1:
        add(draw(st.sampled_from((Add, Concat)))(name="end", inputs=tuple(sorted(unread))))
    return network(*layers)


@settings(max_examples=80, deadline=None)
@given(graphs(), st.data())
def test_any_graph_trains_as_autograd_does(net: Network, data: st.DataObject) -> None:
    weighted = st.sampled_from(net.weighted_layers)
    trainable = data.draw(st.none() | st.frozensets(weighted, min_size=1))
    schedule = data.draw(st.sampled_from(("serial", "overlap")))
    fusion = data.draw(st.sampled_from(("none", "kernels")))
    backend = data.draw(st.sampled_from(("aten", "native")))
    for policy in ("as-released", "in-place", "reuse"):
        assert_trains_as_autograd_does(
            net, steps=1, learns=False, rounding=1e-11, policy=policy, schedule=schedule,
            fusion=fusion, trainable=trainable, backend=backend,
        )  # fmt: skip


def test_what_is_beside_a_gradient_is_no_reason_to_pass_it_on() -> None:
    """``r0`` does not learn, nor does ``p``, which reads it; it lies beside ``c1``, which does."""
    net = network(
        conv("c0", 4), ReLU(name="r0"), MaxPool(name="p", size=3, stride=1, padding=1),
        conv("c1", 4, inputs=("r0",)), Concat(name="cat", inputs=("r0", "c1")),
        conv("c2", 4, 1, padding=0), Add(name="a", inputs=("c2", "p")),
    )  # fmt: skip
    assert_trains_as_autograd_does(net, trainable=frozenset({"c1", "c2", "fc"}), learns=False)


@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
@pytest.mark.parametrize("schedule", ["serial", "overlap"])
@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_a_graph_train_as_autograd_does(name: str, policy: str, schedule: str) -> None:
    net = COLUMNS[name]
    assert_trains_as_autograd_does(net, policy=policy, schedule=schedule)
    apart, _, several = ours(net, policy=policy, schedule=schedule)
    together, _, alone = ours(net, gpus=1, policy=policy, schedule=schedule)
    # Not to the bit: a device adds what its layers give back before it sends the sum.
    torch.testing.assert_close(apart, together, rtol=1e-12, atol=0)
    torch.testing.assert_close(several, alone, rtol=1e-10, atol=1e-15)


def test_what_several_layers_read_of_another_device_crosses_once_each_way() -> None:
    made = plan(COLUMNS["what two layers read of all columns crosses once"], batch_size=BATCH)
    of_r0 = [(e.source, e.direction) for e in made.exchanges if e.layer == "r0"]
    assert sorted(of_r0) == sorted(
        (f"gpu{device}", direction) for device in (0, 1) for direction in ("forward", "backward")
    )


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((conv("c", 4), Add(name="a", inputs=("c", "d"))), "no layer 'd' stands before it"),
        ((conv("c", 4), Add(name="a", inputs=("c",))), "it reads two or more different outputs"),
        ((conv("c", 4), Add(name="a", inputs=("c", "c"))), "two or more different outputs"),
        ((conv("c", 4), conv("d", 5), Add(name="a", inputs=("c", "d"))), "differ in shape"),
        ((conv("c", 4), conv("d", 4, inputs=("input",))), "no layer reads 'c'"),
        (
            (conv("c", 4), conv("d", 4, stride=2), Concat(name="a", inputs=("c", "d"))),
            "inputs of different shapes",
        ),
        (
            (conv("c", 4), conv("d", 5), Multiply(name="a", inputs=("c", "d"))),
            "neither the shape .* nor one value per channel",
        ),
    ],
)
def test_graphs_that_cannot_be_are_named(layers: tuple[Layer, ...], says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        network(*layers)


def test_saved_weights_have_every_parameter_of_every_layer() -> None:
    """What a run saves beside its update rule's state is what `eval` and `--init-from` expect."""
    for net in (*GRAPHS.values(), *COLUMNS.values()):
        executor = Executor(plan(net, batch_size=BATCH, backend="aten"))
        saved = {
            name: tuple(tensor.shape)
            for name, tensor in executor.state().items()
            if not is_state(name)
        }
        assert saved == state_shapes(net)
