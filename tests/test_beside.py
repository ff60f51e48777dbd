"""PyTorch beside ours: every millisecond is a module's, every layer is in a group, all adds up."""

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from alexsim.cli.app import main
from alexsim.documents.profile import ProfileDocument, profile_document
from alexsim.interchange.from_torch import from_torch
from alexsim.machine.machine import load_machine
from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy
from alexsim.network.network import Network
from alexsim.page.beside import beside_section
from alexsim.page.figures import step_figures
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile import rivals
from alexsim.profile.beside import compared, group_of, groups_of
from alexsim.profile.eager import Eager
from alexsim.profile.profiler import profile
from alexsim.profile.rivals import Rivals, rivals_of
from alexsim.profile.step_profile import Beside, StepProfile
from alexsim.profile.steps import Batch, take_turns
from alexsim.profile.watch import Watch
from alexsim.report.profile import profile_tables
from alexsim.simulate.simulator import on_machine


class Nap(torch.autograd.Function):
    """Sleeps so many seconds on either way."""

    @staticmethod
    def forward(ctx, x, forward_s, backward_s):  # type: ignore[no-untyped-def]
        ctx.backward_s = backward_s
        ctx.save_for_backward(x)
        time.sleep(forward_s)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        # To have it, a checkpoint computes again.
        (_,) = ctx.saved_tensors
        time.sleep(ctx.backward_s)
        return grad.clone(), None, None


class Sleeper(nn.Module):
    def __init__(self, forward_s: float, backward_s: float) -> None:
        super().__init__()
        self.seconds = forward_s, backward_s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Nap.apply(x, *self.seconds)


class Block(nn.Module):
    """A child, and a nap of its own after it; a ReLU in place twice."""

    def __init__(self, child: tuple[float, float], own: tuple[float, float]) -> None:
        super().__init__()
        self.nap, self.relu, self.own = Sleeper(*child), nn.ReLU(inplace=True), own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.nap(x))
        return self.relu(Nap.apply(y, *self.own) + x)


class Sleepy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.blocks = nn.Sequential(Block((0.02, 0.03), (0.04, 0.01)), Block((0.01, 0), (0, 0.02)))
        self.shared = Sleeper(0.015, 0.01)
        self.again = self.shared
        self.kept = Sleeper(0.02, 0.03)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.fc(x.flatten(1)))
        x = self.again(self.shared(x))
        x = checkpoint(self.kept, x, use_reentrant=False)
        return Nap.apply(x, 0.01, 0.02)


def made_of(module: nn.Module) -> Network:
    return Network(
        name="stand-in",
        input_shape=(1, 2, 2),
        layers=(FullyConnected(name="fc", units=4), SoftmaxCrossEntropy(name="softmax")),
        module=module,
    )


def batch(*shape: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(shape), torch.arange(shape[0]) % classes


def test_time_is_that_of_the_module_in_whose_forward_it_passes() -> None:
    eager = Eager(made_of(Sleepy()), batch(3, 1, 2, 2, classes=4))
    watch = Watch(eager)
    watch.step()
    started = time.perf_counter()
    times = watch.step()
    elapsed = time.perf_counter() - started
    slept = {
        ("blocks.0.nap", "forward"): 0.02, ("blocks.0.nap", "backward"): 0.03,
        ("blocks.0", "forward"): 0.04, ("blocks.0", "backward"): 0.01,
        ("blocks.1.nap", "forward"): 0.01, ("blocks.1", "backward"): 0.02,
        # Called twice, by either name.
        ("shared", "forward"): 0.03, ("shared", "backward"): 0.02,
        ("kept", "forward"): 0.02, ("kept", "backward"): 0.05,
        ("", "forward"): 0.01, ("", "backward"): 0.02,
    }  # fmt: skip
    # No time is counted twice, so that what is another's would be missing where it belongs.
    assert {key: times[key] for key, seconds in slept.items() if times[key] < seconds} == {}
    assert sum(slept.values()) < sum(times.values()) <= elapsed
    assert list(watch.called)[-1] == ""
    assert watch.called.keys() >= {"fc", "blocks", "blocks.0.relu", "shared"}
    assert watch.aliases["shared"] == ("shared", "again")
    assert {"blocks.0", "blocks.0.relu", "", "fc"} <= watch.makers
    assert "blocks" not in watch.makers


@pytest.mark.parametrize(
    ("layer", "group"),
    [
        ("layer1.0.conv1", "layer1.0.conv1"),
        ("layer1.0.relu:2", "layer1.0.relu"),
        ("layer1.0.add", "layer1.0"),
        ("layer1.0.add:12", "layer1.0"),
        ("layer1.0.relu.clamp", "layer1.0.relu"),
        # No module of that name was called; one that begins alike is another.
        ("layer1.0.conv10", "layer1.0"),
        ("again:2", "shared"),
        ("flatten'", ""),
        ("layer1.flatten:2'", "layer1"),
        ("add", ""),
    ],
)
def test_layers_go_to_the_innermost_module_of_their_name(layer: str, group: str) -> None:
    names = ("", "layer1", "layer1.0", "layer1.0.conv1", "layer1.0.relu", "shared")
    assert group_of(layer, {name: name for name in names} | {"again": "shared"}) == group


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(x + self.bn(self.relu(self.conv(x))))


class Small(nn.Module):
    """Modules, functions, a container, a module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(Residual(), Residual())
        self.pool, self.flat = nn.MaxPool2d(2), nn.Flatten()
        self.head = nn.Linear(8 * 4 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(self.pool(F.relu(self.stem(x))))
        return self.head(self.flat(self.pool(x)))


def no_compiler(*_: object, **__: object) -> None:
    raise RuntimeError("backend='inductor' raised:\nInvalidCxxCompiler: there is none\nin sight")


COMPILE = torch.compile


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", no_compiler)


@pytest.fixture(scope="module")
def small() -> Network:
    return from_torch(Small(), (3, 16, 16))


@pytest.fixture(scope="module")
def measured(small: Network) -> StepProfile:
    spec = PlanSpec(network=small, batch_size=8, backend="aten", policy="reuse")
    made = plan(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", no_compiler)
        turns = rivals_of(made, "cpu")
    return profile(
        made,
        on_machine(replace(spec, policy="as-released", backend=""), load_machine("gtx580x2")),
        device="cpu",
        rounds=3,
        rivals=turns,
    )


def test_every_layer_and_module_is_in_a_group_and_all_adds_up(measured: StepProfile) -> None:
    comparison, beside = compared(measured), measured.beside
    assert comparison is not None
    assert beside is not None
    heads = [head.name for head in measured.plan.network.heads]
    grouped = [layer for group in comparison.groups for layer in group.layers]
    assert sorted(grouped + heads) == sorted(layer.name for layer in measured.layers)
    names = {group.name for group in comparison.groups}
    assert len(names) == len(comparison.groups)
    working = {module.name for module in beside.eager.modules if module.works}
    assert working <= names
    assert "body" not in names
    by_name = {group.name: group for group in comparison.groups}
    assert {"body.0.relu", "body.0.relu:2"} >= set(by_name["body.0.relu"].layers) > set()
    assert len(by_name["pool"].layers) == 2
    for side in range(2):
        groups = sum(
            times.all_s
            for group in comparison.groups
            if (times := (group.ours, group.eager)[side]) is not None
        )
        whole = groups + comparison.loss[side] + comparison.update[side] + comparison.rest[side]
        assert whole == pytest.approx(comparison.step[side])
        assert comparison.loss[side] > 0 < comparison.update[side]
    assert comparison.step == (measured.timed.median_s, beside.eager.timed.median_s)
    assert beside.over_ours is not None
    assert beside.over_ours.pairs == measured.rounds
    # Activations that backward reads, at least, and the parameters with their gradients.
    parameters = 4 * measured.plan.network.parameters
    assert beside.eager.held_bytes > 3 * parameters + 4 * 8 * 8 * 16 * 16
    assert beside.compiled is None
    assert beside.why_not.startswith("RuntimeError: backend='inductor' raised: InvalidCxxCompiler")


def test_layers_that_are_one_op_are_one_group(measured: StepProfile) -> None:
    assert measured.beside is not None
    fused = plan(replace(measured.plan.spec, backend="", fusion="kernels"))
    pairs = [(op.layer, op.epilogue) for op in fused.ops() if op.epilogue]
    groups = groups_of(fused, measured.beside.eager)
    assert pairs
    assert all(groups[layer] == groups[epilogue] for layer, epilogue in pairs)
    assert groups["head"] == "head"


def alone(network: Network, given: Batch, rounds: int) -> Beside:
    """PyTorch's steps without ours."""
    both = Rivals(network, given)
    for index in range(rounds):
        take_turns(both.turns(), index)
    return both.result()


def test_the_module_stays_as_it_was() -> None:
    module = Small().eval()
    module.head.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    network = replace(made_of(module), name="small")
    beside = alone(network, batch(4, 3, 16, 16, classes=5), rounds=2)
    assert beside.over_ours is None
    assert beside.eager.untimed.median_s > 0
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(each.training or each._forward_hooks for each in module.modules())
    assert all(each.grad is None for each in module.parameters())


def test_what_the_plan_leaves_learns_in_neither(small: Network) -> None:
    spec = PlanSpec(
        network=small, batch_size=2, backend="aten", trainable=frozenset({"head"}),
        optimizer="adamw",
    )  # fmt: skip
    eager = rivals_of(plan(spec), "cpu").eager
    learning = {name for name, each in eager.module.named_parameters() if each.requires_grad}
    assert learning == {"head.weight", "head.bias"}
    assert isinstance(eager.optimizer, torch.optim.AdamW)


def test_several_outputs_have_their_heads_shares() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer, self.early = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            x = x.flatten(1)
            return {"answer": self.answer(x), "early": self.early(x)}

    module = Two()
    layers = (
        FullyConnected(name="early", units=3, inputs=("input",)),
        SoftmaxCrossEntropy(name="softmax1", weight=0.25),
        FullyConnected(name="answer", units=3, inputs=("input",)),
        SoftmaxCrossEntropy(name="softmax"),
    )
    network = Network(name="two", input_shape=(1, 2, 2), layers=layers, module=module)
    images, labels = batch(3, 1, 2, 2, classes=3)
    eager = Eager(network, (images, labels))
    answer, early = eager.module(images).values()
    expected = F.cross_entropy(answer, labels) + 0.25 * F.cross_entropy(early, labels)
    costs: list[torch.Tensor] = []
    eager.step(trace=costs.append)
    torch.testing.assert_close(costs[0], expected)


def test_compiling_is_in_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compiled(module: nn.Module) -> object:
        def run(x: torch.Tensor) -> torch.Tensor:
            if not calls:
                time.sleep(0.3)
            calls.append(module)
            return module(x)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    ready: list[int] = []
    network = replace(made_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 4))))
    turns = Rivals(network, batch(2, 1, 2, 2, classes=4), done=ready.append)
    assert ready == [1, 2, rivals.PREPARATIONS]
    for index in range(3):
        take_turns(turns.turns(), index)
    beside = turns.result()
    assert beside.why_not == ""
    assert beside.compiled is not None
    assert len(calls) == 2 + 3
    # Others use these cores as well.
    assert beside.compiled.compile_s > 0.15
    assert beside.compiled.untimed.median_s < 0.15
    assert all(module is not turns.eager.module for module in calls)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's, of itself
def test_torch_compile_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", COMPILE)
    network = replace(made_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU())))
    beside = alone(network, batch(2, 1, 2, 2, classes=4), rounds=1)
    assert beside.why_not == ""
    assert beside.compiled is not None
    assert beside.compiled.compile_s > 0


def test_tables_documents_and_the_page_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_beside import Small\nfrom alexsim.interchange.from_torch import from_torch\n"
        "model = from_torch(Small(), (3, 16, 16))\n"
    )
    kept_at = tmp_path / "profile.json"
    options = f"--batch 4 --rounds 1 --threads 1 --layers -o {kept_at}".split()
    with pytest.raises(SystemExit) as ended:
        main(["profile", "--net", f"{file}:model", *options])
    assert not ended.value.code
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for word in ("eager/ours", "body.0.relu ", "(itself)", "timed step", "InvalidCxxCompiler"):
        assert word in out
    kept = ProfileDocument.model_validate_json(kept_at.read_text())
    beside = kept.beside
    assert beside is not None
    for side, groups in (
        (beside.ours, [group.ours_s or 0.0 for group in beside.eager.groups]),
        (beside.eager, [group.eager_s for group in beside.eager.groups]),
    ):
        parts = sum(groups) + side.loss_s + side.update_s + side.rest_s
        assert parts == pytest.approx(side.timed_step_s)
    section = beside_section(kept)
    assert section is not None
    assert "InvalidCxxCompiler" in section.text
    (figure,) = section.figures
    assert figure.table is not None
    assert len(figure.table.rows) == len(beside.eager.groups)
    drawn = step_figures(kept)["beside"].data[1]
    assert sum(drawn.x) == pytest.approx(1e3 * sum(g.eager_s for g in beside.eager.groups))


def test_a_layer_stands_beside_its_group(measured: StepProfile) -> None:
    beside = profile_document(measured, only="pool:2").beside
    assert beside is not None
    assert [group.layers for group in beside.eager.groups] == [("pool", "pool:2")]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(profile_tables(measured, "pool", width=80))
    console.print(profile_tables(measured, "", width=160, layers=True))
    text = console.export_text()
    assert "beside PyTorch, pool: pool, pool:2" in text
    assert profile_document(replace(measured, beside=None)).beside is None
