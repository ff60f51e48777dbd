"""A process per device: the same weights, and what happens when one of them fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
import tiny
import torch
import torch.distributed as dist
from batches import floats
from commands import here
from prepared import ranks_of
from safetensors.torch import load_file

from alexsim.data.discover import discover
from alexsim.data.loader import Loader
from alexsim.data.statistics import Statistics
from alexsim.editions.load import load_network
from alexsim.network.layers import FullyConnected
from alexsim.plan.plan import OpKind
from alexsim.plan.planner import plan
from alexsim.processes.meeting import agreed_name
from alexsim.processes.world import RENDEZVOUS
from alexsim.recipe.file import load_recipe

TRAIN = (
    "train", "--batch", 12, "--steps", 8, "--seed", 3, "--learning-rate", 0.02, "--threads", 1,
    "--workers", 1, "--checkpoint-every", 2, "--json",
)  # fmt: skip


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("net") / "tiny.py"
    path.write_text(tiny.SOURCE)
    return f"{path}:net"


def alexsim(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*prepared.COMMAND, *map(str, arguments)]
    return prepared.run(command, capture_output=True, text=True, timeout=300, **options)


def train(net: str, folder: Path, to: Path, *more: object) -> dict[str, Any]:
    command = alexsim if "--processes" in more else here
    done = command(*TRAIN, "--net", net, "--data", folder, "-o", to, *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state_of(run: Path) -> dict[str, torch.Tensor]:
    (checkpoint,) = run.glob("checkpoint-*.safetensors")
    return load_file(checkpoint)


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


def assert_near(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], rtol=1e-4, atol=1e-6), name


@pytest.fixture(scope="module")
def whole(
    net: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """One process with both devices, undisturbed."""
    to = tmp_path_factory.mktemp("whole") / "run"
    return train(net, folder, to), to


# --- the plan -------------------------------------------------------------------------------------


def test_replicas_sum_their_gradients_before_the_update() -> None:
    network = load_network("alexnet-2012")
    alone, made = plan(network, batch_size=4), plan(network, batch_size=8, replicas=2)
    assert not any(op.kind == OpKind.ALL_REDUCE for op in alone.ops())
    for device in made.devices:
        place = {op.id: index for index, op in enumerate(device.ops)}
        held = {buffer.name for buffer in device.buffers}
        sums = {op.layer: op for op in device.ops if op.kind == OpKind.ALL_REDUCE}
        updates = {op.layer: op for op in device.ops if op.kind == OpKind.UPDATE}
        assert sums.keys() == updates.keys()
        assert not any(op.fused for op in device.ops)
        for layer, op in sums.items():
            assert set(op.writes) <= held
            assert op.id in updates[layer].depends_on
            gradient = op.id.replace("all_reduce", "grad_weight")
            assert gradient in op.depends_on
            assert place[gradient] < place[op.id] < place[updates[layer].id]
            parts = next(ps for ps in network.parts if ps[0].layer.name == layer)
            mine = next(part for part in parts if part.column == op.column)
            assert op.count.moved_bytes == 4 * mine.parameters
    # What more they hold is the gradients that 2012 never stored.
    for before, after in zip(alone.devices, made.devices, strict=True):
        stored = sum(
            4 * part.weight_count
            for parts in network.parts
            for part in parts
            if isinstance(part.layer, FullyConnected) and part.column in before.columns
        )
        assert after.total_bytes - before.total_bytes == stored


@pytest.mark.parametrize("way", ["2012", "paper", "lenet"])
def test_parts_of_a_minibatch_are_the_whole(
    way: str, folder: Path, pool: ProcessPoolExecutor
) -> None:
    data = discover(folder, most_classes=10)
    nothing = Statistics(
        mean=np.zeros((32, 32, 1), dtype=np.float32),
        axes=np.eye(1, dtype=np.float32),
        deviations=np.full(1, 5, dtype=np.float32),
    )
    recipe = replace(load_recipe(way), normalisation="mean-image")

    def batches(part: tuple[int, int]) -> list[Any]:
        loader = Loader(
            data,
            nothing,
            recipe.preparation,
            batch_size=12,
            crop_side=28,
            seed=5,
            pool=pool,
            part=part,
        )
        return [*loader.training(3, 6), *loader.held_out()]

    for count in (2, 3, 4):
        every = [batches((index, count)) for index in range(count)]
        for one, parts in zip(batches((0, 1)), zip(*every, strict=True), strict=True):
            images = np.concatenate([floats(part) for part in parts])
            assert np.array_equal(floats(one), images)
            assert np.array_equal(one.labels, np.concatenate([part.labels for part in parts]))
            assert {part.valid for part in parts} == {one.valid}


# --- the same weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_two_processes_train_to_the_same_bits(
    schedule: str, whole: tuple[dict[str, Any], Path], net: str, folder: Path, tmp_path: Path
) -> None:
    document, to = whole
    apart = train(net, folder, tmp_path / "run", "--processes", "--schedule", schedule)
    assert apart["losses"] == document["losses"]
    assert (apart["top1"], apart["top5"]) == (document["top1"], document["top5"])
    assert_same(state_of(tmp_path / "run"), state_of(to))
    # Bytes that came over the wire are those of the plan.
    made = plan(load_network(net), batch_size=12, backend="aten")
    assert apart["exchanged_bytes_per_step"] == made.exchanged_bytes > 0
    assert [one["name"] for one in apart["devices"]] == ["gpu0", "gpu1"]
    trace = tmp_path / "run" / "trace.json.gz"
    assert trace.stat().st_size > 0


@pytest.mark.parametrize(("replicas", "gpus"), [(2, 2), (3, 2), (2, 1)])
def test_replicas_are_one_process_within_rounding(
    replicas: int, gpus: int, whole: tuple[dict[str, Any], Path], net: str, folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    document, to = whole
    apart = train(
        net, folder, tmp_path / "run", "--processes", "--replicas", replicas, "--gpus", gpus
    )
    assert apart["losses"] == pytest.approx(document["losses"], rel=1e-4)
    assert apart["top1"] == pytest.approx(document["top1"])
    assert_near(state_of(tmp_path / "run"), state_of(to))
    # Every device of every replica is shown, and what they told each other.
    made = plan(load_network(net), gpus=gpus, batch_size=12, backend="aten", replicas=replicas)
    names = [f"gpu{index}" for index in range(replicas * gpus)]
    assert [one["name"] for one in apart["devices"]] == names
    assert apart["exchanged_bytes_per_step"] == replicas * made.exchanged_bytes
    assert apart["reduced_bytes_per_step"] == replicas * made.reduced_bytes > 0
    profile = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert profile["batch_size"] == 12
    assert {span["device"] for span in profile["spans"]["measured"]} == set(names)
    done = here("report", tmp_path / "run", "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert all(f"Measured {name}: idle" in page for name in names)


def test_a_run_goes_on_in_another_number_of_processes(
    whole: tuple[dict[str, Any], Path], net: str, folder: Path, tmp_path: Path
) -> None:
    for first, then in (
        (("--processes", "--replicas", 2, "--steps", 4), ()),
        (("--steps", 4), ("--processes",)),
        (("--gpus", 1, "--steps", 4), ("--processes", "--gpus", 2)),
    ):
        to = tmp_path / str(len(list(tmp_path.iterdir())))
        train(net, folder, to, *first)
        command = alexsim if then else here
        done = command("train", "--resume", to, "--steps", 8, "--json", *then)
        assert done.returncode == 0, done.stderr
        assert_near(state_of(to), state_of(whole[1]))


# --- who meets ------------------------------------------------------------------------------------


def agreed(store: Any, size: int, late_s: float = 0.0) -> list[str]:
    """What each of some processes agrees on; the first one comes late."""

    def come(rank: int) -> str:
        time.sleep(late_s * (rank == 0))
        return agreed_name(store, rank, size, 20)

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(come, range(size)))


@pytest.mark.parametrize("late_s", [0.0, 0.3])
def test_every_attempt_agrees_on_a_name_of_its_own(late_s: float) -> None:
    """Also where the store is full of what an attempt before it left."""
    store = dist.HashStore()
    names = [agreed(store, 3, late_s) for _ in range(4)]
    assert all(len(set(one)) == 1 for one in names)
    assert len({one[0] for one in names}) == 4


def test_a_process_that_is_gone_agrees_to_nothing() -> None:
    store = dist.HashStore()
    agreed(store, 2)
    # Rank 1's old sign is there, and what it agreed to; rank 1 is not.
    with pytest.raises(RuntimeError, match="rank 1 did not come"):
        agreed_name(store, 0, 2, 0.3)
    with pytest.raises(RuntimeError, match="rank 0 did not come"):
        agreed_name(store, 1, 2, 0.3)


# --- failures -------------------------------------------------------------------------------------


def ranks_by_hand(tmp_path: Path, *each: tuple[object, ...]) -> list[subprocess.Popen[str]]:
    """One process per tuple of options, meeting in a file."""
    return [
        prepared.Popen(
            [*prepared.COMMAND, *map(str, options)],
            env={
                **os.environ, RENDEZVOUS: f"file://{tmp_path}/meet", "RANK": str(rank),
                "WORLD_SIZE": str(len(each)), "GLOO_SOCKET_IFNAME": "lo",
            },
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, options in enumerate(each)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (("--seed", 4), "rank 1 differs from rank 0 in seed: 4, not 3"),
        (("--learning-rate", 0.5), "rank 1 differs from rank 0 in recipe: "),
        (("--schedule", "overlap"), "rank 1 differs from rank 0 in schedule: 'overlap', not"),
    ],
)
def test_processes_that_were_asked_other_things_are_refused(
    other: tuple[object, ...], says: str, net: str, folder: Path, tmp_path: Path
) -> None:
    base = (*TRAIN, "--net", net, "--data", folder, "-o", tmp_path / "run", "--timeout", 60)
    for process in ranks_by_hand(tmp_path, base, (*base, *other)):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert says in err
        assert "Traceback" not in err
        assert not out
    assert not (tmp_path / "run").exists()


def wait_for(run: Path, steps: int, within_s: float = 120) -> None:
    metrics, until = run / "metrics.jsonl", time.monotonic() + within_s
    while time.monotonic() < until:
        if metrics.exists() and metrics.read_text().count("loss") >= steps:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {steps} steps within {within_s} s")


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_named_and_nothing_is_lost(
    how: signal.Signals, victim: int, whole: tuple[dict[str, Any], Path], net: str, folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    to = tmp_path / "run"
    base = [*TRAIN, "--net", net, "--data", folder, "-o", to, "--timeout", 3]
    base[base.index("--steps") + 1] = 100_000
    running = ranks_by_hand(tmp_path, base, base)
    wait_for(to, 5)
    running[victim].send_signal(how)
    began = time.monotonic()
    _, err = running[1 - victim].communicate(timeout=60)
    took = time.monotonic() - began
    for process in running:
        process.kill()
        process.communicate()
    assert running[1 - victim].returncode == 1
    (line,) = [line for line in err.splitlines() if line.startswith("alexsim: rank")]
    how_long = "gone" if how == signal.SIGKILL else "silent for 3 s"
    assert re.fullmatch(rf"alexsim: rank {1 - victim}: .+: rank {victim} is {how_long}", line)
    # Within the timeout, and what ending the process takes.
    assert took < (15 if how == signal.SIGSTOP else 12)
    # What was saved is whole, and goes on to where an undisturbed run gets.
    done = here("train", "--resume", to, "--steps", steps_in(to) + 3, "--json")
    assert done.returncode == 0, done.stderr
    undisturbed = tmp_path / "undisturbed"
    train(net, folder, undisturbed, "--steps", steps_in(to))
    assert_same(state_of(to), state_of(undisturbed))


def steps_in(run: Path) -> int:
    (checkpoint,) = run.glob("checkpoint-*.safetensors")
    return int(checkpoint.stem.partition("-")[2])


def test_torchrun_goes_on_by_itself(
    whole: tuple[dict[str, Any], Path], net: str, folder: Path, tmp_path: Path
) -> None:
    to = tmp_path / "run"
    base = [*TRAIN, "--net", net, "--data", folder, "-o", to, "--timeout", 20]
    base[base.index("--steps") + 1] = 60
    launched = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--max-restarts", "2", "--monitor-interval", "0.2", "--rdzv-backend", "c10d",
            "--rdzv-endpoint", "127.0.0.1:0", "-m", "alexsim", *map(str, base),
        ],
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(to, 6)
    kill_one_worker(launched.pid)
    out, err = launched.communicate(timeout=240)
    assert launched.returncode == 0, err
    document = json.loads(out)
    assert document["steps"] == 60
    undisturbed = tmp_path / "undisturbed"
    assert train(net, folder, undisturbed, "--steps", 60)["losses"] == document["losses"]
    assert_same(state_of(to), state_of(undisturbed))


def test_another_launch_of_the_same_job_goes_on(net: str, folder: Path, tmp_path: Path) -> None:
    """torchrun's agents count only their own processes' failures: what they call the job tells."""

    def launched(name: str, *more: object) -> subprocess.CompletedProcess[str]:
        # No process here has failed before.
        elastic = {"TORCHELASTIC_RUN_ID": name, "TORCHELASTIC_RESTART_COUNT": "0"}
        return alexsim(
            *TRAIN, "--net", net, "--data", folder, "-o", tmp_path / "run", *more,
            env={**os.environ, "RANK": "0", "WORLD_SIZE": "1", **elastic},
        )  # fmt: skip

    for name, done in (("job-7", 0), ("job-8", 2), ("none", 2), ("job-7", 0)):
        again = launched(name, "--gpus", 1)
        assert again.returncode == done, again.stderr
        assert done == 0 or "holds a run already" in again.stderr
    assert steps_in(tmp_path / "run") == 8
    other = launched("job-7", "--gpus", 1, "--learning-rate", 0.5)
    assert other.returncode == 2
    assert "run began with another recipe: " in other.stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK 2 of WORLD_SIZE 2"),
        ({"RANK": "0", "WORLD_SIZE": "x"}, "must be numbers"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "3"}, "LOCAL_RANK 3 of"),
    ],
)
def test_places_that_cannot_be_are_refused(
    given: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done = here("train", "--steps", 1)
    assert done.returncode == 2
    assert says in done.stderr


def kill_one_worker(launcher: int) -> None:
    os.kill(ranks_of(launcher)[-1], signal.SIGKILL)


def test_a_process_that_never_comes_is_named(net: str, folder: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    running = subprocess.Popen(
        [
            sys.executable, "-m", "alexsim", *map(str, TRAIN), "--net", net, "--data", str(folder),
            "-o", str(tmp_path / "run"), "--processes",
        ],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (others := ranks_of(running.pid)):
        assert time.monotonic() - begun < 60
        time.sleep(0.01)
    os.kill(others[0], signal.SIGKILL)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert err.strip().endswith("alexsim: rank 1 ended before the run began (exit code -9)")
    assert not list(tmp_path.glob("alexsim-*")), "where they meet is cleared away"


def test_sigterm_of_any_process_saves_and_stops_all(net: str, folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "run"
    base = [*TRAIN, "--net", net, "--data", folder, "-o", to, "--timeout", 30]
    base[base.index("--steps") + 1] = 100_000
    base[base.index("--checkpoint-every") + 1] = 100_000
    running = ranks_by_hand(tmp_path, base, base)
    wait_for(to, 3)
    running[1].terminate()
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    logged = (to / "metrics.jsonl").read_text().count('"loss"')
    assert steps_in(to) == logged >= 3


@pytest.mark.parametrize(
    ("more", "environment", "says"),
    [
        (("--replicas", 2), {}, "--replicas 2 needs a process per GPU: --processes, or torchrun"),
        (("--processes", "--replicas", 5), {}, "--batch 12 does not divide over 5 replicas"),
        (("--processes", "--replicas", 0), {}, "--replicas must be at least 1, got 0"),
        (("--processes", "--strict"), {}, "--strict goes without --processes and torchrun"),
        (("--strict",), {"RANK": "0", "WORLD_SIZE": "2"}, "--strict goes without --processes"),
        (("--processes", "--timeout", 0), {}, "--timeout must be positive, got 0"),
        ((), {"RANK": "0", "WORLD_SIZE": "3"}, "3 processes do not make whole replicas of 2 GPU"),
        (
            ("--replicas", 1), {"RANK": "0", "WORLD_SIZE": "4"},
            "4 processes do not make 1 replicas of 2 GPU",
        ),
        ((), {"RANK": "x", "WORLD_SIZE": "2"}, "RANK"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    more: tuple[object, ...], environment: dict[str, str], says: str, net: str, folder: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    to = tmp_path / "run"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = here(*TRAIN, "--net", net, "--data", folder, "-o", to, *more)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not to.exists()
