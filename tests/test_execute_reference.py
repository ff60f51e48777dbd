"""A plan's training step against an independent reference with autograd."""

from __future__ import annotations

import pytest
import reference
import torch
from torch.nn import functional as F

from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.random import dropout_keep
from alexsim.network.layers import Dropout, MaxPool, ReLU
from alexsim.network.network import Network
from alexsim.plan.planner import plan

STEPS, BATCH, SEED = 5, 3, 7
RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)


def columns_joined(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our per-column parameters as the reference's whole ones."""
    joined: dict[str, list[torch.Tensor]] = {}
    for name in sorted(state):
        layer, _, kind = name.split(".", 2)
        if "momentum" not in kind:
            joined.setdefault(f"{layer}.{kind}", []).append(state[name])
    return {name: torch.cat(parts) for name, parts in joined.items()}


def masks_of(network: Network, step: int, dtype: torch.dtype) -> reference.Masks:
    masks = {}
    for parts in network.parts:
        layer = parts[0].layer
        if isinstance(layer, Dropout):
            units = sum(part.output_shape[0] for part in parts)
            keep = dropout_keep(
                seed=SEED,
                layer=layer.name,
                step=step,
                images=range(BATCH),
                units=range(units),
                rate=layer.rate,
            )
            masks[layer.name] = torch.from_numpy(keep).to(dtype)
    return masks


def batch(network: Network, step: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    # The nets of 2012 read pixels less their mean; the others, normalised images.
    scale = 1 if network.name in ("alexnet-owt", "lenet-5") else 60
    images = scale * torch.randn(BATCH, *network.input_shape, generator=generator).to(dtype)
    labels = torch.randint(0, network.classes, (BATCH,), generator=generator)
    return images, labels


def train(name: str, dtype: torch.dtype, **choices: object) -> tuple[list[float], dict, dict]:
    """Losses, first and last parameters of the plan."""
    network = load_network(name)
    threads = torch.get_num_threads()
    executor = Executor(
        plan(network, batch_size=BATCH, threads=threads, **choices), dtype=dtype, seed=SEED
    )
    executor.initialise()
    first = {k: v.clone() for k, v in columns_joined(executor.state()).items()}
    losses = []
    for step in range(STEPS):
        context = executor.step(*batch(network, step, dtype), step=step, hyperparameters=RATES)
        losses.append(context.losses.mean().item())
    return losses, first, columns_joined(executor.state())


def reference_from(name: str, first: dict) -> reference.Reference:
    """With these parameters, copied; none are drawn before."""
    with torch.device("meta"):
        model = reference.REFERENCES[name]()
    model.load_state_dict({key: value.clone() for key, value in first.items()}, assign=True)
    return model


def train_reference(name: str, dtype: torch.dtype, first: dict) -> tuple[list[float], dict]:
    network = load_network(name)
    model = reference_from(name, first)
    trainer = reference.Trainer(model, rate=RATES.weight_rate, bias_rate=RATES.bias_rate)
    losses = [
        trainer.step(*batch(network, step, dtype), masks_of(network, step, dtype))
        for step in range(STEPS)
    ]
    return losses, {k: v.detach() for k, v in model.named_parameters()}


def assert_same_change(first: dict, ours: dict, theirs: dict, tolerance: float) -> None:
    """Relative to the change, beside what rounding the parameter itself once a step costs.

    Biases that start at 1 move by as little as 1e-5, of which float32 keeps two digits.
    """
    assert ours.keys() == theirs.keys()
    for name, start in first.items():
        change, expected = ours[name] - start, theirs[name] - start
        assert expected.norm() > 0, f"{name} did not learn"
        rounding = STEPS**0.5 * torch.finfo(start.dtype).eps / 2 * start.norm()
        error = (change - expected).norm() - rounding
        assert error <= tolerance * expected.norm(), (
            f"{name}: change differs by {error / expected.norm():.1e}"
        )


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "native") for name in reference.REFERENCES), ("alexnet-2012", "aten"),
     ("alexnet-owt", "aten")],
)  # fmt: skip
def test_five_steps_change_every_parameter_as_the_reference_does(name: str, backend: str) -> None:
    losses, first, last = train(name, torch.float64, backend=backend)
    expected_losses, expected = train_reference(name, torch.float64, first)
    assert losses == pytest.approx(expected_losses, rel=1e-10)
    assert_same_change(first, last, expected, 1e-10)


def choices_of(executor: Executor) -> reference.Masks:
    """Which units are positive and which inputs are maxima, read off the plan's buffers."""
    network, found = executor.plan.network, {}

    def whole(layer: str) -> torch.Tensor:
        columns = []
        for parts in network.parts:
            for part in parts:
                if part.layer.name == layer:
                    runner = executor.runners[min(part.column, len(executor.runners) - 1)]
                    name = f"{runner.device.name}/{layer}.{'ab'[part.column]}.activation"
                    columns.append(runner.memory.buffer(name))
        return torch.cat(columns, 1)

    for parts in network.parts:
        layer = parts[0].layer
        if isinstance(layer, ReLU):
            found[layer.name] = (whole(layer.name) > 0).float()
        if isinstance(layer, MaxPool):
            x, y = whole(parts[0].reads[0].layer).contiguous(), whole(layer.name).contiguous()
            windows = F.unfold(x, 3, stride=2).view(*x.shape[:2], 9, -1)
            hit = windows == y.flatten(2).unsqueeze(2)
            if layer.ties == "first":
                hit &= hit.cumsum(2) == 1
            found[layer.name] = hit.float()
    return found


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("alexnet-2012", "aten"), ("alexnet-2012", "native"), ("alexnet-paper", "native"),
        ("alexnet-1gpu", "native"), ("alexnet-owt", "aten"), ("alexnet-owt", "native"),
    ],
)  # fmt: skip
def test_float32_stays_close_to_the_reference(name: str, backend: str) -> None:
    """Within rounding, given the same dropout masks, positive units and maxima.

    In float32 two maxima of a million windows are so close that rounding chooses between them;
    whoever chooses otherwise sends a gradient elsewhere, which float64 above shows to be right.
    """
    network, dtype = load_network(name), torch.float32
    threads = torch.get_num_threads()
    executor = Executor(
        plan(network, batch_size=BATCH, backend=backend, threads=threads), seed=SEED
    )
    executor.initialise()
    first = {k: v.clone() for k, v in columns_joined(executor.state()).items()}
    model = reference_from(name, first)
    trainer = reference.Trainer(model, rate=RATES.weight_rate, bias_rate=RATES.bias_rate)
    for step in range(STEPS):
        images, labels = batch(network, step, dtype)
        context = executor.step(images, labels, step=step, hyperparameters=RATES)
        masks = masks_of(network, step, dtype) | choices_of(executor)
        assert context.losses.mean().item() == pytest.approx(
            trainer.step(images, labels, masks), rel=1e-4
        )
    last = {k: v.detach() for k, v in model.named_parameters()}
    assert_same_change(first, columns_joined(executor.state()), last, 1e-4)


@pytest.fixture(scope="module", params=["aten", "native"])
def two_devices(request: pytest.FixtureRequest) -> tuple[str, list[float], dict]:
    losses, _, last = train("alexnet-2012", torch.float32, backend=request.param)
    return request.param, losses, last


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param({"gpus": 1}, id="one-device"),
        pytest.param({"policy": "in-place"}, id="in-place"),
        pytest.param({"policy": "reuse"}, id="reuse"),
        pytest.param({"gpus": 1, "policy": "reuse"}, id="one-device-reuse"),
        pytest.param({"policy": "reuse", "schedule": "overlap"}, id="overlap-reuse"),
    ],
)
def test_devices_policy_and_schedule_change_no_bit(
    choices: dict, two_devices: tuple[str, list[float], dict]
) -> None:
    backend, losses, last = two_devices
    other_losses, _, other = train("alexnet-2012", torch.float32, backend=backend, **choices)
    assert losses == other_losses
    for name, value in last.items():
        assert torch.equal(value, other[name]), name
