"""What ``simulate`` answers first, what it is made of, and that other commands say the same."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from alexsim.cli.app import main
from alexsim.documents.simulation import StepParts
from alexsim.editions.load import load_network
from alexsim.machine.machine import load_machine
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.report.tables import data_path_text
from alexsim.simulate.host import data_path_times
from alexsim.simulate.simulator import on_machine


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


K80 = ("simulate", "--net", "alexnet-mxnet", "--machine", "k80", "--partition", "replicas")


def test_a_bare_device_sums_gradients_over_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """203 MB from each of two machines cross its link once in either direction."""
    own = tmp_path / "gigabit.toml"
    rates = {"bytes_per_s": 125_000_000, "efficiency": 0.94, "latency_s": 5e-5}
    own.write_text(
        'name = "Gigabit Ethernet"\n'
        + "".join(
            f'{key} = {{ value = {value}, kind = "spec", source = "line" }}\n'
            for key, value in rates.items()
        )
        + '[sources]\nline = "IEEE 802.3"\n'
    )
    two = (*K80, "--gpus", "2", "--batch", "512", "--data-path", "none")
    size = 4 * load_network("alexnet-mxnet").parameters
    seconds = [
        document(capsys, *two, "--network", network)["all_reduce_s"]
        for network in (str(own), "10gbe")
    ]
    assert seconds[0] == pytest.approx(size / (125e6 * 0.94), rel=0.01)
    assert seconds[1] < seconds[0] / 8
    assert document(capsys, *two)["all_reduce_s"] < seconds[1] / 5


@pytest.mark.parametrize("net", ["lenet-5", "cifar10-quick", "alexnet-2012"])
def test_a_step_is_one_figure_whose_parts_are_named(
    net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step takes as long as the slower of what the GPUs and the data path take."""
    found = document(capsys, "simulate", "--net", net)
    ready = document(capsys, "simulate", "--net", net, "--data-path", "none")
    path = found["data_path"]
    assert path["side"] == round(load_network(net).input_shape[1] * 256 / 224)
    assert path["seconds"] == max(path["disk_s"], path["decode_s"], path["crop_s"])
    assert found["host_s"] == path["seconds"] == pytest.approx(128 / path["images_per_s"])
    assert found["step_without_data_s"] == pytest.approx(ready["step_s"])
    assert found["step_s"] == pytest.approx(max(ready["step_s"], path["seconds"]))
    assert found["bound"] == ("GPUs" if net == "alexnet-2012" else "data path")
    assert ready["data_path"] is None
    # The same in what training, profiles and reports say.
    there = on_machine(PlanSpec(network=load_network(net)), load_machine("gtx580x2"))
    assert there.step_s == pytest.approx(found["step_s"])
    parts = StepParts.of(there).document()
    assert parts["step_without_data_s"] == pytest.approx(found["step_without_data_s"])
    assert (parts["data_path"], parts["bound"]) == (pytest.approx(path), found["bound"])
    page = tmp_path / "page.html"
    assert run("report", net, "-o", str(page)) == run("simulate", "--net", net) == 0
    line = data_path_text(there)
    assert line in page.read_text("utf-8")
    assert line in " ".join(capsys.readouterr().out.split())


def test_smaller_images_are_read_and_decoded_faster_but_not_for_nothing() -> None:
    made = plan(load_network("lenet-5"), batch_size=128)
    times = []
    for side in (28, 56, 112, 224):
        network = replace(made.network, input_shape=(1, side, side))
        times.append(data_path_times(load_machine("gtx580x1"), replace(made, network=network)))
    for before, after in itertools.pairwise(times):
        for stage, seconds in before.stages.items():
            assert seconds < after.stages[stage] < 4 * seconds
    assert [time.side for time in times] == [32, 64, 128, 256]
    assert times[-1].decode_s == pytest.approx(128 / 600)
    assert 0.18 < times[0].decode_s / times[-1].decode_s < 0.2


def test_a_recipes_days_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "simulate", "--recipe", "2012")
    assert found["training_days"] == pytest.approx(sum(one["days"] for one in found["stages"]))
    low, high = found["training_days_interval"]
    assert low < found["training_days"] < high
    assert found["training_days"] < document(capsys, "simulate")["training_days"]
    assert run("simulate", "--recipe", "2012") == 0
    screen = capsys.readouterr().out.splitlines()[:24]
    (days,) = [line for line in screen if line.startswith("training")]
    assert days.split()[1:3] == [f"{found['training_days']:.3g}", "days"]
    assert "recipe 2012, 90 epochs of 1,281,167 images" in " ".join(" ".join(screen).split())
