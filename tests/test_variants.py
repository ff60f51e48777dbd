"""The paper's ablations as suffixes of a name: what they change, and that they train right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.editions.variants import VARIANTS, varied
from alexsim.errors import NetworkError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.interchange.module import plain_module
from alexsim.machine.machine import load_machine
from alexsim.network.layers import (
    Convolution,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.file import recipe_name
from alexsim.simulate.simulator import on_machine

SMALL = Network(
    name="small",
    input_shape=(3, 20, 20),
    columns=2,
    layers=(
        Convolution(name="conv1", filters=4, size=3, padding=1),
        ReLU(name="relu1"),
        LocalResponseNorm(name="norm1", alpha=0.3),
        MaxPool(name="pool1", size=3, stride=2, rounding="floor"),
        Convolution(name="conv2", filters=6, size=3, padding=1, reads="all"),
        ReLU(name="relu2"),
        FullyConnected(name="fc3", units=(5, 5), reads="all"),
        ReLU(name="relu3"),
        FullyConnected(name="fc4", units=(7, 0), reads="all"),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)


@pytest.mark.parametrize(
    ("name", "parameters", "exchanged"),
    [
        ("alexnet-paper", 60_965_224, 60_030_976),
        ("alexnet-paper+no-lrn", 60_965_224, 60_030_976),
        ("alexnet-2012+no-lrn", 60_965_224, 60_030_976),
        # 3 x 3 and 2 x 2 windows at stride 2 leave 27, 13 and 6 pixels alike.
        ("alexnet-paper+pool2", 60_965_224, 60_030_976),
        ("alexnet-paper+tanh", 60_965_224, 60_030_976),
        # conv3, fc6 and fc7 lose half of their weights; fc8 alone still reads both columns.
        (
            "alexnet-paper+no-exchange",
            60_965_224 - 442_368 - 2 * 2048 * 4608 - 2 * 2048 * 2048,
            2 * 128 * 2048 * 4,
        ),
    ],
)
def test_what_is_left_of_alexnet(name: str, parameters: int, exchanged: int) -> None:
    network = load_network(name)
    assert network.name == name
    assert network.parameters == parameters
    assert plan(network).exchanged_bytes == exchanged
    assert recipe_name(name) == recipe_name(name.partition("+")[0])


def test_variants_add_up_and_name_what_they_change() -> None:
    both = load_network("alexnet-paper+no-lrn+tanh")
    names = [layer.name for layer in both.layers]
    assert not [name for name in names if "norm" in name or "relu" in name]
    assert names[:3] == ["conv1", "tanh1", "pool1"]
    machine = load_machine("gtx580x2")
    steps = {
        name: on_machine(PlanSpec(network=load_network(name)), machine).step_s
        for name in ("alexnet-paper", "alexnet-paper+no-lrn", "alexnet-paper+no-exchange")
    }
    assert steps["alexnet-paper+no-lrn"] < steps["alexnet-paper"]
    assert steps["alexnet-paper+no-exchange"] < steps["alexnet-paper"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("alexnet-paper+no-lnr", "no variant +no-lnr; did you mean +no-lrn?"),
        ("lenet-5+no-lrn", "+no-lrn changes nothing in lenet-5"),
        ("alexnet-paper+no-lrn+no-lrn", "+no-lrn changes nothing in alexnet-paper+no-lrn"),
        ("alexnet-papr+tanh", "did you mean alexnet-paper"),
    ],
)
def test_a_wrong_variant_is_named(name: str, says: str) -> None:
    with pytest.raises(NetworkError) as caught:
        load_network(name)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "variants",
    [("no-lrn",), ("tanh",), ("sigmoid",), ("pool2", "no-lrn"), ("no-exchange", "tanh")],
    ids="+".join,
)
@pytest.mark.parametrize("policy", ["as-released", "in-place", "reuse"])
def test_a_variant_learns_what_autograd_says(variants: tuple[str, ...], policy: str) -> None:
    network = varied(SMALL, variants)
    made = plan(network, batch_size=6, backend="aten", policy=policy)
    executor = Executor(made, dtype=torch.float64)
    executor.initialise()
    state = executor.state()
    module = plain_module(network).double().train()
    generator = torch.Generator().manual_seed(5)
    mine: dict[str, torch.nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        layer, what = name.split(".")[0], name.rsplit(".", 1)[1]
        values = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parts = [state[f"{layer}.{c}.{what}"] for c in "ab" if f"{layer}.{c}.{what}" in state]
        for part, own in zip(parts, values.chunk(len(parts)), strict=True):
            part.copy_(own.view(part.shape))
        with torch.no_grad():
            parameter.copy_(values)
        mine[f"{layer}.{what}"] = parameter
    images = torch.randn(6, 3, 20, 20, generator=generator, dtype=torch.float64)
    labels = torch.arange(6) % 7
    loss = F.cross_entropy(module(images).flatten(1), labels)
    loss.backward()
    rates = Hyperparameters(weight_rate=1.0, bias_rate=1.0, momentum=0.0, weight_decay=0.0)
    context = executor.step(images, labels, step=0, hyperparameters=rates)
    assert context.losses is not None
    assert context.losses.mean().item() == pytest.approx(loss.item(), rel=1e-12)
    for name, parameter in mine.items():
        layer, what = name.split(".")
        found = [
            state[key].flatten() for c in "ab" if (key := f"{layer}.{c}.{what}.momentum") in state
        ]
        assert parameter.grad is not None
        assert torch.allclose(-torch.cat(found), parameter.grad.flatten(), rtol=1e-9, atol=1e-12)


def test_every_command_takes_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("flops", "memory", "simulate"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--net", "alexnet-paper+no-exchange+tanh", "--json"])
        assert not ended.value.code
        document = json.loads(capsys.readouterr().out)
        assert document["network"] == "alexnet-paper+no-exchange+tanh"
    with pytest.raises(SystemExit):
        main(["network", "list"])
    out = capsys.readouterr().out
    assert all(f"+{name}" in out for name in VARIANTS)
    # A + in a folder's name is no variant.
    own = tmp_path / "a+b" / "mine.py"
    own.parent.mkdir()
    own.write_text(
        "from alexsim.editions.load import load_network\nnet = load_network('lenet-5')\n"
    )
    assert load_network(f"{own}:net").name == "lenet-5"
