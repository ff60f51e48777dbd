"""A plan's training step against an independent reference with autograd."""

from __future__ import annotations

from dataclasses import replace

import pytest
import reference
import torch
from torch.nn import functional as F

from alexsim.editions.load import load_network
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.random import dropout_keep
from alexsim.network.layers import Dropout, FullyConnected, MaxPool, ReLU
from alexsim.network.network import Network
from alexsim.plan.planner import plan

STEPS, BATCH, SEED = 5, 3, 7
RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)
SHARE = 8
"""Of AlexNet's 61 million parameters most are of hidden fully connected layers, which every edition
has alike. Where one was trained whole, others have a part of these layers' units."""
_EXPECTED: dict[str, tuple[dict, list[float], dict]] = {}
"""What the latest reference started from, its losses and its last parameters: backends share it."""


def narrowed(name: str, share: int) -> Network:
    """An edition whose hidden fully connected layers have a ``share``-th of their units."""
    network = load_network(name)
    *hidden, _ = (layer for layer in network.layers if isinstance(layer, FullyConnected))
    layers = (
        replace(layer, units=layer.units // share) if layer in hidden else layer
        for layer in network.layers
    )
    return replace(network, layers=tuple(layers))


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


def initialised(network: Network, dtype: torch.dtype, **choices: object) -> Executor:
    threads = torch.get_num_threads()
    made = plan(network, batch_size=BATCH, threads=threads, **choices)
    executor = Executor(made, dtype=dtype, seed=SEED)
    executor.initialise()
    return executor


def train(executor: Executor) -> list[float]:
    """The plan's losses."""
    network, dtype = executor.plan.network, executor.choices.dtype
    losses = []
    for step in range(STEPS):
        context = executor.step(*batch(network, step, dtype), step=step, hyperparameters=RATES)
        losses.append(context.losses.mean().item())
    return losses


def reference_from(name: str, share: int, first: dict) -> reference.Reference:
    """With these parameters, copied; none are drawn before."""
    with torch.device("meta"):
        model = reference.narrowed(reference.REFERENCES[name](), share)
    model.load_state_dict({key: value.clone() for key, value in first.items()}, assign=True)
    return model


def train_reference(network: Network, share: int, first: dict) -> tuple[list[float], dict]:
    """Losses and last parameters of the reference, in float64."""
    known = _EXPECTED.get(network.name)
    if known is None or any(not torch.equal(known[0][key], first[key]) for key in first):
        model = reference_from(network.name, share, first)
        trainer = reference.Trainer(model, rate=RATES.weight_rate, bias_rate=RATES.bias_rate)
        losses = [
            trainer.step(
                *batch(network, step, torch.float64), masks_of(network, step, torch.float64)
            )
            for step in range(STEPS)
        ]
        _EXPECTED.clear()
        known = first, losses, {key: p.detach() for key, p in model.named_parameters()}
        _EXPECTED[network.name] = known
    return known[1:]


def assert_same_change(first: dict, ours: dict, theirs: dict, tolerance: float) -> None:
    """Relative to the change, beside what rounding the parameter itself once a step costs.

    Biases that start at 1 move by as little as 1e-5, of which float32 keeps two digits.
    """
    assert ours.keys() == theirs.keys()
    for name, start in first.items():
        size = torch.dist(theirs[name], start)
        assert size > 0, f"{name} did not learn"
        rounding = STEPS**0.5 * torch.finfo(start.dtype).eps / 2 * start.norm()
        error = torch.dist(ours[name], theirs[name]) - rounding
        assert error <= tolerance * size, f"{name}: change differs by {error / size:.1e}"


@pytest.mark.parametrize("name", reference.REFERENCES)
def test_every_edition_has_the_reference_s_parameters(name: str) -> None:
    with torch.device("meta"):
        model = reference.REFERENCES[name]()
    found = {}
    for parts in load_network(name).parts:
        for kind, held in parts[0].parameters_by_name.items():
            units = sum(part.parameters_by_name[kind].shape[0] for part in parts)
            found[f"{parts[0].layer.name}.{kind}"] = (units, *held.shape[1:])
    assert found == {key: tuple(p.shape) for key, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "backend", "share"),
    [
        ("alexnet-2012", "aten", 1), ("alexnet-2012", "native", 1),
        ("alexnet-owt", "aten", SHARE), ("alexnet-owt", "native", SHARE),
        ("alexnet-paper", "native", SHARE), ("alexnet-1gpu", "native", SHARE),
        ("alexnet-6conv", "native", SHARE), ("lenet-5", "native", 1),
    ],
)  # fmt: skip
def test_five_steps_change_every_parameter_as_the_reference_does(
    name: str, backend: str, share: int
) -> None:
    network = narrowed(name, share)
    executor = initialised(network, torch.float64, backend=backend)
    first = columns_joined(executor.state())
    losses = train(executor)
    expected_losses, expected = train_reference(network, share, first)
    assert losses == pytest.approx(expected_losses, rel=1e-10)
    assert_same_change(first, columns_joined(executor.state()), expected, 1e-10)


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
    ("name", "backend", "share"),
    [
        ("alexnet-2012", "aten", 1), ("alexnet-2012", "native", 1),
        ("alexnet-paper", "native", SHARE), ("alexnet-1gpu", "native", SHARE),
        ("alexnet-owt", "aten", SHARE), ("alexnet-owt", "native", 1),
    ],
)  # fmt: skip
def test_float32_stays_close_to_the_reference(name: str, backend: str, share: int) -> None:
    """Within rounding, given the same dropout masks, positive units and maxima.

    In float32 two maxima of a million windows are so close that rounding chooses between them;
    whoever chooses otherwise sends a gradient elsewhere, which float64 above shows to be right.
    """
    network, dtype = narrowed(name, share), torch.float32
    executor = initialised(network, dtype, backend=backend)
    first = columns_joined(executor.state())
    model = reference_from(name, share, first)
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


def train_two_columns(**choices: object) -> tuple[list[float], dict]:
    """Losses and last parameters."""
    executor = initialised(load_network("alexnet-2012"), torch.float32, **choices)
    return train(executor), columns_joined(executor.state())


@pytest.fixture(scope="module", params=["aten", "native"])
def two_devices(request: pytest.FixtureRequest) -> tuple[str, list[float], dict]:
    return request.param, *train_two_columns(backend=request.param)


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
    other_losses, other = train_two_columns(backend=backend, **choices)
    assert losses == other_losses
    for name, value in last.items():
        assert torch.equal(value, other[name]), name
