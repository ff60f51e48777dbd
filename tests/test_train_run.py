"""Runs from the outside: resuming, killing, full disks, numbers that are none."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prepared
import pytest
import torch
from commands import here
from safetensors.torch import load_file

from alexsim.cli.app import main
from alexsim.cli.train_watch import TerminalWatch
from alexsim.train.settings import StepReport

LENET = ("--net", "lenet-5", "--batch", "16", "--seed", "3", "--learning-rate", "0.1")


def alexsim(
    *arguments: object, by: Callable[..., Any] = prepared.run, **options: Any
) -> subprocess.CompletedProcess[str]:
    return by(
        [sys.executable, "-m", "alexsim", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def train(folder: Path, run: Path, *more: object, by: Callable[..., Any] = here) -> dict[str, Any]:
    done = by(
        "train", *LENET, "--data", folder, "--steps", 40, "-o", run, "--workers", 1, "--threads", 1,
        "--json", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def weights(run: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = run.glob("checkpoint-*.safetensors")
    return load_file(checkpoint)


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    return run, train(folder, run)


def test_a_run_says_what_it_did(undisturbed: tuple[Path, dict]) -> None:
    run, document = undisturbed
    assert document["network"] == "lenet-5"
    assert document["batch_size"] == 16
    assert document["steps"] == len(document["losses"]) == 40
    assert document["threads"] == 1
    assert document["run_dir"] == str(run)
    assert document["images_per_s"] > 0
    assert document["compute_images_per_s"] >= document["images_per_s"]
    (device,) = document["devices"]
    assert 0 < device["peak_bytes"] <= device["budget_bytes"]
    assert document["exchanged_bytes_per_step"] == 0
    # Three grey levels are easy: the mean of the last losses is well under ln 3.
    assert sum(document["losses"][-5:]) / 5 < 0.8 * document["losses"][0]
    assert document["top1"] <= 0.34
    first = (run / "metrics.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["step"] == 1


PROFILE_KEYS = {"schema", "alexsim", "network", "batch_size", "layers"}
LAYER_KEYS = {
    "name", "parameters", "mac", "flop", "grad_input_flop", "grad_weight_flop", "bytes",
    "measured", "predicted", "arithmetic_intensity", "memory_bytes",
}  # fmt: skip


def assert_left_a_profile(run: Path, steps: range) -> None:
    """Of these steps, counted from 0; its times add up, and the trace has the same steps."""
    found = json.loads((run / "profile.json").read_text())
    assert found.keys() >= PROFILE_KEYS
    assert (found["network"], found["batch_size"]) == ("lenet-5", 16)
    assert found["rounds"] == len(steps)
    assert all(layer.keys() >= LAYER_KEYS for layer in found["layers"])
    passes = [
        (name, seconds)
        for layer in found["layers"]
        for name, seconds in layer["measured"].items()
        if name in ("forward_s", "grad_input_s", "grad_weight_s", "update_s")
    ]
    # Five layers have weights, and the first one's input needs no gradient.
    assert len(passes) == 2 * len(found["layers"]) - 1 + 2 * 5
    assert all(seconds > 0 for _, seconds in passes)
    whole = sum(seconds for _, seconds in passes) + found["transfers_s"] + found["rest_s"]
    assert whole == pytest.approx(found["timed_step_s"])
    # How much lies between ops depends on what else the machine does.
    assert abs(found["rest_s"]) < found["timed_step_s"]
    low, high = found["step_s_interval"]
    assert low <= found["step_s"] <= high
    trace = json.loads(gzip.decompress((run / "trace.json.gz").read_bytes()))
    names = {
        pid: [
            event["name"]
            for event in trace["traceEvents"]
            if event["pid"] == pid and event.get("cat") == "user_annotation"
        ]
        for pid in (1, 2)
    }
    # Measured steps bear their number in the run; the simulated one is repeated.
    assert names[1] == [f"ProfilerStep#{step}" for step in steps]
    assert names[2] == [f"ProfilerStep#{step}" for step in range(len(steps))]


def test_a_run_leaves_the_profile_of_ten_steps(undisturbed: tuple[Path, dict]) -> None:
    assert_left_a_profile(undisturbed[0], range(1, 11))


def test_a_resumed_run_leaves_the_profile_of_what_it_ran_itself(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(folder, run, "--steps", 4)
    assert_left_a_profile(run, range(1, 4))
    done = here("train", "--resume", run, "--steps", 9, "--json")
    assert done.returncode == 0, done.stderr
    assert_left_a_profile(run, range(5, 9))


def test_devices_in_processes_of_their_own_are_profiled_too(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", "--steps", 3, "--strict", by=alexsim)
    assert_left_a_profile(tmp_path / "run", range(1, 3))


def test_a_run_of_one_step_leaves_no_profile(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether that is all it was to do, or it was interrupted there."""
    train(folder, tmp_path / "one", "--steps", 1)
    shown = TerminalWatch._step

    def interrupt(self: TerminalWatch, report: StepReport) -> None:
        shown(self, report)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TerminalWatch, "_step", interrupt)
    with pytest.raises(SystemExit) as caught:
        main(
            ["train", *LENET, "--data", str(folder), "-o", str(tmp_path / "stopped"),
             "--steps", "40", "--workers", "1", "--threads", "1", "--json"]
        )  # fmt: skip
    assert not caught.value.code
    for name in ("one", "stopped"):
        assert lines(tmp_path / name) >= 1
        left = {path.name for path in (tmp_path / name).iterdir()}
        assert "checkpoint-00000001.safetensors" in left
        assert not left & {"profile.json", "trace.json.gz"}


@pytest.mark.parametrize("workers", [2])
def test_workers_change_nothing(
    folder: Path, tmp_path: Path, undisturbed: tuple[Path, dict], workers: int
) -> None:
    document = train(folder, tmp_path / "run", "--workers", workers)
    assert document["losses"] == undisturbed[1]["losses"]
    assert_same_weights(tmp_path / "run", undisturbed[0])


def test_killed_at_any_moment_it_resumes_to_the_same_bits(
    folder: Path, tmp_path: Path, undisturbed: tuple[Path, dict]
) -> None:
    """Kill -9 after random delays, checkpoints at every step; then let it finish."""
    run, rng = tmp_path / "run", random.Random(0)
    command = [sys.executable, "-m", "alexsim", "train"]
    begin = [
        *command, *LENET, "--data", str(folder), "--steps", "40", "-o", str(run),
        "--workers", "1", "--threads", "1", "--checkpoint-every", "1",
    ]  # fmt: skip
    killed_after = []
    for _ in range(6):
        resumes = (run / "config.json").exists()
        process = prepared.Popen(
            [*command, "--resume", str(run)] if resumes else begin, stderr=subprocess.DEVNULL
        )
        # Once it trains, anywhere: between checkpoints or within one.
        before = lines(run)
        while process.poll() is None and lines(run) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.wait()
        killed_after.append(lines(run))
    done = here("train", "--resume", run, "--json")
    # A fast machine may have come to the end before the last kill.
    assert done.returncode == 0 or "40 steps are done, 40 were asked for" in done.stderr
    assert len(set(killed_after)) > 1, "every kill hit the same step"
    *steps, test = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert [one["loss"] for one in steps] == undisturbed[1]["losses"]
    assert test["held_out"]["top1"] == undisturbed[1]["top1"]
    assert_same_weights(run, undisturbed[0])


def lines(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0


def test_an_unfinished_checkpoint_is_ignored(
    folder: Path, tmp_path: Path, undisturbed: tuple[Path, dict]
) -> None:
    run = tmp_path / "run"
    train(folder, run, "--steps", 7)
    (run / ".checkpoint-00000009.safetensors.tmp").write_bytes(b"half of")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')
    done = here("train", "--resume", run, "--steps", 40, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["losses"] == undisturbed[1]["losses"]
    assert_same_weights(run, undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_says_how_to_go_on(
    folder: Path, tmp_path: Path, number: signal.Signals, undisturbed: tuple[Path, dict]
) -> None:
    run = tmp_path / "run"
    process = prepared.Popen(
        [
            sys.executable, "-m", "alexsim", "train", *LENET, "--data", str(folder),
            "--steps", "100000", "-o", str(run), "--workers", "1", "--threads", "1",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    while process.poll() is None and lines(run) < 10:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"--resume {run}" in out
    (checkpoint,) = run.glob("checkpoint-*.safetensors")
    assert int(checkpoint.stem.partition("-")[2]) == lines(run)


def test_workers_end_with_a_killed_run(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "alexsim", "train", *LENET, "--data", str(folder),
            "--steps", "100000", "-o", str(run), "--workers", "2",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while lines(run) < 2:
        time.sleep(0.01)
    children = descendants(process.pid)
    assert len(children) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if alive(child)]


def descendants(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in text.stdout.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_full_disk_keeps_the_last_checkpoint(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(folder, run, "--steps", 5)
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def no_large_files() -> None:
        # A write beyond the limit fails as on a full disk, instead of a signal.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = alexsim(
        "train", "--resume", run, "--steps", 8, by=subprocess.run, preexec_fn=no_large_files
    )
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("alexsim: cannot")]
    assert "the last good one is checkpoint-00000005.safetensors" in line
    kept = "checkpoint-00000005.safetensors"
    assert (run / kept).read_bytes() == before[kept]
    assert not list(run.glob(".*.tmp"))


def test_a_loss_that_is_no_number_stops_the_run(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = here(
        "train", "--net", "lenet-5", "--batch", 16, "--data", folder, "-o", run,
        "--checkpoint-every", 1, "--learning-rate", "1e30", "--steps", 50, "--workers", 1,
    )  # fmt: skip
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "no longer a number" in line or "not a number" in line
    assert re.search(r" at step \d+, first in conv1.a", line)
    for checkpoint in run.glob("checkpoint-*"):
        assert f"last good checkpoint is {checkpoint.name}" in line
        for value in load_file(checkpoint).values():
            assert torch.isfinite(value).all()


def test_mistakes_take_one_line_and_leave_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "dark").symlink_to(folder / "dark")
    base = ("train", *LENET, "-o", run, "--data", folder)
    for arguments, code, message in (
        (("--mem-cap", "0GB"), 2, "at least one byte"),
        (("--mem-cap", "3XB"), 2, "'3XB'"),
        (("--batch", "-1"), 2, "at least 1, got -1"),
        (("--batch", "x"), 2, "--batch must be a valid integer; got 'x'"),
        (("--steps", "0"), 2, "--steps must be at least 1, got 0"),
        (("--steps", "5", "--epochs", "2"), 2, "not both"),
        (("--epochs", "-1"), 2, "--epochs must be positive"),
        (("--net", "alexnet"), 2, "did you mean"),
        (("--gpus", "2"), 2, "so each GPU has a replica"),
        (("--data", tmp_path / "gone"), 2, "no such folder"),
        (("--data", tmp_path / "one"), 2, "only one class, 'dark'"),
        (("--augment", "none"), 2, "2012, paper, crops; got 'none'"),
        (("--learning-rate", "-1"), 2, "--learning-rate must be"),
        (("--mem-cap", "1MB"), 3, "what would fit: --policy reuse --batch"),
        (("--resume", tmp_path / "gone"), 2, "--data, --seed, .* cannot be given with it"),
        (("-o", "/proc/run"), 2, "cannot write /proc/run"),
        (("-o", tmp_path / "caf\udce9"), 2, r"caf\\xe9: safetensors reads UTF-8"),
    ):
        # In this process: each is refused before anything runs.
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in (*base, *arguments)])
        error = capsys.readouterr().err
        assert ended.value.code == code, (arguments, error)
        last = [line for line in error.splitlines() if line.startswith("alexsim: ")]
        assert len(last) == 1, error
        assert re.search(message, last[0]), (arguments, last[0])
        assert not run.exists(), arguments


def test_a_second_run_does_not_overwrite_the_first(
    folder: Path, undisturbed: tuple[Path, dict]
) -> None:
    run, _ = undisturbed
    done = here("train", *LENET, "--data", folder, "-o", run)
    assert done.returncode == 2
    assert f"continue it with --resume {run}" in done.stderr


def test_resuming_with_other_files_is_refused(folder: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    for name in ("bright", "dark"):
        (data / name).mkdir(parents=True)
        for source in sorted((folder / name).iterdir()):
            os.link(source, data / name / source.name)
    train(data, run, "--steps", 2)
    (data / "dark" / "00.JPEG").unlink()
    done = here("train", "--resume", run, "--steps", 4)
    assert done.returncode == 2
    assert "are not those that the run began with" in done.stderr


def test_other_threads_are_said(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", "--steps", 2)
    done = here("train", "--resume", tmp_path / "run", "--steps", 3, "--threads", 2)
    assert done.returncode == 0, done.stderr
    assert "2 threads instead of 1" in done.stderr
