"""Training from other weights: a new head, and only some layers that learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.errors import NetworkError, RunError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.ledger.tables import flop_table
from alexsim.machine.machine import load_machine
from alexsim.network.network import Network
from alexsim.plan.plan import Category, OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulator import on_machine
from alexsim.train.initial import refuse_other_layers
from alexsim.train.weights import Weights, load_weights, state_shapes

BASE = (
    "train", "--net", "lenet-5", "--batch", 16, "--learning-rate", 0.1, "--threads", 1, "--workers",
    1, "--json", "--normalise", "mean-image",
)  # fmt: skip


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def state_of(path: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = path.glob("checkpoint-*.safetensors")
    return load_file(checkpoint)


@pytest.fixture(scope="module")
def first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("first") / "run"
    assert not run(*BASE, "--data", folder, "--steps", 6, "-o", to)
    return to


@pytest.fixture(scope="module")
def two_classes(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    for name in ("dark", "bright"):
        shutil.copytree(folder / name, root / name)
    return root


def tune(first: Path, data: Path, to: Path, *more: object) -> int:
    return run(
        "train", "--init-from", first, "--batch", 16, "--threads", 1, "--workers", 1, "--data",
        data, "-o", to, "--json", *more,
    )  # fmt: skip


def test_only_a_new_head_learns(
    first: Path, two_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "tuned"
    assert not tune(first, two_classes, to, "--new-head", "--train-only", "fc5", "--steps", 8)
    document = json.loads(capsys.readouterr().out)
    assert document["network"] == "lenet-5+2-classes"
    before, after = load_weights(first), load_weights(to)
    assert after.classes == ("bright", "dark")
    for name, tensor in after.state.items():
        if name.startswith("fc5."):
            assert tensor.shape[0] == 2
        else:
            assert torch.equal(tensor, before.state[name]), name
    stored = state_of(to)
    assert {n for n in stored if n.endswith("momentum")} == {
        "fc5.a.weight.momentum", "fc5.a.bias.momentum",
    }  # fmt: skip
    assert stored["fc5.a.weight.momentum"].abs().max() > 0
    # Its layers have learnt from images less the first run's mean, by the first run's way.
    assert before.mean is not None
    assert np.array_equal(after.mean, before.mean)
    assert after.normalisation == before.normalisation


def test_everything_goes_on_without_a_new_head(
    first: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not tune(first, folder, tmp_path / "on", "--steps", 1, "--learning-rate", 0)
    capsys.readouterr()
    before, after = load_weights(first), load_weights(tmp_path / "on")
    assert after.network == "lenet-5"
    assert all(torch.equal(tensor, before.state[name]) for name, tensor in after.state.items())
    assert not tune(
        first, folder, tmp_path / "new", "--steps", 1, "--learning-rate", 0, "--new-head"
    )
    capsys.readouterr()
    fresh = load_weights(tmp_path / "new")
    assert fresh.network == "lenet-5+3-classes"
    assert torch.equal(fresh.state["fc4.a.weight"], before.state["fc4.a.weight"])


def test_it_can_stop_before_its_first_checkpoint(
    first: Path, two_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run began from is kept: going on needs neither the first run nor its newer weights."""
    source = tmp_path / "source"
    shutil.copytree(first, source)
    more = ("--new-head", "--train-only", "fc5,fc4")
    assert not tune(source, two_classes, tmp_path / "whole", *more, "--steps", 6)
    assert not tune(source, two_classes, tmp_path / "part", *more, "--steps", 3)
    shutil.rmtree(source)
    capsys.readouterr()
    assert not run("train", "--resume", tmp_path / "part", "--steps", 6, "--json")
    whole, part = state_of(tmp_path / "whole"), state_of(tmp_path / "part")
    assert all(torch.equal(tensor, part[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--new-head", "--train-only", "fc9"), "--train-only: no layer 'fc9'"),
        (("--init-from", "nowhere"), "nowhere: no such run or file"),
        (("--net", "alexnet-owt"), "--init-from: conv1.a.weight of alexnet-owt is (64, 3, 11, 11)"),
        (("--net", "lenet-5+3-classes"), "lenet-5 (10, 84); --new-head trains one anew"),
    ],
)
def test_mistakes_are_named(
    more: tuple[str, ...], says: str, first: Path, folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    to = tmp_path / "x"
    assert tune(first, folder, to, "--steps", 1, *more) == 2
    assert says in capsys.readouterr().err
    assert not to.exists()


def test_a_new_head_needs_weights_to_begin_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*BASE, "--data", folder, "--new-head") == 2
    assert "--new-head goes with --init-from" in capsys.readouterr().err


def test_6conv_hands_over_all_but_its_projection() -> None:
    """Pre-trained on 21,843 classes over both GPUs, then 1000 on the first."""
    network = load_network("alexnet-6conv")
    shapes = state_shapes(network)
    large = Weights(
        network="alexnet-6conv",
        state={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
        classes=(),
        normalisation="channels",
        mean=None,
    )
    refuse_other_layers(large, load_network("alexnet-6conv+1000-classes"), new_head=True)
    with pytest.raises(RunError, match=r"fc8\.a\.weight .* \(1000, 2048\), .* \(10921, 2048\)"):
        refuse_other_layers(large, load_network("alexnet-6conv+1000-classes"), new_head=False)


@pytest.mark.parametrize("name", ["alexnet-6conv+1000-classes", "alexnet-2012+10-classes+no-lrn"])
def test_heads_are_part_of_a_networks_name(name: str) -> None:
    network = load_network(name)
    assert network.name == name
    assert network.classes == int(name.split("+")[1].partition("-")[0])
    for wrong in ("alexnet-2012+0-classes", "alexnet-2012+classes"):
        with pytest.raises(NetworkError, match=r"\+N-classes"):
            load_network(wrong)


def alike(network: Network, made: Plan, learns: frozenset[str]) -> tuple[Any, Any]:
    """The same step executed and simulated."""
    executor = Executor(made, seed=1)
    executor.initialise()
    rng = torch.Generator().manual_seed(0)
    images = torch.randn((made.batch_size, *network.input_shape), generator=rng)
    labels = torch.randint(0, network.classes, (made.batch_size,), generator=rng)
    executor.step(images, labels, step=0, hyperparameters=Hyperparameters())
    executor.record()
    executor.step(images, labels, step=1, hyperparameters=Hyperparameters())
    configuration = PlanSpec(network=network, batch_size=made.batch_size, trainable=learns)
    return executor, on_machine(configuration, load_machine("gtx580x2"))


def test_planned_executed_and_simulated_savings_agree() -> None:
    """Only fc8 of the real network learns: the three tell of the same ops and bytes."""
    network, size = load_network("alexnet-2012+10-classes"), 2
    every, only = frozenset(network.weighted_layers), frozenset({"fc8"})
    found = {}
    for learns in (every, only):
        made = plan(network, batch_size=size, backend="aten", trainable=learns)
        executor, simulated = alike(network, made, learns)
        planned = plan(network, batch_size=size, trainable=learns)
        # Executed: just the plan's ops, and no more memory than it says.
        assert {span.op_id for span in executor.trace().spans} == {op.id for op in made.ops()}
        assert executor.peak_bytes == {d.name: d.total_bytes for d in made.devices}
        names = {span.op_id.split("/")[-1] for span in simulated.trace.spans}
        assert {op.id for op in planned.ops()} <= names
        held = {
            device.name: sum(
                b.size_bytes for b in device.buffers
                if b.name in device.resident and b.category != Category.INPUT
            )
            for device in planned.devices
        }  # fmt: skip
        found[learns] = (made, planned, simulated, held)
    (many, planned_many, slow, held_many), (few, planned_few, fast, held_few) = (
        found[every], found[only],
    )  # fmt: skip
    assert {op.layer for op in few.ops() if op.kind in (OpKind.UPDATE, OpKind.GRAD_WEIGHT)} == only
    assert not any(op.kind == OpKind.GRAD_INPUT and op.layer != "softmax" for op in few.ops())
    # FLOPs: all of the forward pass, and one product backward.
    table = flop_table(network, trainable=only)
    assert table.training_flop == flop_table(network).flop + 2 * 4096 * 10
    assert sum(op.count.flop for op in few.ops()) == size * table.training_flop
    # Bytes: what the simulator says a card holds less is what the plan holds less.
    for device in (0, 1):
        saved = slow.devices[device].memory_bytes - fast.devices[device].memory_bytes
        assert saved == (
            planned_many.devices[device].total_bytes - planned_few.devices[device].total_bytes
        )
        assert saved > 0
    assert held_few["gpu1"] < held_many["gpu1"]
    # Time: the simulated step is shorter by the ops that are gone, and what waited for them.
    assert fast.step_s < slow.step_s / 1.8
    assert len(few.exchanges) == 7
    assert len(many.exchanges) == 14
