"""A module of PyTorch's as a network: the module under autograd is its own reference."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch_models
from eager_reference import tracked
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import alexsim
from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.errors import NetworkError, RunError
from alexsim.execute.context import Choices, Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.interchange import from_torch as from_torch_module
from alexsim.interchange.module_state import module_state, saved
from alexsim.ledger.tables import flop_table
from alexsim.machine.machine import load_machine
from alexsim.network.layers import Convolution
from alexsim.network.network import Network
from alexsim.network.not_run import unsupported, unsupported_mac_share
from alexsim.plan.autograd import Tape
from alexsim.plan.eager import live_peak
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.plan.steps import StepList
from alexsim.plan.tensors import Eager
from alexsim.simulate.simulator import on_machine
from alexsim.train.weights import load_weights

SHAPE, BATCH, STEPS = (3, 28, 28), 6, 3
RATE = 1e-2
TRACKED = Eager(byte_masks=False, state_beside=False, sums_in_place=False)
"""A card's rules, but fake tensors are a CPU's, and a tracker keeps sums from being in place."""


def built(kind: type[nn.Module], shape: tuple[int, ...] = SHAPE) -> nn.Module:
    torch.manual_seed(0)
    module = kind()
    with torch.no_grad():
        module.eval()(torch.zeros(2, *shape))  # lazy layers get their shapes
    return module.double()


def minibatch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, *SHAPE, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, torch_models.CLASSES, (BATCH,), generator=generator)


def cost(output: object, labels: torch.Tensor) -> torch.Tensor:
    outputs = output if isinstance(output, tuple) else (output,)
    weights = (1.0, *[0.3] * (len(outputs) - 1))
    return sum(w * F.cross_entropy(o, labels) for w, o in zip(weights, outputs, strict=True))


def executor_of(network: Network, **choices: object) -> Executor:
    planned = plan(network, batch_size=BATCH, backend="aten", optimizer="sgd", **choices)
    executor = Executor(planned, Choices(dtype=torch.float64))
    executor.initialise()
    state = executor.state()
    theirs = {
        f"{name.rpartition('.')[0]}.a.{name.rpartition('.')[2]}": value
        for name, key in network.keys.items()
        for value in (network.module.state_dict()[key],)
    }
    assert {name for name in state if "momentum" not in name} == theirs.keys()
    executor.load_state({name: theirs.get(name, value) for name, value in state.items()})
    return executor


@pytest.mark.parametrize("policy", ["as-released", "reuse"])
@pytest.mark.parametrize("name", torch_models.MODELS)
def test_three_steps_are_the_module_under_autograd(name: str, policy: str) -> None:
    """Loss, every parameter and running statistic: what is equal after three steps of gradient
    descent with momentum had equal gradients."""
    module = built(torch_models.MODELS[name])
    network = alexsim.from_torch(module, SHAPE)
    assert network.not_run == ()
    executor = executor_of(network, policy=policy)
    module.train()
    learns = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learns, lr=RATE, momentum=0.9)
    for step in range(STEPS):
        images, labels = minibatch(step)
        context = executor.step(
            images, labels, step=step,
            hyperparameters=Hyperparameters(
                weight_rate=RATE, bias_rate=RATE, momentum=0.9, weight_decay=0
            ),
        )  # fmt: skip
        optimizer.zero_grad()
        output = module(images)
        answer = output[0] if isinstance(output, tuple) else output
        losses = F.cross_entropy(answer, labels, reduction="none")
        torch.testing.assert_close(context.losses, losses.detach(), rtol=1e-10, atol=1e-10)
        cost(output, labels).backward()
        optimizer.step()
    trained, state = executor.state(), module.state_dict()
    for ours, key in network.keys.items():
        layer, _, parameter = ours.rpartition(".")
        torch.testing.assert_close(
            trained[f"{layer}.a.{parameter}"], state[key], rtol=1e-10, atol=1e-10
        )
    counts = {key for key in state if key.endswith("num_batches_tracked")}
    assert set(network.keys.values()) == state.keys() - counts


# What there are no kernels for

COUNTED: dict[type[nn.Module], tuple[int, ...]] = {
    torch_models.Attention: (3, 32, 32),
    torch_models.Shuffle: SHAPE,
    torch_models.Windows: SHAPE,
    torch_models.Volumes: (3, 5, 8, 8),
    torch_models.Signals: (2, 40),
    torch_models.Latents: (3, 32, 32),
    torch_models.Queries: (3, 32, 32),
    torch_models.Seeds: (3, 32, 32),
    torch_models.Token: (3, 32, 32),
}
EVERY = {**dict.fromkeys(torch_models.MODELS.values(), SHAPE), **COUNTED}


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_parameters_and_flop_are_pytorchs_own(kind: type[nn.Module]) -> None:
    """To the digit, but that PyTorch's counter takes weight gradients of grouped convolutions for
    those of whole ones, and that attention computes its scores again, as on cards: on ``meta`` they
    are kept."""
    shape = EVERY[kind]
    module = built(kind, shape).train()
    network = alexsim.from_torch(module, shape)
    table = flop_table(network, BATCH)
    module.to("meta")
    with FlopCounterMode(display=False) as forward:
        output = module(torch.zeros(BATCH, *shape, dtype=torch.float64, device="meta"))
    labels = torch.zeros(BATCH, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as backward:
        cost(output, labels).backward()
    assert network.parameters == sum(parameter.numel() for parameter in module.parameters())
    assert table.flop * BATCH == forward.get_total_flops()
    scores = [la.products[0].multiply_adds for la in network.not_run if "attention" in la.target]
    whole = [
        (layer.groups - 1) * parts[0].multiply_adds
        for layer, parts in zip(network.layers, network.parts, strict=True)
        if isinstance(layer, Convolution)
    ]
    ours = table.training_flop - table.flop + 2 * (sum(whole) - sum(scores))
    assert ours * BATCH == backward.get_total_flops()


def test_what_no_image_changes_is_no_layer() -> None:
    """Masks made in the images' type, and what is computed of parameters: the layer that reads them
    has the parameters. Of ``expand_as`` the second argument is a shape."""
    network = alexsim.from_torch(built(torch_models.Windows), SHAPE)
    of_masks = ("new_zeros", "sub", "ne", "eq", "masked_fill", "exp", "prod")
    assert not {layer.target for layer in network.not_run} & set(of_masks)
    assert all(len(layer.inputs) < 2 for layer in network.not_run if layer.views)
    assert {"scale", "bias"} <= {name.rpartition(".")[2] for name in network.keys} | {
        parameter.name for layer in network.not_run for parameter in layer.operands
    }


ROWS, WIDTH = 6, 16
REPEATED = {
    "expand": lambda p, x: p.expand(len(x), -1, -1),
    "expand behind": lambda p, x: p.unsqueeze(1).expand(-1, len(x), -1).transpose(0, 1),
    "expand_as": lambda p, x: p.expand_as(x[:, :ROWS]),
    "broadcast_to": lambda p, x: torch.broadcast_to(p, (len(x), *p.shape)),
    "repeat": lambda p, x: p.repeat(len(x), 1, 1),
    "repeat rows": lambda p, x: p.repeat(len(x), 1).view(len(x), *p.shape),
    "repeat_interleave": lambda p, x: p[None].repeat_interleave(len(x), 0),
    "tile": lambda p, x: p.tile((len(x), 1, 1)),
    "stack": lambda p, x: torch.stack([p] * len(x)),
    "cat": lambda p, x: torch.cat([p[None]] * len(x)),
    "zeros": lambda p, x: p + x.new_zeros(len(x), 1, 1),
    "computed": lambda p, x: (p * 2).expand(len(x), -1, -1).contiguous(),
    "embedding": lambda p, x: F.embedding(
        torch.arange(ROWS, device=x.device).expand(len(x), -1), p
    ),
}  # fmt: skip


class Repeats(nn.Module):
    """A parameter of rows for every image, which looks at its patches."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.rows = nn.Parameter(torch.randn(ROWS, WIDTH))
        self.patch = nn.Conv2d(3, WIDTH, 8, 8)
        self.own, self.fc = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, torch_models.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        rows = self.own(REPEATED[self.way](self.rows, patches))
        scores = (rows @ patches.transpose(1, 2)).softmax(-1)
        return self.fc((rows + scores @ patches).mean(1))


@pytest.mark.parametrize("learns", [True, False], ids=["learns", "frozen"])
@pytest.mark.parametrize("way", REPEATED)
def test_whatever_way_a_parameter_is_repeated(way: str, learns: bool) -> None:
    """The linear layer on it is computed for every image; gradients go to it if it learns."""
    module, shape = Repeats(way).train(), (3, 32, 32)
    module.rows.requires_grad_(learns)
    table = flop_table(alexsim.from_torch(module, shape), BATCH)
    module.to("meta")
    with FlopCounterMode(display=False) as forward:
        output = module(torch.zeros(BATCH, *shape, device="meta"))
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    assert table.flop * BATCH == forward.get_total_flops()
    assert (table.training_flop - table.flop) * BATCH == backward.get_total_flops()


@pytest.mark.parametrize(
    ("kind", "of_parameters"),
    [
        (torch_models.Latents, {"expand"}), (torch_models.Queries, {"add"}),
        (torch_models.Seeds, {"expand", "repeat"}), (torch_models.Token, set()),
    ],
)  # fmt: skip
def test_what_is_repeated_for_every_image_is_computed_for_every_image(
    kind: type[nn.Module], of_parameters: set[str]
) -> None:
    """It has a layer, where more is done than to put it beside the images' values, or to add it;
    that reads nothing of an image, but every image has its result; every operator's parameters are
    its own."""
    network = alexsim.from_torch(built(kind, COUNTED[kind]), COUNTED[kind])
    made = [parts[0] for parts in network.parts if parts[0].layer.made]
    assert {part.layer.target for part in made} == of_parameters
    assert all(part.input_values == 0 for part in made)
    ops = [plan(network, batch_size=batch, policy="pytorch") for batch in (2, 4)]
    for part in made:
        before, after = (
            next(op for op in of.ops() if (op.layer, op.kind) == (part.layer.name, "forward"))
            for of in ops
        )
        size = 4 * math.prod(part.output_shape)
        assert after.count.moved_bytes - before.count.moved_bytes == 2 * size
    modules = dict(network.module.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv2d) and "out_proj" not in name:
            (parts,) = (parts for parts in network.parts if parts[0].layer.name == name)
            read = {parameter.rpartition(".")[2] for parameter in parts[0].read_by_name}
            assert read == {"weight", "bias"}


@pytest.mark.parametrize("kind", [torch_models.Windows, torch_models.Shuffle, torch_models.Signals])
def test_what_operators_hold_is_what_autograd_holds(kind: type[nn.Module]) -> None:
    """Copies that products make of matrices that do not lie one behind the other among it; what is
    computed of parameters alone is no layer, some bytes."""
    network = alexsim.from_torch(kind(), COUNTED[kind])
    spec = PlanSpec(network=network, optimizer="sgd", policy="pytorch", batch_size=BATCH)
    steps = StepList(spec=spec)
    steps.build()
    ours, _ = live_peak(Tape(steps=steps, eager=TRACKED))
    theirs = tracked(kind, "sgd", (BATCH, *COUNTED[kind]))["Total"]
    assert ours == pytest.approx(theirs, rel=3e-3)


def test_what_has_no_kernel_is_said_completely() -> None:
    """Every operator, how often, where; training is refused, counting and predicting are not."""
    shape = COUNTED[torch_models.Attention]
    network = alexsim.from_torch(built(torch_models.Attention, shape), shape)
    kinds = unsupported(network)
    assert sum(len(kind.layers) for kind in kinds) == len(network.not_run)
    assert all(kind.formula for kind in kinds)
    assert 0 < unsupported_mac_share(network) < 1
    with pytest.raises(NetworkError) as refused:
        executor_of(network)
    for kind in kinds:
        words = f"{kind.target} x {len(kind.layers)} (in {kind.layers[0]})"
        assert (words in str(refused.value)) != kind.views
    made = plan(network, batch_size=BATCH)
    assert on_machine(made.spec, load_machine("a100")).step_s > 0
    operators = {layer.name for layer in network.not_run}
    attention = [op for op in made.ops() if op.layer in operators]
    assert attention
    assert all(op.count.moved_bytes for op in attention)


def test_an_operator_that_nobody_knows_moves_its_bytes() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.special.bessel_j0(x).mean((2, 3)))

    network = alexsim.from_torch(Odd(), (3, 8, 8))
    (odd,) = (kind for kind in unsupported(network) if not kind.formula)
    assert odd.target == "special_bessel_j0"


def test_names_are_the_modules_own() -> None:
    network = alexsim.from_torch(built(torch_models.Residual), SHAPE)
    names = [layer.name for layer in network.layers]
    assert names[:4] == ["conv1", "bn1", "relu", "maxpool"]
    block = [name.removeprefix("layer2.0.") for name in names if name.startswith("layer2.0.")]
    assert block == [
        "conv1", "bn1", "relu", "conv2", "bn2", "downsample.0", "downsample.1", "add", "relu:2"
    ]  # fmt: skip
    assert set(network.keys.values()) <= set(network.module.state_dict())


def test_a_traced_module_is_kept_by_its_content(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same module is not traced again; one that differs in a number, or in its code, is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    traced = []
    trace = from_torch_module.exported
    monkeypatch.setattr(
        from_torch_module, "exported", lambda *given: traced.append(1) or trace(*given)
    )
    first = alexsim.from_torch(built(torch_models.Plain), SHAPE)
    again = alexsim.from_torch(built(torch_models.Plain), SHAPE)
    assert (len(traced), again) == (1, first)
    assert again.keys == first.keys
    other = built(torch_models.Plain)
    other.features[2].k = 3.0
    assert alexsim.from_torch(other, SHAPE) != first
    alexsim.from_torch(built(torch_models.Plain), (3, 27, 27))
    assert len(traced) == 3
    (kept, *_) = tmp_path.rglob("*.json")
    for file in tmp_path.rglob("*.json"):
        file.write_text(kept.read_text()[:100])
    assert alexsim.from_torch(built(torch_models.Plain), SHAPE) == first
    assert len(traced) == 4


# The command line

FILE = """
import torch_models
model = torch_models.Residual()
small = torch_models.Residual()
small.input_shape = (3, 32, 32)
def made(): return torch_models.Residual()
def needs(size): return torch_models.Residual()
class Late(torch_models.Residual): input_shape = (3, 32, 32)
number = 7
odd = torch_models.Residual()
odd.input_shape = "3x32"
def fails(): raise OSError("no weights here")
"""


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return path


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model", (3, 224, 224)), ("model@3x64x48", (3, 64, 48)), ("small", (3, 32, 32)),
        ("made@3x40x40", (3, 40, 40)), ("Late", (3, 32, 32)), ("small@3x56x56", (3, 56, 56)),
    ],
)  # fmt: skip
def test_a_file_may_have_modules_functions_and_classes(
    mine: Path, name: str, shape: tuple[int, ...]
) -> None:
    network = load_network(f"{mine}:{name}")
    assert network.input_shape == shape
    assert network.name == name.partition("@")[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model@1x28x28", "torch.export cannot trace Residual with images of 1x28x28"),
        ("model@", "needs a shape of images"),
        ("model@3x0x3", "needs a shape of images"),
        ("needs", "needs arguments (size)"),
        ("number", "but something of type int"),
        ("absent", "(it has model, small, odd, made, Late, fails)"),
        ("odd", "input_shape must be positive whole numbers"),
        ("fails", "OSError: no weights here"),
        ("", "say which of its networks"),
    ],
)
def test_what_is_no_module_is_refused_in_a_line(mine: Path, name: str, says: str) -> None:
    with pytest.raises(NetworkError) as refused:
        load_network(f"{mine}:{name}")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_named_without_its_ending_is_suggested(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    for name, meant in (("mine:model", "mine.py:model"), ("mine:made@3x8x8", "mine.py:made@3x8x8")):
        with pytest.raises(NetworkError, match=re.escape(f"do you mean {meant}?")):
            load_network(name)


def test_training_begins_from_the_modules_weights_and_gives_them_back(
    mine: Path, folder: Path, tmp_path: Path
) -> None:
    """To the bit. At a rate that changes nothing the weights are those of the module that the run
    began with; running statistics are those that it gathered."""
    name, run, out = f"{mine}:small", tmp_path / "run", tmp_path / "back.pt"
    options = ("--batch", "4", "--steps", "1", "--workers", "1", "--threads", "1", "--json")
    paths = ("--data", str(folder), "-o", str(run))
    assert command("train", "--net", name, "--learning-rate", "1e-30", *options, *paths) == 0
    network = load_network(name)
    begun, learnt = network.module.state_dict(), load_weights(run).state
    module = torch_models.Residual()
    alexsim.load_into(module, run)
    assert command("model", "export", str(run), str(out)) == 0
    state, exported = module.state_dict(), torch.load(out)
    for ours, key in network.keys.items():
        assert torch.equal(state[key], learnt[saved(ours)])
        assert torch.equal(exported[key], learnt[saved(ours)])
        same = torch.allclose(state[key], begun[key], rtol=0, atol=1e-25)
        assert same != ("running" in key), key
    with pytest.raises(RunError, match="missing"):
        alexsim.load_into(nn.Linear(2, 2), run)


@pytest.mark.parametrize("shape", ["3x64x48", "5x64x64", "3x5x8x8"])
def test_training_feeds_square_images_of_one_or_three_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.fc = torch.nn.Linear({math.prod(map(int, shape.split('x')))}, 4)\n"
        "    def forward(self, x):\n"
        "        return self.fc(x.flatten(1))\n"
    )
    run = tmp_path / "run"
    assert command("train", "--net", f"{path}:Mine@{shape}", "--steps", "1", "-o", str(run)) == 2
    assert f"reads {shape}: training feeds square images" in capsys.readouterr().err
    assert not run.exists()


class Detached(nn.Module):
    """A trunk that no gradient reaches, and one that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, torch_models.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.a(x).detach() + self.b(x)).mean((2, 3)))


class Tied(nn.Module):
    """One tensor under two names; the first is not in the trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.again.weight = self.first.weight
        self.table = nn.Parameter(torch.randn(3, 1, 1))
        self.alias = self.table
        self.fc = nn.Linear(3, torch_models.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc((self.again(self.first(x)) * self.alias).mean((2, 3)))


class Depth(nn.Module):
    """How often a layer is called stands in an object, or under a private name."""

    def __init__(self, depth: int, *, private: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, torch_models.CLASSES)
        self.private = private
        self._depth = depth if private else 0
        self.settings = None if private else SimpleNamespace(depth=depth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self._depth if self.private else self.settings.depth):
            x = self.conv(x)
        return self.fc(x.mean((2, 3)))


class Mixed(nn.Module):
    """What is no whole number of values for an image."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, torch_models.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, 0)
        return self.fc(torch.cat((first, second)).mean((2, 3)))


class Quiet(Mixed):
    """A block with rules of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            x = x.relu()
        return self.fc(x.mean((2, 3)))


class Boxes(Mixed):
    """An output that is no logits."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fc(x.mean((2, 3))), x.amax((2, 3))


class Branches(Mixed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x.mean((2, 3)))
        if y.max() > 0.5:
            return y
        return self.fc(x.amax((2, 3)))


class Item(Mixed):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.mean((2, 3))) * x.sum().item()


class Kept(Mixed):
    """As many values as are above a threshold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = x.mean((0, 1, 2)) > 0
        return self.fc(x[..., kept].mean((2, 3)))


class Centred(Mixed):
    """An image's values depend on others'."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.mean((2, 3))
        x = x - x.mean(0)
        return self.fc(x)


class WithLabels(Mixed):
    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.fc(x.mean((2, 3))), labels)


class Same(Mixed):
    """An output that no image changes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.fc.weight[:1].expand(len(x), -1))


class Named(Mixed):
    """A dict, of whatever it has."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = x.mean((2, 3))
        logits = self.fc(features)
        given = {"features": features, "logits": logits, "aux_logits": logits * 2, "out": logits}
        return {name: given[name] for name in self.names}


def test_what_is_detached_has_no_gradients() -> None:
    network = alexsim.from_torch(Detached(), SHAPE)
    ops = {(op.layer, op.kind) for op in plan(network).ops()}
    backward = {layer for layer, kind in ops if kind in ("grad_weight", "grad_input", "update")}
    assert "a" not in backward
    assert {"b", "fc"} <= backward


def test_tensors_with_two_names_are_counted_once_and_written_to_both() -> None:
    module = Tied()
    network = alexsim.from_torch(module, SHAPE)
    assert network.parameters == sum(parameter.numel() for parameter in module.parameters())
    before = module.state_dict()
    learnt = {saved(name): torch.randn_like(before[key]) for name, key in network.keys.items()}
    state = module_state(network, learnt, module.state_dict())
    assert torch.equal(state["first.weight"], state["again.weight"])
    assert torch.equal(state["first.weight"], learnt[saved(next(iter(network.keys)))])


@pytest.mark.parametrize("private", [True, False])
def test_what_a_trace_depends_on_is_in_its_key(private: bool) -> None:
    networks = [alexsim.from_torch(Depth(depth, private=private), SHAPE) for depth in (1, 3, 1)]
    assert [len(network.layers) for network in networks] == [4, 6, 4]


REFUSED: list[tuple[nn.Module, str, str]] = [
    (Mixed(), "first, second = x.chunk", "splits the images of a minibatch"),
    (Centred(), "x = x - x.mean(0)", "mixes or splits the images of a minibatch"),
    (Quiet(), "", "a block of torch.no_grad"),
    (Boxes(), "", "only logits of the same classes have a cost"),
    (Mixed().half(), "", "give it in float32"),
    (Branches(), "if y.max() > 0.5:", "give a module with one branch, or one number, fixed"),
    (Item(), "x.sum().item()", "asks for the values of a tensor"),
    (Kept(), "x[..., kept]", "the shape of the result depends on the values of a tensor"),
    (WithLabels(), "", "WithLabels.forward takes x, labels: one tensor of images is read"),
    (Same(), "", "output 0 of the module does not depend on its images"),
    (Named("features", "out"), "", "returns features, out; output out is (10,), its answer"),
]
"""With the line of this file that is named, if any."""


@pytest.mark.parametrize(
    ("module", "line", "says"), REFUSED, ids=[type(module).__name__ for module, *_ in REFUSED]
)
def test_what_would_be_counted_wrongly_is_refused(
    module: nn.Module, line: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one line, with the place; the number of images is ours, and none of what PyTorch prints is
    shown. What is no fault of the images' shape gives no advice on it."""
    with pytest.raises(NetworkError) as refused:
        alexsim.from_torch(module, SHAPE)
    message = str(refused.value)
    assert says in message
    assert "\n" not in message
    assert not re.search(r"\b13\b|input_shape|For more", message.replace(line, ""))
    assert capfd.readouterr() == ("", "")
    if line:
        number = next(n for n, text in enumerate(source(), 1) if line in text)
        assert f"test_from_torch.py:{number} (" in message


def source() -> list[str]:
    return Path(__file__).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("given", "shape", "says"),
    [
        (torch_models.Residual, SHAPE, "is a class of them: give Residual()"),
        ("resnet18", SHAPE, "got something of type str"),
        (torch_models.Residual(), 224, "must be positive whole numbers, as (3, 224, 224), got 224"),
        (torch_models.Residual(), (3, 0, 4), "must be positive whole numbers"),
        (torch_models.Residual(), (1, *SHAPE), "the shape is of one image, without the batch"),
        (torch_models.Residual(), (1, 28, 28), "but got 1 channels instead (the shape is of one"),
    ],
)
def test_a_mistaken_argument_is_an_error_of_one_line(
    given: object, shape: object, says: str
) -> None:
    with pytest.raises(NetworkError) as refused:
        alexsim.from_torch(given, shape)
    assert says in str(refused.value)
    assert not re.search(r"\b13\b|\n", str(refused.value))


@pytest.mark.parametrize(
    ("names", "heads"),
    [
        (("logits",), ["softmax"]), (("out",), ["softmax"]), (("features", "logits"), ["softmax"]),
        (("aux_logits", "features", "logits"), ["mul.softmax", "softmax"]),
    ],
)  # fmt: skip
def test_the_answer_is_called_logits(names: tuple[str, ...], heads: list[str]) -> None:
    network = alexsim.from_torch(Named(*names), SHAPE)
    assert [head.name for head in network.heads] == heads
    (answer,) = network.inputs_of(len(network.layers) - 1)
    assert answer == "fc"


def test_the_shape_is_given_or_declared_or_imagenets() -> None:
    """By one rule here and for ``FILE.py:NAME``."""
    module = torch_models.Residual()
    assert alexsim.from_torch(module).input_shape == (3, 224, 224)
    module.input_shape = (3, 32, 32)
    assert alexsim.from_torch(module).input_shape == (3, 32, 32)
    assert alexsim.from_torch(module, (3, 40, 40)).input_shape == (3, 40, 40)
    module.input_shape = "3x32"
    with pytest.raises(NetworkError, match="its input_shape must be positive whole numbers"):
        alexsim.from_torch(module)


def test_a_layer_learns_whole_or_not() -> None:
    module = built(torch_models.Residual)
    module.fc.bias.requires_grad_(False)
    with pytest.raises(NetworkError, match="some require a gradient and some do not"):
        alexsim.from_torch(module, SHAPE)
    module.fc.weight.requires_grad_(False)
    assert alexsim.from_torch(module, SHAPE).frozen == {"fc"}


def test_a_part_on_eval_is_not_trained() -> None:
    module = built(torch_models.Residual).train()
    module.bn1.eval()
    network = alexsim.from_torch(module, SHAPE)
    assert [layer.name for layer in network.not_run] == ["bn1"]
    assert alexsim.from_torch(module.eval(), SHAPE).not_run == ()
