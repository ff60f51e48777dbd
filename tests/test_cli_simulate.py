"""The simulator's commands as their users and scripts see them."""

import csv
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from alexsim.cli.app import main

SIMULATE_KEYS = {
    "schema", "alexsim", "network", "batch_size", "machine", "library", "step_s", "images_per_s",
    "forward_s", "backward_s", "training_days", "training_days_interval",
    "ideal_forward_images_per_s", "utilisation", "devices", "exchanges", "layers",
}  # fmt: skip
CALIBRATION = str(files("alexsim_profiles") / "baselines" / "cpu-2-cores" / "calibration.json")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_simulate_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "simulate")
    assert found.keys() >= SIMULATE_KEYS
    keys = {"name", "busy_s", "idle_s", "exchange_s", "upload_s", "memory_bytes"}
    assert [device["name"] for device in found["devices"] if device.keys() > keys] == [
        "gpu0", "gpu1",
    ]  # fmt: skip
    path = found["critical_path"]
    assert sum(p["end_s"] - p["start_s"] for p in path) == pytest.approx(found["step_s"])
    for device in found["devices"]:
        ops = [op["seconds"] for op in found["ops"] if op["device"] == device["name"]]
        assert sum(ops) == pytest.approx(device["busy_s"])
    assert {"name", "source", "target", "bytes", "seconds"} == found["exchanges"][0].keys()
    assert {"name", "device", "forward_s", "grad_input_s", "grad_weight_s"} <= found["layers"][
        0
    ].keys()
    assert sum(exchange["bytes"] for exchange in found["exchanges"]) == 57.25 * 1024**2
    low, high = found["training_days_interval"]
    assert low < found["training_days"] < high
    for device in found["devices"]:
        parts = device["busy_s"] + device["idle_s"] + device["exchange_s"] + device["upload_s"]
        assert parts == pytest.approx(found["step_s"], rel=0.01)


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "--sensitivity"),
        ("simulate", "--net", "alexnet-owt", "--machine", "k20x8", "--gpus", "8",
         "--partition", "hybrid", "--batch", "1024", "--schedule", "overlap"),
        ("simulate", "--library", "measured", "--machine", CALIBRATION),
        ("simulate", "--net", "resnet50", "--machine", "a100x4", "--batch", "256", "--elasticities",
         "--what-if", "layer1_0_downsample_0.grad_weight=1.25x", "--what-if", "machine=dgx-a100"),
        ("sweep", "-a", "batch=32,64", "-a", "library=roofline,cuda-convnet"),
        ("sweep", "-a", "machine=gtx680,titan-x-maxwell", "-a", "gpus=1", "--net", "caffenet"),
        ("recommend", "--net", "lenet-5", "--days", "2"),
        ("hardware", "list"),
        ("hardware", "show", "gtx580x2"),
        ("check", "validate",),
    ],
)  # fmt: skip
def test_tables_fit_a_terminal(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out


def test_options_reach_the_simulator(capsys: pytest.CaptureFixture[str]) -> None:
    base = document(capsys, "simulate")["step_s"]
    slow = document(capsys, "simulate", "--set", "device.clock_mhz=772")["step_s"]
    assert slow > 1.5 * base
    narrow = document(capsys, "simulate", "--link", "pcie1-x8")["exchanges"]
    assert narrow[0]["seconds"] > 3 * document(capsys, "simulate")["exchanges"][0]["seconds"]
    assert document(capsys, "simulate", "--machine", "h200", "--gpus", "1")["step_s"] < base / 10
    one_epoch = document(capsys, "simulate", "--epochs", "1", "--images", "128000")
    assert one_epoch["training_days"] == pytest.approx(1000 * base / 86_400)
    half = document(capsys, "simulate", "--precision", "fp16", "--machine", "v100", "--gpus", "1")
    assert (
        half["step_s"] < document(capsys, "simulate", "--machine", "v100", "--gpus", "1")["step_s"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simulate", "--machine", "gtx58"), "did you mean"),
        (("simulate", "--library", "cudann"), "no library 'cudann'"),
        (("simulate", "--link", "pcie9"), "no link 'pcie9'"),
        (("simulate", "--set", "device.clock"), "must be KEY=NUMBER"),
        (("simulate", "--set", "device.clock_hz=fast"), "takes a plain number of Hz"),
        (("simulate", "--partition", "rows"), "--partition must be one of columns"),
        (("simulate", "--precision", "int8"), "--precision must be one of fp32"),
        (("simulate", "--gpus", "2", "--partition", "replicas", "--batch", "3"), "does not divide"),
        (("simulate", "--machine", "none.json"), "`alexsim check calibrate` makes one"),
        (
            ("simulate", "--machine", CALIBRATION, "--library", "cudnn-v4"),
            "its library is measured, not cudnn-v4",
        ),
        (("simulate", "--machine", "k40", "--library", "measured"), "needs the .json file of"),
        (("simulate", "--machine", CALIBRATION, "--link", "pcie3-x16"), "--link changes a data"),
        (("simulate", "--machine", CALIBRATION, "--sensitivity"), "--sensitivity changes a data"),
        (
            ("simulate", "--machine", CALIBRATION, "--net", "lenet-5"),
            "alexsim check calibrate --net",
        ),
        (("simulate", "--gpus", "0", "--partition", "replicas"), "gpus must be at least 1"),
        (("simulate", "--what-if", "con2.forward=2x"), "no layer 'con2'; did you mean conv2?"),
        (("simulate", "--what-if", "conv2.forwad=2x"), "no pass 'forwad'; did you mean forward?"),
        (("simulate", "--what-if", "conv2=2"), "must be a number of times as fast, as in 2x"),
        (("simulate", "--what-if", "conv2=0x"), "must be 0.001x to 1000x as fast, got 0x"),
        (("simulate", "--what-if", "speed=3"), "no change 'speed'"),
        (("simulate", "--what-if", "fused"), "must be one of fuse, overlap"),
        (("simulate", "--what-if", "precision=fp16:norm*"), "no layer of products 'norm*'"),
        (("simulate", "--what-if", "precision=tf32:conv*"), "must be fp16, got 'tf32'"),
        (("simulate", "--what-if", "precision=int8"), "precision must be one of fp32"),
        (("simulate", "--what-if", "device.clock_mhz=fast"), "takes a plain number of MHz"),
        (("simulate", "--what-if", "replicas=2"), "4 are asked for"),
        (("simulate", "--partition", "hybrid"), "needs a number of GPUs (--gpus N)"),
        (("simulate", "--precision", "fp16"), "cuda-convnet has no fp16 kernels"),
        (
            ("simulate", "--machine", "p100", "--library", "cudnn-v7", "--precision", "fp16"),
            "has no tensor cores for fp16",
        ),
        (("simulate", "--set", "devices_per_uplink=0.5"), "must be a whole number, got 0.5"),
        (("simulate", "--set", "device.clock_hz=nan"), "must be finite"),
        (("sweep",), "at least one --axis"),
        (("sweep", "-a", "library=measured"), "alexsim simulate --library measured"),
        (("sweep", "-a", "speed=1"), "no axis 'speed'"),
        (("sweep", "-a", "batch"), "must be NAME=VALUE"),
        (("sweep", "-a", "batch=8", "-o", "x.xls"), "must name a file in .csv, .json, .parquet"),
        (("sweep", "-a", "batch=²"), "batch must be a positive whole number"),
        (("check", "validate", "--gate", "nan"), "--gate must be positive"),
        (("sweep", "-a", "batch=1", "-a", "batch=2"), "given twice"),
        (("sweep", "-a", "batch=none"), "batch must be a positive whole number"),
        (("recommend", "--days", "1", "--machine", "gtx58"), "--machine: no machine or device"),
        (("recommend", "--days", "1", "--gpus", "x"), "--gpus: gpus must be a positive whole"),
        (("recommend", "--days", "1", "--precision", "int8"), "--precision: precision must be one"),
        (
            (
                "recommend",
                "--days",
                "1",
                "--machine",
                "k80",
                "--gpus",
                "2",
                "--batch",
                "3",
                "--partition",
                "replicas",
            ),
            "a batch of 3 images does not divide over 2 GPUs",
        ),
        (("recommend", "--budget", "500", "--machine", "k80"), "of these cards no sheet states"),
        (("hardware", "show", "gtx58"), "did you mean gtx580"),
        (("check", "validate", "--measurements", "none.csv"), "there is no none.csv"),
        (("check", "calibrate", "--batches", "8"), "at least two batch sizes"),
        (("check", "calibrate", "-o", "here"), "-o must name a .json file, got here"),
        (("check", "calibrate", "--threads", "0"), "--threads must be at least 1"),
        (("check", "calibrate", "-o", "/proc/none/x.json"), "cannot write /proc/none/x.json"),
        (("check", "calibrate", "--batches", "8,16", "--check", "16"), "both have 16"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_plan_that_does_not_fit_is_timed_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert document(capsys, "simulate")["fits"] is True
    for more in ([], ["--json"]):
        assert run("simulate", "--gpus", "1", *more) == 3
        out, err = capsys.readouterr()
        assert err.startswith("alexsim: gpu0 needs 3.22 GiB, its card has 3.00 GiB: ")
        if more:
            assert json.loads(out)["fits"] is False
        else:
            assert "DOES NOT FIT: the GPU has 3.00 GiB; context included" in out


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--gpus 1 --batch 64",
        "--net resnet50 --machine a100x4 --batch 256",
        "--net resnet50 --machine a100 --batch 64 --precision amp",
        "--net alexnet-owt --machine h100 --batch 256",
        "--net alexnet-owt --machine k20x8 --gpus 8 --batch 1024 --partition hybrid",
        "--recipe 2012",
        "--net resnet50 --machine 4xh100 --batch 256 --precision amp",
        "--net vgg16 --machine gtx1080tix4 --batch 64 --policy pytorch",
        "--net vgg16 --machine gtx1080tix4 --batch 64 --schedule overlap",
    ],
)
def test_the_answer_is_on_the_first_screen(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it, with a question to ask next that these options go with."""
    words = line.split()
    assert run("simulate", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    screen, last = lines[:24], next(i for i, text in enumerate(lines) if text.startswith("More:"))
    assert last < 22
    assert max(map(len, screen)) <= 80
    rows = ("step", "throughput", "training", "memory", "bound by", "data path", "Rests", "More:")
    assert [row for text in screen for row in rows if text.startswith(row)] == list(rows)
    if "--policy pytorch" in " ".join(text.strip() for text in screen):
        assert run("simulate", *words, "--policy", "pytorch") == 0
        capsys.readouterr()
    _, _, question = " ".join(lines[last : last + 2]).partition("Next: ")
    for option in question.strip().split(", "):
        assert run("simulate", *words, *option.strip().split()) == 0, option
        assert (
            "What if" in (out := capsys.readouterr().out)
            or "Elasticities" in out
            or ("--data-path" in option)
        )


def test_sensitivities_are_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    rows = document(capsys, "simulate", "--sensitivity")["sensitivity"]
    clock = next(row for row in rows if row["assumption"] == "device.clock_hz")
    assert 1.05 < clock["ratio"] < 1.12


def test_every_row_is_listed_unless_sums_are_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "validate") == 0
    whole = capsys.readouterr().out
    assert run("check", "validate", "--summary") == 0
    short = capsys.readouterr().out
    row = "pap-0003  2 x alexnet-2012      128 train-step    479.6"
    assert row in whole
    assert row not in short
    assert len(whole.splitlines()) > 738 + len(short.splitlines())


def test_sweep_simulates_every_combination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.csv"
    axes = ("-a", "batch=64,127,128", "-a", "partition=columns,replicas", "-a", "gpus=2")
    assert run("sweep", *axes, "-o", str(path)) == 0
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [row["batch"] for row in rows] == ["64", "64", "127", "127", "128", "128"]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True, False, False]
    assert "does not divide" in rows[3]["error"]
    alone = document(capsys, "simulate", "--batch", "64")
    assert float(rows[0]["step_s"]) == pytest.approx(alone["step_s"], rel=1e-5)
    found = document(capsys, "sweep", *axes)
    assert [point["error"] != "" if "error" in point else False for point in found["points"]] == [
        False, False, False, True, False, False,
    ]  # fmt: skip


def test_sweep_writes_what_other_tools_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ("-a", "batch=64,127", "-a", "partition=columns,replicas", "-a", "gpus=2",
            "-a", "device.clock_mhz=1500.5,1544")  # fmt: skip
    found = document(capsys, "sweep", *axes)
    for suffix in ("csv", "json", "parquet"):
        assert run("sweep", *axes, "-o", str(tmp_path / f"x.{suffix}")) == 0
        assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == found
    from pyarrow import parquet

    rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    lines = list(csv.DictReader((tmp_path / "x.csv").read_text("utf-8").splitlines()))
    assert len(rows) == len(lines) == len(found["points"]) == 8
    for row, line, point in zip(rows, lines, found["points"], strict=True):
        assert (row["batch"], row["gpus"]) == (int(line["batch"]), 2)
        assert row["device.clock_mhz"] == float(point["settings"]["device.clock_mhz"])
        assert row["error"] == line["error"] == point.get("error", "")
        assert row["step_s"] == point.get("step_s")
        if row["step_s"] is not None:
            assert float(line["step_s"]) == pytest.approx(row["step_s"], rel=1e-5)


def test_energy_is_power_times_time_and_price_that_of_every_card(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = document(
        capsys, "sweep", "-a", "machine=gtx680,gtx580x2", "-a", "gpus=1,2", "--epochs", "9",
        "-a", "batch=64",
    )["points"]  # fmt: skip
    for point, watts, price in zip(
        found, (195, 390, 244, 488), (499, 998, None, None), strict=True
    ):
        assert point["energy_kwh"] == pytest.approx(watts * point["training_days"] * 24 / 1000)
        assert point["price_usd"] == price
    assert any(point["pareto"] for point in found)


def test_a_dry_run_lists_the_grid(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sweep", "-a", "batch=64,128", "-a", "gpus=1,2", "--dry-run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "batch=64 gpus=1", "batch=64 gpus=2", "batch=128 gpus=1", "batch=128 gpus=2",
        "4 configurations",
    ]  # fmt: skip
    listed = document(capsys, "sweep", "-a", "batch=64,128", "--dry-run")["configurations"]
    assert [one["batch"] for one in listed] == ["64", "128"]


def test_many_configurations_go_to_several_processes_in_order(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    sizes = ",".join(str(size) for size in range(1, 222))
    assert run("sweep", "-a", f"batch={sizes}", "--net", "lenet-5", "-o", str(path)) == 0
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert [int(row["batch"]) for row in rows] == list(range(1, 222))
    times = [float(row["step_s"]) for row in rows]
    assert times[0] < times[-1]


def test_hardware_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "hardware", "list")
    assert {"gtx580x2", "k20x8", "dgx-1"} <= {machine["name"] for machine in found["machines"]}
    pair = document(capsys, "hardware", "show", "gtx580x2")
    assert (pair["device"], pair["peer"], pair["peer_link"]) == ("gtx580", True, None)
    assert pair["uplink"]["title"] == "PCI Express 2.0 x16 with a GTX 580"
    card = document(capsys, "hardware", "show", "gtx580")
    assert (card["architecture"], card["year"]) == ("fermi", 2010)
    assert card["clock_hz"]["value"] == 1.544e9
    assert card["clock_hz"]["kind"] == "spec"


def test_calibrate_predicts_what_it_has_not_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calibration.json"
    found = document(
        capsys, "check", "calibrate", "--net", "lenet-5", "--batches", "64,256", "--check", "128",
        "--rounds", "3", "--threads", "1", "-o", str(path),
    )  # fmt: skip
    assert {row["name"] for row in found["checks"]} >= {"step", "conv1", "fc5"}
    # Two processes summed small and large tensors.
    small, large = (rate["seconds"] for rate in found["rates"] if rate["what"] == "all-reduce")
    assert 0 < small < large
    replicas = document(
        capsys, "simulate", "--machine", str(path), "--net", "lenet-5", "--batch", "256",
        "--replicas", "2", "--data-path", "none",
    )  # fmt: skip
    step = found["checks"][0]
    assert replicas["step_s"] > 1.5 * step["predicted_s"]
    assert step["name"] == "step"
    assert 0.3 < step["predicted_s"] / step["measured_s"] < 3  # figures are for benchmarks
    again = document(
        capsys, "simulate", "--library", "measured", "--machine", str(path),
        "--net", "lenet-5", "--batch", "128", "--data-path", "none",
    )  # fmt: skip
    assert again["step_s"] == pytest.approx(step["predicted_s"])
    # Decoding takes its turn on the same cores.
    beside = document(
        capsys, "simulate", "--machine", str(path), "--net", "lenet-5", "--batch", "128"
    )
    work = {rate["what"]: rate["per_second"] for rate in found["rates"]}
    assert beside["step_s"] - again["step_s"] == pytest.approx(
        128 / work["image load"] + 128 / work["image normalise"], rel=0.01
    )
    arguments = ("simulate", "--machine", str(path), "--net", "lenet-5")
    text = path.read_text("utf-8")
    for old, new, message in (
        ('"schema": 3', '"schema": 2', "schema 2, not 3"),
        ('"threads": 1', '"threads": 0', "threads must be at least 1, got 0"),
        ('"threads": 1', '"thread": 1', "missing keys ['threads'], unknown keys ['thread']"),
        (
            '"scatter": ',
            '"scatter": NaN, "x": ',
            "of this version: missing keys [], unknown keys ['x']",
        ),
        (
            '"memory_bytes": ',
            '"memory_bytes": Infinity, "rounds": ',
            "memory_bytes must be a whole number",
        ),
        ('"per_second": ', '"per_second": NaN, "seconds": ', "per_second must be a finite number"),
        *(
            ('"ops": {', f'"ops": {{"x": [[8, {bad}]],', "ops.x")
            for bad in ("NaN", "Infinity", "0", "-1")
        ),
    ):
        path.write_text(text.replace(old, new), "utf-8")
        assert run(*arguments) == 2
        assert message in capsys.readouterr().err


def test_simulate_starts_without_torch_or_pandas() -> None:
    """It reads its fit with numpy."""
    code = (
        "import sys; from alexsim.cli.app import main\n"
        "try: main(['simulate', '--json'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
