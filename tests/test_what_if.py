"""What-ifs are what the step with that option is; elasticities are what their definition says."""

import json

import pytest

from alexsim.cli.app import main
from alexsim.costs.correction import correction_of
from alexsim.editions.load import load_network
from alexsim.explore.what_if import PASSES, parse_change
from alexsim.machine.machine import changed, load_machine
from alexsim.plan.planner import plan
from alexsim.plan.precision import half_by_rule, output_bytes
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import simulate_network
from alexsim.simulate.timer import Timer, timer_of

NET = load_network("alexnet-2012")
MACHINE = load_machine("gtx580x2")


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--json"])
    assert not caught.value.code
    return json.loads(capsys.readouterr().out)


def step(faster: dict[tuple[str, str], float] | None = None, **numbers: float) -> Simulation:
    there = changed(MACHINE, numbers)
    clock = timer_of("cuda-convnet", there, correction_of("cuda-convnet"))
    timer = Timer(
        machine=there, library=clock.library, correction=clock.correction, faster=faster or {}
    )
    return simulate_network(PlanSpec(network=NET), timer, whole_pipeline=True)


def shares(simulation: Simulation) -> dict[tuple[str, str], float]:
    return {(each.part, each.pass_name): each.share for each in simulation.elasticities}


SAME = {
    "overlap": ("--schedule", "overlap"),
    "fuse": ("--fuse",),
    "link=pcie3-x16": ("--link", "pcie3-x16"),
    "batch=256": ("--batch", "256"),
    "device.clock_mhz=1700": ("--set", "device.clock_mhz=1700"),
    "library=roofline": ("--library", "roofline"),
    "transport=host": ("--transport", "host"),
}


def test_a_change_is_the_step_with_that_option(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("simulate", "--recipe", "2012", "--epochs", "50", "--set", "device.clock_mhz=1600")
    given = [word for change in SAME for word in ("--what-if", change)]
    beside = document(capsys, *asked, *given)
    for changed_step, option in zip(beside["what_if"], SAME.values(), strict=True):
        line = asked[:-2] if option[0] == "--set" else asked
        alone = document(capsys, *line, *option)
        for key in ("step_s", "images_per_s", "training_days", "fits"):
            assert changed_step[key] == alone[key], option
        assert changed_step["ratio"] == alone["training_days"] / beside["training_days"]
        assert changed_step["beyond_peaks_s"] < 1e-12
        for moved in changed_step["moved"]:
            assert moved["before_s"] != moved["after_s"]


def test_other_machines_have_as_many_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("simulate", "--net", "vgg-a", "--machine", "a100x4")
    beside = document(capsys, *asked, "--what-if", "machine=dgx-a100")["what_if"][0]
    alone = document(capsys, *asked[:-1], "dgx-a100", "--gpus", "4")
    assert beside["step_s"] == alone["step_s"]


@pytest.mark.parametrize(
    ("change", "layers", "passes"),
    [
        ("conv2.forward=2x", {"conv2"}, {"forward"}),
        ("CONV*.grad_weight=2x", {f"conv{n}" for n in range(1, 6)}, {"grad_weight"}),
        ("fc?=2x", {"fc6", "fc7", "fc8"}, set(PASSES)),
        ("*.update=2x", {layer.name for layer in NET.layers}, {"update"}),
    ],
)
def test_kernels_are_so_many_times_as_fast_and_nothing_else(
    change: str, layers: set[str], passes: set[str]
) -> None:
    before, after = step(), step(dict(parse_change(change, NET).faster))
    for slow, fast in zip(before.layers, after.layers, strict=True):
        for name in PASSES:
            times = 2 if fast.name in layers and name in passes else 1
            seconds = (getattr(layer, f"{name}_s") for layer in (slow, fast))
            assert next(seconds) == pytest.approx(times * next(seconds))
    # Every layer is on the one path of this step, so all that is saved is.
    saved = sum(share for (part, name), share in shares(before).items()
                if part in layers and name in passes) / 2  # fmt: skip
    assert before.step_s - after.step_s == pytest.approx(saved * before.step_s)


def test_kernels_over_the_peak_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(
        capsys, "simulate", "--what-if", "conv2=40x", "--what-if", "conv2.forward=1.1x"
    )
    beyond, within = found["what_if"]
    products = [op for op in found["ops"] if op["device"] == "gpu0" and "conv2.a" in op["id"]]
    least_s = sum(op["flop"] for op in products) / MACHINE.device.flop_per_s
    seconds = sum(op["seconds"] for op in products) / 40
    assert beyond["beyond_peaks_s"] >= least_s - seconds > 0.02
    assert within["beyond_peaks_s"] == 0
    assert beyond["moved"][0]["part"] == "convolutions"


def test_where_images_set_the_pace_no_kernel_is_worth_anything() -> None:
    """The critical path of that step has kernels on it; so has that of the step before."""
    found = step(decode_images_per_s=50)
    assert found.data_bound
    assert shares(found) == pytest.approx({("decode", ""): 1})
    assert any(span.activity == "computing" for span in found.critical_path)
    assert step({("conv2", "forward"): 2}, decode_images_per_s=50).step_s == found.step_s


def test_another_path_may_take_over() -> None:
    """Then less is gained than the elasticity promises: decoding is 4 % shorter than the step."""
    decode_s = 0.96 * step().step_s
    workers = MACHINE.decode_workers.value
    rate = 128 / workers / decode_s
    before = step(decode_images_per_s=rate)
    faster = {("conv2", "forward"): 2}
    after = step(faster, decode_images_per_s=rate)
    promised = shares(before)["conv2", "forward"] / 2
    gained = 1 - after.step_s / before.step_s
    assert 0.036 < gained < promised
    assert shares(after) == pytest.approx({("decode", ""): 1})


def test_elasticities_are_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "simulate", "--elasticities")
    assert sum(each["share"] for each in found["elasticities"]) == pytest.approx(1)
    named = {(each["part"], each["pass"]): each["share"] for each in found["elasticities"]}
    layer = next(layer for layer in found["layers"] if layer["name"] == "conv2")
    assert named["conv2", "forward"] == pytest.approx(layer["forward_s"] / found["step_s"])
    assert "elasticities" not in document(capsys, "simulate")


def test_half_precision_of_some_layers_lies_between_none_and_all() -> None:
    """All of them are autocast's; of none, every number is float32. Between them numbers are
    converted where a layer in half precision meets another."""
    layers = frozenset(half_by_rule(NET))
    assert output_bytes(NET, "amp", layers) == output_bytes(NET, "amp")
    assert output_bytes(NET, "amp", frozenset()) == output_bytes(NET, "fp32")
    plans = [
        plan(NET, precision="amp", half_layers=half)
        for half in (frozenset(), frozenset({"conv3"}), layers, None)
    ]
    assert plans[2].devices == plans[3].devices
    cast = [sum(op.count.cast_bytes for op in made.ops()) for made in plans]
    assert cast[0] == 0 < cast[1] < cast[2]
    by_layer = {op.layer for op in plans[1].ops() if op.count.cast_bytes}
    assert by_layer == {"conv3", "conv4"}  # what conv3 reads; relu3's output, in half, for conv4


def test_half_precision_of_some_layers_is_timed_so(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("simulate", "--net", "vgg-a", "--machine", "a100", "--batch", "32")
    changes = ("precision=fp16:conv3*", "precision=fp16:*", "precision=amp")
    given = [word for change in changes for word in ("--what-if", change)]
    found = document(capsys, *asked, *given)
    some, every, amp = (changed_step["step_s"] for changed_step in found["what_if"])
    assert every == amp < some < found["step_s"]
