"""``alexsim profile``: counts that are the plan's, times that add up, tables that fit."""

import json

import pytest

from alexsim.cli.app import main
from alexsim.execute.executor import Executor
from alexsim.network.editions import load_network
from alexsim.plan.planner import plan
from alexsim.plan.tables import flop_table
from alexsim.profile import calibrate, profiler
from alexsim.profile.profiler import spread

FAST = ("--net", "lenet-5", "--batch", "64", "--rounds", "3", "--threads", "1")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["profile", *arguments])
    return int(caught.value.code or 0)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_counts_are_those_of_flops(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *FAST)
    table = flop_table(load_network("lenet-5"), 64)
    assert [layer["name"] for layer in found["layers"]] == [la.name for la in table.layers]
    for layer, counted in zip(found["layers"], table.layers, strict=True):
        for key, value in (
            ("flop", counted.flop),
            ("grad_input_flop", counted.grad_input_flop),
            ("grad_weight_flop", counted.grad_weight_flop),
        ):
            assert layer[key] == 64 * value, (layer["name"], key)
        assert layer["parameters"] == counted.parameters
        whole = layer["flop"] + layer["grad_input_flop"] + layer["grad_weight_flop"]
        assert layer["arithmetic_intensity"] == whole / layer["bytes"]


def test_times_add_up_to_the_step(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, *FAST)
    passes = sum(
        seconds
        for layer in found["layers"]
        for name, seconds in layer["measured"].items()
        if name.endswith("_s") and name != "gflop_per_s"
    )
    whole = passes + found["transfers_s"] + found["rest_s"]
    assert whole == pytest.approx(found["timed_step_s"])
    # Medians of ops do not quite add up to the median of steps; the rest says by how much.
    assert abs(found["rest_s"]) < 0.5 * found["timed_step_s"]
    for layer in found["layers"]:
        for name, (low, high) in layer["measured_interval"].items():
            assert low <= layer["measured"][name] <= high
        for name, limit in layer["limit"].items():
            assert limit in ("compute", "memory", "overhead"), name
    predicted = sum(sum(layer["predicted"].values()) for layer in found["layers"])
    assert 0 < predicted <= found["predicted_step_s"]


def test_one_layer_pass_by_pass(capsys: pytest.CaptureFixture[str]) -> None:
    only = document(capsys, *FAST, "--layer", "conv1")
    assert [layer["name"] for layer in only["layers"]] == ["conv1"]
    # The first layer's input needs no gradient.
    assert set(only["layers"][0]["limit"]) == {"forward", "grad_weight", "update"}
    assert run(*FAST, "--layer", "fc5") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for word in ("fc5: FullyConnected", "grad_input", "FLOP/B", "% of the step"):
        assert word in out


def test_the_table_fits_and_widens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*FAST) == 0
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    assert "timing cost" in narrow
    from rich.console import Console

    from alexsim.cli import options

    monkeypatch.setattr(options, "console", lambda: Console(width=160, highlight=False))
    assert run(*FAST) == 0
    wide = capsys.readouterr().out
    assert "…" not in wide
    for word in ("parameters", "GMAC", "MiB moved", "FLOP/B", "MiB held"):
        assert word in wide
        assert word not in narrow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layer", "conv9"), "no layer 'conv9'; did you mean conv"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("--device", "gpu"), "--device must be one of cpu, cuda"),
        (("--machine", "gtx58"), "did you mean gtx580"),
    ],
)
def test_mistakes_get_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_measuring_rates_change_no_weight_and_leave_nothing_out() -> None:
    import torch

    made = plan(load_network("lenet-5"), batch_size=4, backend="aten")
    for still in (profiler._STILL, calibrate._STILL):
        assert still.weight_rate > 0  # ATen leaves out products that are multiplied by 0
        executor = Executor(made)
        executor.initialise()
        before = {name: tensor.clone() for name, tensor in executor.state().items()}
        images, labels = torch.randn(4, *made.network.input_shape), torch.arange(4)
        executor.step(images, labels, step=0, hyperparameters=still)
        for name, tensor in executor.state().items():
            if name.endswith("momentum"):
                assert tensor.any(), name
                assert tensor.abs().max() < 1e-15
            else:
                assert torch.allclose(tensor, before[name], rtol=0, atol=1e-15), name


def test_recording_can_be_switched_off() -> None:
    import torch

    made = plan(load_network("lenet-5"), batch_size=2, backend="aten")
    executor = Executor(made)
    executor.initialise()
    batch = torch.randn(2, *made.network.input_shape), torch.tensor([0, 1])
    for on in (True, False, True):
        executor.record(on=on)
        executor.step(*batch, step=0, hyperparameters=profiler._STILL)
        assert len(executor.trace().spans) == (sum(1 for _ in made.ops()) if on else 0)


def test_spreads_are_quantiles() -> None:
    found = spread([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    assert (found.median_s, found.low_s, found.high_s) == (6.0, 2.0, 10.0)
