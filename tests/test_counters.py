"""Other counters beside ours: their figures, and whether the explanations are exact."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import replace
from functools import cache
from importlib import util

import pytest
import torch
from chains import CHAINS, FAMILIES
from reference import REFERENCES
from test_cli import run
from torch.nn import functional as F

from alexsim.counters import comparison, tools
from alexsim.counters.comparison import Comparison, CounterResult, compare
from alexsim.counters.operators import example, operators
from alexsim.counters.readings import Counter, Item, Reading
from alexsim.counters.reconcile import forward_account
from alexsim.counters.tools import COUNTERS
from alexsim.documents.counters import compared_flops_document
from alexsim.editions.load import load_network
from alexsim.interchange.module import plain_module
from alexsim.ledger.tables import flop_table, without_formula
from alexsim.network.layers import (
    Convolution,
    Elementwise,
    FullyConnected,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan.plan import OpKind

EDITIONS = tuple(REFERENCES)


@cache
def compared(edition: str) -> Comparison:
    return compare(flop_table(load_network(edition)))


def result(name: str, edition: str = "alexnet-2012") -> CounterResult:
    package = next(counter.module for counter in COUNTERS if counter.name == name)
    if util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    return next(one for one in compared(edition).counters if one.name == name)


def fake(
    items: tuple[Item, ...], forward: int | None = None, name: str = "fake", package: str = "torch"
) -> Counter:
    total = sum(item.value for item in items) if forward is None else forward
    reading = Reading(unit="FLOP", forward=total, forward_items=items)
    return Counter(name=name, module=package, package=package, read=lambda _: reading)


def small() -> Network:
    """Two columns, a grouped convolution: small enough to count by hand."""
    return Network(
        name="small",
        input_shape=(3, 8, 8),
        columns=2,
        layers=(
            Convolution(name="conv1", filters=4, size=3, padding=1),
            ReLU(name="relu1"),
            Convolution(name="conv2", filters=5, size=3, padding=1),
            FullyConnected(name="fc3", units=(10, 0), reads="all"),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )


# Of both columns: positions x filters x weights of each.
CONV1, CONV2, FC3 = 64 * 8 * 27, 64 * 10 * 36, 640 * 10
RIGHT = (
    Item(layer="conv1", value=2 * CONV1),
    Item(layer="conv2", value=2 * CONV2),
    Item(layer="fc3", value=2 * FC3),
)


def explained(*items: Item, forward: int | None = None) -> CounterResult:
    return compare(flop_table(small()), [fake(items, forward)]).counters[0]


def terms(one: CounterResult) -> dict[str, int]:
    return {term.term: term.flop for term in one.forward_account.terms}


def training_terms(one: CounterResult) -> dict[str, int]:
    assert one.training_account is not None
    return {term.term: term.flop for term in one.training_account.terms}


@pytest.mark.parametrize("edition", CHAINS)
def test_plain_module_has_the_networks_parameters_and_shapes(edition: str) -> None:
    network = load_network(edition)
    module = plain_module(network, "meta")
    assert sum(p.numel() for p in module.parameters()) == network.parameters
    x = example(network, "meta")[0]
    for parts, (name, child) in zip(network.parts, module.named_children(), strict=False):
        x = child(x)
        assert name == parts[0].layer.name
        assert x.shape[1] == sum(part.output_shape[0] for part in parts)
        assert x.shape[2:] == parts[0].output_shape[1:]
    assert x.shape == (1, network.classes)


@pytest.mark.parametrize("edition", EDITIONS)
def test_plain_module_computes_what_the_reference_does(edition: str) -> None:
    """Up to the first fc layer: dropout at test is scaled differently."""
    network = load_network(edition)
    module, reference = plain_module(network), REFERENCES[edition]()
    mine = [child for _, child in module.named_children()]
    count = next(i for i, la in enumerate(network.layers) if isinstance(la, FullyConnected))
    x = y = torch.randn(1, *network.input_shape, generator=torch.Generator().manual_seed(3))
    pairs = list(zip(module.parameters(), reference.parameters(), strict=True))
    assert [to.shape for to, _ in pairs] == [source.shape for _, source in pairs]
    with torch.no_grad():
        for to, source in pairs:
            if source.ndim != 2:
                to.copy_(source)
        for child in mine[:count]:
            x = child(x)
        for name, step in reference.steps:
            if name == "flatten":
                break
            y = step(y)
    assert x.abs().max() > 0
    torch.testing.assert_close(x, y)


# What each counter says of alexnet-2012 in the versions that constraints.txt pins, in G.
FORWARD = {
    "torch FlopCounterMode": 1.448813632,
    "torch.profiler": 1.450991200,
    "fvcore": 0.724406816,
    "ptflops pytorch": 0.729039032,
    "ptflops aten": 0.725066088,
    "thop": 0.724406816,
    "torchinfo": 0.725066088,
    "DeepSpeed macs": 0.724406816,
    "DeepSpeed flops": 1.452512560,
}


@pytest.mark.parametrize("name", FORWARD)
def test_figures_of_2012(name: str) -> None:
    assert result(name).forward == round(FORWARD[name] * 1e9)


def test_training_figures_of_2012() -> None:
    ours = compared("alexnet-2012").table
    grouped = sum(la.flop for la in ours.layers if la.name in ("conv2", "conv4", "conv5"))
    counted = result("torch FlopCounterMode")
    assert counted.training == 4_957_309_056
    assert counted.training == ours.training_flop + grouped
    assert training_terms(counted) == {
        "weight gradient of grouped layers, times groups": grouped,
    }
    profiled = result("torch.profiler")
    assert profiled.training == 1_689_663_904
    convolutions = sum(la.flop for la in ours.layers if la.name.startswith("conv"))
    conv1 = ours.layers[0].flop
    assert training_terms(profiled)["weight gradient not counted"] == -convolutions
    assert training_terms(profiled)["input gradient not counted"] == conv1 - convolutions


def test_a_rule_for_the_backward_pass_counts_conv1s_input_gradient() -> None:
    one = result("DeepSpeed flops")
    assert one.training == 3 * one.forward
    text = "backward taken as 2 x forward, so with an input gradient"
    assert training_terms(one)[text] == compared("alexnet-2012").table.layers[0].flop


@pytest.mark.parametrize("edition", EDITIONS)
def test_every_difference_is_explained(edition: str) -> None:
    found = compared(edition)
    assert not found.failed
    assert not found.complaints
    assert {"torch FlopCounterMode", "torch.profiler"} <= {one.name for one in found.counters}
    for one in found.counters:
        forward = found.table.flop + sum(term.flop for term in one.forward_account.terms)
        assert one.forward == forward
        if one.training_account:
            terms_of = one.training_account.terms
            assert one.training == found.table.training_flop + sum(t.flop for t in terms_of)


def test_the_paper_text_gives_the_figure_without_a_spatial_norm() -> None:
    one = result("torch.profiler", "alexnet-paper")
    # Three products and sums per value of the two response norms.
    assert one.forward == 1_448_813_632 + 3 * (96 * 55 * 55 + 256 * 27 * 27)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {}),
        ({"conv1": CONV1, "conv2": CONV2, "fc3": FC3},
         {"a multiply-add counts as one FLOP": -CONV1 - CONV2 - FC3}),
        ({"conv1": 2 * CONV1 + 512}, {"bias additions": 512}),
        ({"conv2": 4 * CONV2}, {"forward of grouped layers, times groups": 2 * CONV2}),
        ({"fc3": 0}, {"forward not counted": -2 * FC3}),
        ({"relu1": 512}, {"relu, one per value": 512}),
        ({"conv1": CONV1, "conv2": 2 * CONV2, "fc3": FC3},
         {"a multiply-add counts as one FLOP": -CONV1 - 2 * CONV2 - FC3,
          "forward of grouped layers, times groups": 2 * CONV2}),
    ],
)  # fmt: skip
def test_terms_follow_from_the_breakdown(change: dict[str, int], expected: dict[str, int]) -> None:
    values = {item.layer: item.value for item in RIGHT} | change
    one = explained(*(Item(layer=layer, value=value) for layer, value in values.items()))
    assert terms(one) == expected
    assert one.unexplained_flop == 0


@pytest.mark.parametrize(
    ("extra", "residual"),
    [
        (Item(layer="conv1", value=3), 3),
        (Item(layer="conv2", value=-5), 5),
        (Item(layer="relu1", value=513), 513),
        (Item(layer="relu1", value=1024), 1024),
        (Item(layer="relu1", op="mul", value=7), 7),
        (Item(layer="attic", value=11), 11),
        (Item(op="tanh", value=13), 13),
    ],
)
def test_what_no_rule_meets_is_unexplained(extra: Item, residual: int) -> None:
    one = explained(*RIGHT, extra)
    assert one.unexplained_flop == residual
    assert not terms(one)


def test_errors_that_cancel_stay_unexplained() -> None:
    one = explained(
        Item(layer="conv1", value=2 * CONV1 + 3), Item(layer="conv2", value=2 * CONV2 - 3), RIGHT[2]
    )
    assert one.forward_ratio == 1
    assert one.unexplained_flop == 6


def test_a_figure_beside_its_own_breakdown_is_unexplained() -> None:
    one = explained(*RIGHT, forward=2 * (CONV1 + CONV2 + FC3) + 17)
    assert [(t.term, t.flop) for t in one.forward_account.unexplained] == [
        ("outside its own breakdown", 17)
    ]


def test_gradients_are_told_apart() -> None:
    table = flop_table(small())
    items = (
        *(replace(item, op="linear" if item.layer == "fc3" else "conv") for item in RIGHT),
        Item(layer="conv1", op="convolution_backward", value=4 * CONV1),
        Item(layer="conv2", op="convolution_backward", share="grad_input", value=4 * CONV2),
        Item(layer="conv2", op="convolution_backward", share="grad_weight", value=2 * CONV2),
        Item(layer="fc3", op="mm", value=2 * FC3),
    )
    reading = Reading(
        unit="FLOP",
        forward=table.flop,
        forward_items=items[:3],
        training=sum(item.value for item in items),
        training_items=items,
    )
    counter = Counter(name="fake", module="torch", package="torch", read=lambda _: reading)
    one = compare(table, [counter]).counters[0]
    assert training_terms(one) == {
        "input gradient of the first layer": 2 * CONV1,
        "input gradient of grouped layers, times groups": 2 * CONV2,
        "a multiply-add counts as one FLOP": -2 * FC3,
    }
    assert one.unexplained_flop == 0


def test_coverage_names_what_has_no_formula() -> None:
    one = explained(*RIGHT, Item(layer="relu1", value=512))
    assert one.uncounted_layers[0] == "forward SoftmaxCrossEntropy"
    assert "backward Convolution" in one.uncounted_layers
    assert "forward relu" not in one.uncounted
    assert "forward relu" in explained(*RIGHT).uncounted
    assert not one.counts_backward
    profiled = result("torch.profiler")
    assert "backward convolution_backward" in profiled.uncounted
    assert "forward LocalResponseNorm in part" in profiled.uncounted_layers
    ran = operators(load_network("alexnet-2012"))
    assert {op.name for op in ran} >= {"convolution_backward", "threshold_backward", "avg_pool3d"}
    assert {op.layer for op in ran} == {la.name for la in load_network("alexnet-2012").layers}


def test_our_own_count_has_a_formula_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for edition in FAMILIES:
        assert without_formula(load_network(edition)) == ()
    monkeypatch.setattr(ReLU, "elementwise", lambda _: Elementwise(forward=0, grad_input=1))
    assert without_formula(small()) == (("relu1", OpKind.FORWARD),)
    found = compare(flop_table(small()), [fake(RIGHT)])
    assert found.complaints == (
        "no formula for forward of ReLU relu1", "no formula for forward relu in relu1",
    )  # fmt: skip


def test_counters_leave_nothing_behind(capfd: pytest.CaptureFixture[str]) -> None:
    def vandal(_: Network) -> Reading:
        F.relu = torch.Tensor.mul = torch.add = lambda *_: None
        torch.Tensor.left_behind = lambda *_: None
        torch.set_grad_enabled(False)
        torch.manual_seed(5)
        os.environ["ALEXSIM_LEFT_BEHIND"] = "1"
        warnings.warn("noise", stacklevel=1)
        print("noise")
        print("noise", file=sys.stderr)
        os.write(2, b"noise\n")
        raise RuntimeError("two\nlines")

    functions = F.relu, torch.Tensor.mul, torch.add
    torch.manual_seed(1)
    state = torch.get_rng_state()
    counter = Counter(name="vandal", module="torch", package="torch", read=vandal)
    found = compare(flop_table(small()), [counter, fake(RIGHT)])
    assert (F.relu, torch.Tensor.mul, torch.add) == functions
    assert not hasattr(torch.Tensor, "left_behind")
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    assert "ALEXSIM_LEFT_BEHIND" not in os.environ
    assert capfd.readouterr() == ("", "")
    assert [one.reason for one in found.failed] == ["RuntimeError: two lines"]
    assert [one.name for one in found.counters] == ["fake"]


def test_the_installed_counters_leave_nothing_behind() -> None:
    before = [dict(vars(place)) for place in (F, torch.Tensor)]
    compare(flop_table(load_network("lenet-5")))
    for place, kept in zip((F, torch.Tensor), before, strict=True):
        assert {k: v for k, v in vars(place).items() if callable(v)} == {
            k: v for k, v in kept.items() if callable(v)
        }


def test_strict_exits_4_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = flop_table(load_network("lenet-5")).flop
    wrong = fake((), forward=ours + 1234, name="wrong")
    missing = fake((), name="missing", package="no_such_counter")
    monkeypatch.setattr(tools, "COUNTERS", (wrong, missing))
    assert run("flops", "--net", "lenet-5", "--compare") == 0
    out = capsys.readouterr().out
    assert "unexplained: outside its own breakdown" in out
    assert "not installed: pip install no_such_counter" in out
    assert run("flops", "--net", "lenet-5", "--compare", "--strict") == 4
    out, err = capsys.readouterr()
    assert err == "alexsim: wrong: 1,234 unexplained\n"
    assert out
    assert run("flops", "--strict") == 2


def test_compare_prints_within_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compared("alexnet-2012")
    monkeypatch.setattr(comparison, "compare", lambda *_: found)
    assert run("flops", "--compare", "--strict") == 0
    out, err = capsys.readouterr()
    assert not err
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out
    assert "+821,698,560  +19.87%" in out
    assert "conv2, conv4, conv5" in out
    assert "alexsim has a formula for every layer and pass" in out


def test_compare_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("flops", "--net", "lenet-5", "--compare", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() >= {"flop", "layers", "counters", "not_installed"}
    names = {counter.package for counter in COUNTERS if util.find_spec(counter.module) is None}
    assert set(document["not_installed"]) == names
    for one in document["counters"]:
        assert one.keys() >= {
            "name", "version", "unit", "forward", "training", "forward_ratio", "training_ratio",
            "explanation", "unexplained_flop", "uncounted",
        }  # fmt: skip
        assert one["forward_ratio"] == one["forward"] / document["flop"]
        total = sum(term["flop"] for term in one["explanation"])
        assert one["forward"] == document["flop"] + total
        assert one["unexplained_flop"] == 0
    table = flop_table(small())
    empty = compared_flops_document(table, compare(table, [])).document()
    assert empty["counters"] == []
    assert comparison.COUNTERS is COUNTERS


def test_half_of_two_groups_is_no_multiply_add() -> None:
    """An entry alone may be met by two rules; the ungrouped layers say which one holds."""
    table, ran = flop_table(small()), operators(small())
    items = (Item(layer="conv2", value=2 * CONV2),)
    reading = Reading(unit="FLOP", forward=2 * CONV2, forward_items=items)
    found = {term.term for term in forward_account(table, ran, reading).terms}
    assert found == {"forward not counted"}
