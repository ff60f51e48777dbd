"""The plan's training step on Triton's kernels, interpreted here, against the aten backend."""

from dataclasses import replace

import pytest
import torch
from chains import FAMILIES
from test_graph import COLUMNS, GRAPHS
from triton.runtime import interpreter

from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.layers import (
    Add,
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Network
from alexsim.plan.backends.triton import MOST_SPLITS, SPLIT_BYTES
from alexsim.plan.planner import plan
from alexsim_kernels import convolution_weight
from alexsim_kernels.common import Config
from alexsim_kernels.convolution_splits import parts_of

RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def trained(
    network: Network, backend: str, batch: int, steps: int, device: str, **choices: object
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    """Losses of each step, the state after them, and the errors of a test pass."""
    made = plan(network, batch_size=batch, backend=backend, **choices)
    executor = Executor(made, seed=3, device=device)
    executor.initialise()
    generator = torch.Generator().manual_seed(1)
    scale = 1 if network.input_shape[1] < 100 else 60
    losses = []
    for step in range(steps):
        images = scale * torch.randn(batch, *network.input_shape, generator=generator)
        labels = torch.randint(network.classes, (batch,), generator=generator)
        context = executor.step(images, labels, step=step, hyperparameters=RATES)
        losses.append(context.losses.cpu())
    test = executor.evaluate(images, labels)
    assert test.losses is not None
    return losses, {k: v.cpu() for k, v in executor.state().items()}, test.losses.cpu()


def assert_alike(
    of: Network | str, batch: int, steps: int, *, learns: bool = True, **choices: object
) -> None:
    network = load_network(of) if isinstance(of, str) else of
    wanted, state, test = trained(network, "aten", batch, steps, "cpu", **choices)
    found, other, other_test = trained(network, "triton", batch, steps, DEVICE, **choices)
    for a, b in zip(wanted, found, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
    assert torch.allclose(test, other_test, rtol=1e-3, atol=1e-4)
    assert state.keys() == other.keys()
    first = Executor(plan(network, batch_size=batch, backend="aten", **choices), seed=3)
    first.initialise()
    for key, start in first.state().items():
        change = (state[key] - start).norm()
        # What a batch norm takes away again does not learn.
        assert change > 0 or (".bias" in key and not learns), f"{key} did not learn"
        size = start.norm() if learns else max(start.norm(), 1)
        rounding = steps**0.5 * torch.finfo(torch.float32).eps * size
        assert (state[key] - other[key]).norm() <= 1e-4 * change + rounding, key


@pytest.fixture
def unchecked_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the interpreter a third of its work: to compute every offset again in 64 bits.

    Smaller tests have every kernel's checked; one that does not fit reads elsewhere even so.
    """
    builder = interpreter.interpreter_builder
    monkeypatch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))


@pytest.mark.usefixtures("unchecked_offsets")
@pytest.mark.parametrize("gpus", [1, 2])
def test_a_step_of_the_network_equals_the_aten_backend(gpus: int) -> None:
    """Batch 2; dropout, both norms; exchanges of all 61 million parameters, or sums of gradients.

    An interpreted product takes its time by the weight: on one device, where they are the same
    parts, layers of 2,048 units a column have 256.
    """
    network = load_network("alexnet-2012")
    narrow = tuple(
        replace(layer, units=256) if getattr(layer, "units", 0) == 2048 else layer
        for layer in network.layers
    )
    assert_alike(network if gpus == 2 else replace(network, layers=narrow), 2, 1, gpus=gpus)


@pytest.mark.parametrize("choices", [{}, {"policy": "reuse", "schedule": "overlap"}])
def test_several_steps_of_a_small_network(choices: dict) -> None:
    assert_alike("lenet-5", 3, 3, **choices)


@pytest.mark.parametrize("name", [*GRAPHS, *COLUMNS])
def test_a_graph_trains_as_on_the_aten_backend(name: str) -> None:
    """What is cleared, added up or crosses is no kernel's, whatever its layer is."""
    assert_alike((GRAPHS | COLUMNS)[name], 2, 1, policy="reuse", fusion="kernels", learns=False)


def test_every_edition_finds_its_kernels() -> None:
    for name in FAMILIES:
        network = load_network(name)
        choices = {"batch_size": 1, "policy": "reuse", "fusion": "kernels"}
        Executor(plan(network, backend="triton", **choices), device=DEVICE)


def test_parts_of_a_gradient_fit_the_scratch_that_is_planned() -> None:
    assert (SPLIT_BYTES, MOST_SPLITS) == (
        convolution_weight.SPLIT_BYTES,
        convolution_weight.MOST_SPLITS,
    )
    made = plan(load_network("alexnet-2012"), backend="triton")
    scratch = {op.id: op.scratch_bytes for op in made.ops() if op.scratch_bytes}
    assert scratch.keys() == {
        f"conv{n}.{column}.grad_weight" for n in range(1, 6) for column in "ab"
    }


@pytest.mark.parametrize("batch", [1, 3, 16, 128])
def test_parts_of_any_sum_fit_the_scratch_that_is_planned(batch: int) -> None:
    """Whichever tile a card's table names for a convolution."""
    made = plan(load_network("alexnet-1gpu"), batch_size=batch, backend="triton")
    passes = {"forward": "y", "grad_input": "dx"}
    checked = 0
    for op in made.ops():
        if op.layer.startswith("conv") and (role := passes.get(str(op.kind))):
            part = made.part(op)
            shape = part.output_shape if role == "y" else part.input_shape
            result = torch.empty(batch, *shape, device="meta")
            for splits in (2, 4, 16):
                parts, partial = parts_of(result, Config(64, 64, 32, splits=splits))
                assert (4 * partial.numel() if parts > 1 else 0) <= op.scratch_bytes, op.id
                checked += parts > 1
    assert bool(checked) == (batch < 128)


CONV = Convolution(name="conv", filters=4, size=3, padding=1)
LEADS_INTO_A_PRODUCT = {
    "convolution": (CONV,),
    "relu": (CONV, ReLU(name="relu")),
    "dropout": (CONV, Dropout(name="dropout")),
    "norm": (CONV, LocalResponseNorm(name="norm"), ReLU(name="relu")),
    "norm-over-pixels": (CONV, SpatialResponseNorm(name="norm", size=3), ReLU(name="relu")),
    "sum": (
        CONV,
        Convolution(name="other", filters=4, size=1),
        ReLU(name="relu"),
        Add(name="sum", inputs=("relu", "conv")),
    ),
    "dropout-of-images": (Dropout(name="dropout"), MaxPool(name="pool", size=2, stride=2)),
    "pool-that-a-fused-convolution-reads": (
        MaxPool(name="pool", size=2, stride=2),
        FullyConnected(name="fc0", units=5),
        SoftmaxCrossEntropy(name="early"),
        Convolution(name="conv", filters=4, size=3, padding=1, inputs=("pool",)),
        ReLU(name="relu"),
        MaxPool(name="last", size=2, stride=2),
    ),
    "pool-that-a-convolution-reads": (
        MaxPool(name="pool", size=2, stride=2),
        FullyConnected(name="fc0", units=5),
        SoftmaxCrossEntropy(name="early"),
        Convolution(name="conv", filters=4, size=3, padding=1, inputs=("pool",)),
        MaxPool(name="last", size=2, stride=2),
    ),
    "two-that-share": (
        FullyConnected(name="fc0", units=6),
        ReLU(name="relu0"),
        FullyConnected(name="fc1", units=6),
        ReLU(name="relu1"),
        FullyConnected(name="fc2", units=6, shares="fc1"),
        ReLU(name="relu2"),
    ),
}


@pytest.mark.parametrize("policy", ["as-released", "reuse"])
@pytest.mark.parametrize("name", LEADS_INTO_A_PRODUCT)
def test_what_the_kernels_cannot_lay_out_aten_runs(name: str, policy: str) -> None:
    network = Network(
        name=name,
        input_shape=(3, 8, 8),
        layers=(
            *LEADS_INTO_A_PRODUCT[name],
            FullyConnected(name="fc", units=5),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )
    for fusion in ("none", "kernels"):
        assert_alike(network, 2, 1, policy=policy, fusion=fusion)
