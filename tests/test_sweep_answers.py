"""What answers say beside their figures: what would fit, how many GPUs, what was written."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from alexsim.cli import app
from alexsim.cli.app import main
from alexsim.explore.recommend import Goal, recommend
from alexsim.explore.sweep import sweep


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(each) for each in arguments])
    return int(caught.value.code or 0)


GIB = r"\(([0-9.]+ [GM]iB)\)"


@pytest.mark.parametrize(
    ("line", "policies"),
    [
        ("--net resnet50 --machine v100 --batch 64", ("in-place", "reuse", "pytorch")),
        ("--net resnet50 --machine v100x4 --batch 256", ("in-place", "reuse", "pytorch")),
        ("--net alexnet-owt --machine k20x8 --gpus 2 --partition hybrid --batch 1536", ("reuse",)),
        ("--gpus 1", ("in-place", "reuse")),
        ("--net resnet50 --machine v100 --batch 6400", ()),
    ],
)
def test_what_does_not_fit_says_by_which_policies_it_would(
    line: str, policies: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """And it does, with the bytes that were said."""
    words = line.split()
    assert run("simulate", *words) == 3
    out, err = capsys.readouterr()
    told = dict(re.findall(rf"--policy (\S+) {GIB}", err))
    assert tuple(told) == policies
    assert ("would fit: --policy" in " ".join(out.split())) == bool(policies)
    assert max(map(len, out.splitlines())) <= 80
    assert run("memory", *words) == 3
    advice = capsys.readouterr().err.partition("what would fit")[2]
    assert dict(re.findall(rf"--policy (\S+) {GIB}", advice)) == told
    for policy, need in told.items():
        assert run("simulate", *words, "--policy", policy) == 0
        out = capsys.readouterr().out
        assert re.search(rf"memory +{re.escape(need)} +fits", out)
        assert "would fit" not in out


def test_every_row_of_a_sweep_says_its_gpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = ("-a", "net=alexnet-owt", "-a", "machine=k20x8,8xh200", "-a", "batch=64,12")
    for suffix in ("csv", "parquet", "json"):
        path = tmp_path / f"x.{suffix}"
        assert run("sweep", *axes, "-o", path) == 0
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"{path}: 4 rows, 1 without a result: a batch of 12 images")
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text("utf-8").splitlines()))
    assert [row["gpus"] for row in rows] == ["1", "1", "8", ""]
    assert run("sweep", *axes) == 0
    out = capsys.readouterr().out
    assert "GPUs" in out
    assert "does not fit" not in out
    # Of what no row says, no note speaks.
    assert run("sweep", "--machine", "v100", "-a", "net=resnet50,lenet-5") == 0
    assert "by policy as-released; -a policy=" in capsys.readouterr().out
    assert run("sweep", "--net", "lenet-5", "--machine", "k20", "-a", "batch=64,12") == 0
    assert "GPUs" not in capsys.readouterr().out
    assert run("sweep", "--net", "lenet-5", "-a", "gpus=1,2", "-o", tmp_path / "y.csv") == 0
    rows = list(csv.DictReader((tmp_path / "y.csv").read_text("utf-8").splitlines()))
    assert [row["gpus"] for row in rows] == ["1", "2"]


@pytest.mark.parametrize(
    "axes",
    [
        ("net=alexnet-2012,resnet50", "machine=titan-x-maxwell,8xh200", "batch=128,1024"),
        ("net=alexnet-owt", "machine=titan-x-maxwell,8xh200", "batch=128,1024", "policy=reuse"),
    ],
)
def test_figures_of_a_sweep_are_whole_in_80_columns(
    axes: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("sweep", *(word for axis in axes for word in ("-a", axis))) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert "images/s" in out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--net", "resnet50,vgg16"), "several are an axis: -a net=resnet50,vgg16"),
        (("--machine", "k20,h200"), "several are an axis: -a machine=k20,h200"),
        (("--machine", "h2000"), "--machine: no machine or device 'h2000'; did you mean h200"),
    ],
)
def test_a_choice_of_a_sweep_is_checked_before_anything_is_simulated(
    given: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("alexsim.explore.sweep.simulate_network", None)
    assert run("sweep", *given, "-a", "batch=2,4") == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "simulate --trace {out}/t.json.gz",
        "simulate --trace {out}/folder/",
        "sweep -a batch=2,4 --net lenet-5 -o {out}/s.csv",
        "network show lenet-5 -o {out}/net.svg",
        "recipe show 2012 -o {out}/mine.toml",
        "hardware new -o {out}/new.toml",
        "check validate --quick -o {out}/rows.csv",
        "check validate --quick --html {out}/page.html",
        "check bench run --only counted --no-kernels --net lenet-5 -o {out}/run.json",
        "report lenet-5 -o {out}/page.html",
    ],
)
def test_a_file_that_is_written_is_told_of_and_json_is_left_alone(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = line.format(out=tmp_path).split()
    for more in ((), ("--json",)):
        assert run(*words, *more) == 0
        out, err = capsys.readouterr()
        told = out + err
        # A sheet is never written over.
        Path(words[-1]).unlink() if words[0] == "hardware" else None
        if more:
            json.loads(out)
        else:
            lines = [each for each in told.splitlines() if each.startswith(str(Path(words[-1])))]
            assert len(lines) == 1
            assert ": " in lines[0]


def test_a_changed_number_of_gpus_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("simulate", "--net", "alexnet-owt", "--machine", "4xh100", "--batch", "512")
    assert run(*base, "--what-if", "machine=8xh200", "--what-if", "machine=h200") == 0
    table = capsys.readouterr().out.partition("What if")[2]
    gpus = dict(re.findall(r"^  (\S+) +(\d+) ", table, re.MULTILINE))
    assert gpus == {"none": "4", "machine=8xh200": "8", "machine=h200": "4"}
    assert run(*base, "--what-if", "machine=h200") == 0
    assert "GPUs" not in capsys.readouterr().out.partition("What if")[2]


@pytest.mark.parametrize(
    ("name", "near"), [("infiniband", "ib-edr or ib-ndr"), ("gigabit ethernet", "100gbe or 10gbe")]
)
@pytest.mark.parametrize(
    "line", ["simulate --replicas 4 --network", "simulate --link", "hardware show"]
)
def test_a_link_is_proposed_by_what_it_is(
    name: str, near: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*line.split(), name) == 2
    assert f"did you mean {near}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "simulate --given {}",
        "check validate --measurements {}",
        "check fit -o /dev/null --kernels {}",
        "check calibrate --given {}",
        "simulate --machine {}.json",
        "simulate --machine {}.toml",
        "simulate --recipe {}.toml",
        "model import {} x.safetensors",
        "report {}.json",
        "check bench compare --only counted --baseline {}.json",
    ],
)
@pytest.mark.parametrize("kind", ["gone", "folder"])
def test_a_file_that_cannot_be_read_is_said_in_words(
    line: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / kind
    for ending in ("", ".json", ".toml"):
        Path(f"{path}{ending}").mkdir() if kind == "folder" else None
    assert run(*line.replace("-o /dev/null", f"-o {tmp_path}/fit").format(path).split()) == 2
    err = capsys.readouterr().err
    assert "Errno" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("recommend", "--days", "2"), "nothing was kept"),
        (("data", "pack", "a", "b"), "the same command goes on"),
    ],
)
def test_ctrl_c_says_that_it_stopped(
    words: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "the_command", lambda: type("C", (), {"main": stopped})())
    assert run(*words) == 130
    assert capsys.readouterr().err == f"\nalexsim: stopped; {says}\n"


def test_a_sweep_on_several_cores_stops_without_a_word_of_its_workers(tmp_path: Path) -> None:
    sizes = ",".join(str(size) for size in range(64, 2064, 2))
    command = (
        "sweep",
        "-a",
        f"batch={sizes}",
        "-a",
        "net=resnet50,vgg16",
        "-o",
        tmp_path / "x.csv",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "alexsim", *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    time.sleep(4)
    # As a terminal does: once, to the whole group.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "\nalexsim: stopped; nothing was kept\n"
    assert not [*tmp_path.iterdir()]


def test_workers_of_a_sweep_begin_deaf_to_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """They inherit what their parent blocks as they begin; later it listens again."""
    masks = []

    class Pool(ThreadPoolExecutor):
        _processes = _executor_manager_thread = None

        def __init__(self, workers: int, mp_context: object) -> None:
            del mp_context
            super().__init__(workers)

        def map(self, *arguments: Any, **options: Any) -> Iterator[Any]:
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            return super().map(*arguments, **options)

    monkeypatch.setattr("alexsim.explore.sweep.ProcessPoolExecutor", Pool)
    settings = [{"net": "lenet-5", "machine": "k20", "batch": str(each)} for each in (2, 4)]
    assert len(sweep(settings, images=10, epochs=1, workers=2)) == 2
    assert [signal.SIGINT in mask for mask in masks] == [True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_bar_of_recommend_counts_what_is_simulated() -> None:
    """It begins with the first simulation, never goes back, and ends at the end."""
    axes = {
        "machine": ("k20", "v100"), "gpus": ("1", "2", "4"), "batch": ("128", "256"),
        "partition": ("replicas",), "precision": ("fp32", "amp"),
    }  # fmt: skip
    shares: list[float] = []
    goal = Goal(images=1_281_167, epochs=90, days=9)
    found = recommend(goal, axes, {"net": "alexnet-owt"}, done=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert shares[-1] <= 1 + 1e-9
    assert len(shares) >= found.simulated


def test_validation_says_the_answer_first_and_how_to_see_more_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("check", "validate", "--quick") == 0
    lines = capsys.readouterr().out.splitlines()
    head = " ".join(lines[:2])
    assert re.match(r"\d+ of \d+ rows predicted: [\d.]+ % off in the median, [\d.]+ % in", head)
    assert head.endswith("in their 90 % intervals. A sample: nothing is gated.")
    last = " ".join(lines[-2:])
    assert "Less: --summary" in last
    assert "without --quick" in last
    # No name is broken within a word.
    assert "alexnet-owt-norms-" in {line.split()[0] for line in lines if line.strip()}
    assert not any(line.startswith("  nvolutions") for line in lines)
    assert run("check", "validate", "--summary") == 0
    assert "Gate passed: 120 whole-network steps are 10.9 % off" in " ".join(
        capsys.readouterr().out.split()
    )
