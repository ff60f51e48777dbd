"""The command line as its users and their scripts see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexsim.cli.app import main
from alexsim.command.output import write_bytes

FLOPS_KEYS = {"parameters", "neurons", "mac", "flop", "training_flop", "layers"}
MEMORY_KEYS = {"policy", "budget_bytes", "fits", "devices", "largest_batch_size", "suggestions"}
HEAD_KEYS = {"schema", "alexsim", "network", "batch_size"}
CATEGORIES = {
    "input", "activation", "activation_grad", "norm", "mask", "remote", "remote_grad", "weight",
    "momentum", "weight_grad", "partial_sum", "workspace", "context",
}  # fmt: skip


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


def test_flops_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("flops", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() >= FLOPS_KEYS | HEAD_KEYS
    assert document["parameters"] == 60_965_224
    assert document["flop"] == 2 * document["mac"] == 1_448_813_632
    assert document["training_flop"] == 4_135_610_496
    assert [layer["name"] for layer in document["layers"]][:4] == [
        "conv1", "norm1", "pool1", "relu1",
    ]  # fmt: skip
    sums = {key: sum(la[key] for la in document["layers"]) for key in ("parameters", "mac", "flop")}
    assert sums == {key: document[key] for key in sums}


def test_flops_reconciles_the_articles(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("flops") == 0
    out = capsys.readouterr().out
    assert "1.4284" in out
    assert "1.4488" in out
    assert "60,965,224" in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out


def test_memory_json_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("memory", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document.keys() >= MEMORY_KEYS | HEAD_KEYS
    assert document["fits"] is True
    for device in document["devices"]:
        assert device["by_category"].keys() >= CATEGORIES
        assert sum(device["by_category"].values()) == device["total_bytes"]
        assert sum(device["by_layer"].values()) == device["total_bytes"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--gpus", "1", "--mem-cap", "3GB"), 3),
        (("--gpus", "1", "--mem-cap", "3GB", "--batch", "64"), 0),
        (("--gpus", "1", "--policy", "in-place"), 0),
        (("--gpus", "2", "--mem-cap", "1GB", "--policy", "reuse"), 0),
    ],
)
def test_memory_verdicts(
    arguments: tuple[str, ...], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("memory", *arguments) == code
    out, err = capsys.readouterr()
    assert max(len(line) for line in out.splitlines()) <= 80
    assert ("what would fit: --batch" in err) == (code == 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("memory", "--mem-cap", "3XB"), "3XB"),
        (("memory", "--gpus", "5"), "must be 1 or 2, got 5"),
        (("memory", "--policy", "x"), "as-released, in-place, reuse, pytorch; got 'x'"),
        (("flops", "--net", "lenet"), "did you mean lenet-5"),
        (("flops", "--nets", "x"), "--nets"),
        (("flip",), "flip"),
        (("network", "show", "x"), "no network 'x'"),
        (("network", "show", "lenet-5", "-o", "/gone/x.svg"), "cannot write /gone/x.svg"),
    ],
)
def test_mistakes_take_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("alexsim: ")
    assert err.count("\n") == 1
    assert message in err


def test_network_show_fits_a_terminal_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("network", "show", "alexnet-2012") == 0
    out = capsys.readouterr().out
    assert out.count("<------- exchange ------->") == 4
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 80
    assert "…" not in out
    assert run("network", "show", "alexnet-2012", "-o", str(tmp_path / "a.svg")) == 0
    assert "GPU 1" in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(
    "command", [(), ("train",), ("memory",), ("flops",), ("network", "list"), ("network", "show"),
     ("simulate",), ("report",), ("sweep",), ("recommend",), ("check", "validate"),
     ("check", "calibrate"),
     ("hardware", "list"), ("hardware", "show"), ("hardware", "new"),
     ("model", "export"), ("model", "import"), ("eval",), ("model", "predict"),
     ("model", "nearest"), ("model", "filters"), ("profile",), ("model",), ("check",),
     ("check", "bench"), ("check", "bench", "run"), ("check", "kernels"), ("recipe", "list"),
     ("data",), ("data", "pack"), ("data", "inspect"), ("data", "bench")],
)  # fmt: skip
def test_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    assert f"Example: alexsim {' '.join(command)}" in " ".join(capsys.readouterr().out.split())


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert "Usage: alexsim" in capsys.readouterr().out
    assert run("--version") == 0


HEAVY = {"torch", "numpy", "pandas", "matplotlib", "PIL", "safetensors"}


@pytest.mark.parametrize("arguments", [["--help"], ["flops"], ["memory"], ["network", "list"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom alexsim.cli.app import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as e: assert not e.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())
    assert arguments != ["network", "list"] or "alexnet-6conv" in done.stdout


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_bytes)
        write_bytes(pipe, b"all of it")
        assert read.result(10) == b"all of it"
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
