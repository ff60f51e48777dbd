"""Update rules: five steps of each beside ``torch.optim``; what each holds, moves and computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import graph_reference
import pytest
import torch

from alexsim.errors import PlanError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.ledger.tables import memory_table
from alexsim.network.layers import (
    AdaptiveAveragePool,
    Add,
    BatchNorm,
    Convolution,
    FullyConnected,
    ReLU,
    Role,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.network.update_rules import OPTIMIZERS, RULES, is_state
from alexsim.plan.plan import Category, OpKind
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec

BATCH, STEPS = 8, 5


def conv(name: str, **fields: Any) -> Convolution:
    plain = {"filters": 6, "size": 3, "padding": 1, "rounding": "floor", "weight_std": 0.3}
    return Convolution(name=name, **(plain | {"bias_init": 0.1} | fields))


NET = Network(
    name="small",
    input_shape=(3, 7, 6),
    layers=(
        # No bias before a batch norm: its gradient is nothing but rounding, which AdamW magnifies.
        conv("c0"), ReLU(name="r0"), BatchNorm(name="n0"),
        conv("c1", bias=False), BatchNorm(name="n1"),
        Add(name="sum", inputs=("n1", "r0")), ReLU(name="r1"),
        AdaptiveAveragePool(name="pool", size=2),
        FullyConnected(name="fc1", units=9, weight_std=0.3), ReLU(name="r2"),
        FullyConnected(name="fc2", units=5, weight_std=0.3),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)  # fmt: skip
CHAIN = Network(
    name="chain",
    input_shape=(3, 7, 6),
    layers=(
        conv("c0"), ReLU(name="r0"), AdaptiveAveragePool(name="pool", size=2),
        FullyConnected(name="fc1", units=9, weight_std=0.3), ReLU(name="r1"),
        FullyConnected(name="fc2", units=5, weight_std=0.3),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)  # fmt: skip
DECAYS = {"weight_decay": 0.03}
CASES = {
    "sgd, weights decay": ("sgd", DECAYS),
    "sgd, all decay": ("sgd", DECAYS | {"decay_all": True}),
    "sgd, Nesterov, weights decay": ("sgd", DECAYS | {"nesterov": True}),
    "sgd, Nesterov, all decay": ("sgd", DECAYS | {"nesterov": True, "decay_all": True}),
    "sgd, Nesterov, none decays": ("sgd", {"nesterov": True, "weight_decay": 0.0}),
    "sgd, no momentum": ("sgd", DECAYS | {"momentum": 0.0}),
    "sgd, a layer's own rate": ("sgd", {"layer_rates": (("c1", 0.2), ("fc1", 0.0))}),
    "adamw, weights decay": ("adamw", DECAYS),
    "adamw, all decay": ("adamw", DECAYS | {"decay_all": True}),
    "adamw, none decays": ("adamw", {"weight_decay": 0.0}),
    "adamw, other betas": ("adamw", DECAYS | {"momentum": 0.5, "beta2": 0.7, "epsilon": 1e-3}),
}


def rates(optimizer: str, constants: dict[str, Any]) -> Hyperparameters:
    rate = 0.01 if optimizer == "adamw" else 0.05
    # A rate that only 2012's rule has must move nothing.
    return Hyperparameters(weight_rate=rate, bias_rate=1e9, **constants)


def minibatch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, *NET.input_shape, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, NET.classes, (BATCH,), generator=generator)


def executor(net: Network = NET, **choices: Any) -> Executor:
    made = Executor(plan(net, batch_size=BATCH, backend="aten", **choices), dtype=torch.float64)
    made.initialise()
    return made


def copied(made: Executor) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.state().items()}


def train(made: Executor, h: Hyperparameters, steps: range = range(STEPS)) -> None:
    for step in steps:
        made.step(*minibatch(step), step=step, hyperparameters=h)


def expected(
    net: Network, first: dict[str, torch.Tensor], optimizer: str, h: Hyperparameters
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Parameters after as many steps of torch.optim, and its state by our names."""
    state = {name: tensor.clone() for name, tensor in first.items()}
    held = {
        f"{part.layer.name}.a.{p.name}": p for parts in net.parts for part in parts
        for p in part.trained
    }  # fmt: skip
    groups = []
    for name, parameter in held.items():
        decays = h.decay_all or parameter.role == Role.WEIGHT
        groups.append(
            {
                "params": [state[name].requires_grad_()],
                "weight_decay": h.weight_decay if decays else 0.0,
                "lr": dict(h.layer_rates).get(name.partition(".")[0], h.weight_rate),
            }
        )
    if optimizer == "sgd":
        theirs: torch.optim.Optimizer = torch.optim.SGD(
            groups, lr=1.0, momentum=h.momentum, nesterov=h.nesterov
        )
    else:
        theirs = torch.optim.AdamW(groups, lr=1.0, betas=(h.momentum, h.beta2), eps=h.epsilon)
    for step in range(STEPS):
        images, labels = minibatch(step)
        made = graph_reference.forward(net, state, images, {}, training=True)
        theirs.zero_grad()
        graph_reference.cost(net, made, labels).backward()
        theirs.step()
    kept = {}
    for name in held:
        own = theirs.state[state[name]]
        for ours, key in (("momentum", "momentum_buffer"), ("momentum", "exp_avg"),
                          ("variance", "exp_avg_sq")):  # fmt: skip
            if own.get(key) is not None:
                kept[f"{name}.{ours}"] = own[key]
    return {name: state[name].detach() for name in held}, kept


def assert_alike(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name, tensor in theirs.items():
        torch.testing.assert_close(
            ours[name], tensor, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("policy", ["as-released", "reuse"])
@pytest.mark.parametrize("case", CASES)
def test_five_steps_are_those_of_torch_optim(case: str, policy: str) -> None:
    optimizer, constants = CASES[case]
    h = rates(optimizer, constants)
    made = executor(optimizer=optimizer, policy=policy)
    first = copied(made)
    train(made, h)
    values, state = expected(NET, first, optimizer, h)
    ours = made.state()
    assert_alike(ours, values)
    assert_alike(ours, state)
    assert bool(state) == (h.momentum > 0)
    if optimizer == "adamw":
        counts = {name: tensor.tolist() for name, tensor in ours.items() if "updates" in name}
        assert counts == {f"{n}.a.updates": [STEPS] for n in ("c0", "n0", "c1", "n1", "fc1", "fc2")}


def test_at_one_constant_rate_2012_s_rule_and_sgd_are_the_same() -> None:
    """As the recipe `modern` says: what differs is whether biases decay."""
    h = Hyperparameters(weight_rate=0.05, bias_rate=0.05, weight_decay=0.03)
    one, other, decays = (executor(optimizer=rule) for rule in ("sgd-2012", "sgd", "sgd"))
    train(one, h)
    train(other, h)
    train(decays, replace(h, decay_all=True))
    weights = {name: value for name, value in one.state().items() if not is_state(name)}
    assert_alike(other.state(), weights)
    with pytest.raises(AssertionError):
        assert_alike(decays.state(), weights)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_turns_of_a_hybrid_plan_add_up_to_the_same(optimizer: str) -> None:
    """Fully connected layers' gradients of each turn meet in a buffer before the one update."""
    h = rates(optimizer, DECAYS | {"decay_all": True})
    made = executor(CHAIN, optimizer=optimizer, partition="hybrid", gpus=2)
    first = copied(made)
    train(made, h)
    values, state = expected(CHAIN, first, optimizer, h)
    assert_alike(made.state(), values)
    assert_alike(made.state(), state)


def test_layers_that_are_updated_more_often_count_more() -> None:
    h = rates("adamw", DECAYS)
    made = executor(
        CHAIN, optimizer="adamw", partition="hybrid", gpus=2, variable_batch=True
    )  # fmt: skip
    train(made, h, range(3))
    counts = {name: int(tensor) for name, tensor in made.state().items() if "updates" in name}
    assert counts == {"c0.a.updates": 3, "fc1.a.updates": 6, "fc2.a.updates": 6}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_that_is_put_back_goes_on_to_the_same_bits(optimizer: str) -> None:
    h = rates(optimizer, DECAYS) if optimizer != "sgd-2012" else Hyperparameters()
    whole, before, after = (executor(optimizer=optimizer) for _ in range(3))
    train(whole, h)
    train(before, h, range(3))
    after.load_state(copied(before))
    train(after, h, range(3, STEPS))
    for name, tensor in whole.state().items():
        assert torch.equal(after.state()[name], tensor), name


@pytest.mark.parametrize("partition", ["columns", "hybrid"])
def test_each_rule_holds_what_its_row_says(partition: str) -> None:
    """Of 2012's gradients those of fc layers have no buffer; other rules' all have one."""
    gpus = 1 if partition == "columns" else 2
    held = {}
    for optimizer in OPTIMIZERS:
        made = plan(CHAIN, optimizer=optimizer, batch_size=BATCH, partition=partition, gpus=gpus)
        table = memory_table(made)
        for category in (Category.WEIGHT, Category.MOMENTUM, Category.WEIGHT_GRAD):
            held[optimizer, category] = [one.by_category[category] for one in table]
    layers = 3
    for device in range(gpus):
        weights = held["sgd", Category.WEIGHT][device]
        fused = sum(
            4 * part.weight_count
            for parts in made.network.parts
            for part in parts
            if isinstance(part.layer, FullyConnected) and made.spec.device_of[part.column] == device
        )
        assert held["sgd-2012", Category.MOMENTUM][device] == weights
        assert held["sgd", Category.MOMENTUM][device] == weights
        assert held["adamw", Category.MOMENTUM][device] == 2 * weights + 4 * layers
        assert held["sgd-2012", Category.WEIGHT_GRAD][device] == weights - fused
        for optimizer in ("sgd", "adamw"):
            assert held[optimizer, Category.WEIGHT_GRAD][device] == weights


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_each_rule_s_row_is_what_its_ops_count_and_touch(optimizer: str) -> None:
    """Bytes beside the sizes of the ops' own operands; FLOP beside the rule written out by hand."""
    made = plan(NET, optimizer=optimizer, batch_size=BATCH)
    sizes = {b.name: b.size_bytes for device in made.devices for b in device.buffers}
    flop = {"sgd-2012": (7, 4), "sgd": (6, 6), "adamw": (16, 16)}[optimizer]
    for op in made.ops():
        if op.kind not in (OpKind.UPDATE, OpKind.GRAD_WEIGHT):
            continue
        part = made.part(op)
        assert op.fused == (optimizer == "sgd-2012" and isinstance(part.layer, FullyConnected))
        if op.kind == OpKind.GRAD_WEIGHT:
            continue
        written = set(op.writes)
        if RULES[optimizer].uses_up_gradient:
            # What a kernel of its own would not do.
            written -= {name for name in written if name.endswith(".grad")}
        assert op.count.moved_bytes == sum(sizes[name] for name in (*op.reads, *written))
        others = part.parameters - part.weight_count
        own = flop[0] - 6 * op.fused
        assert op.count.elementwise_flop == own * part.weight_count + flop[1] * others


def test_only_2012_s_update_has_a_kernel_of_ours() -> None:
    for optimizer in OPTIMIZERS:
        made = plan(CHAIN, optimizer=optimizer, batch_size=BATCH, backend="triton")
        ours = "triton" if optimizer == "sgd-2012" else "aten"
        assert {op.backend for op in made.ops() if op.kind == OpKind.UPDATE} == {ours}
        # Gradients have one, into the momentum or into a buffer of their own.
        products = [op for op in made.ops() if op.kind == OpKind.GRAD_WEIGHT and "fc" in op.layer]
        assert {op.backend for op in products} == {"triton"}


def test_what_a_rule_keeps_is_no_part_of_the_network() -> None:
    for optimizer in OPTIMIZERS:
        state = executor(optimizer=optimizer).state()
        plain = {name for name in state if not is_state(name)}
        assert plain == {
            f"{part.layer.name}.a.{name}" for parts in NET.parts for part in parts
            for name in part.parameters_by_name
        }  # fmt: skip


def test_the_documented_table_is_the_one_that_counts() -> None:
    text = (Path(__file__).parents[1] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    for name, rule in RULES.items():
        kept = ", ".join(f"`{state}`" for state in rule.state)
        written, read = rule.written_values, rule.read_values
        row = f"| `{name}` | {kept} | {read} | {written} | {rule.weight_flop} | {rule.other_flop} |"
        assert row in text


def test_an_unknown_rule_is_one_line() -> None:
    with pytest.raises(PlanError, match="must be one of sgd-2012, sgd, adamw; got 'adam'"):
        PlanSpec(network=NET, optimizer="adam")  # type: ignore[arg-type]
