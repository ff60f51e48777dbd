"""A process per virtual GPU: the same bits as in one process, and deaths that are named.

Run as a script, it is one of these processes.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import prepared
import pytest
import torch
from commands import here
from safetensors.torch import load_file, save_file

from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError, MemoryBudgetError
from alexsim.execute import cards, ranks
from alexsim.execute.context import Choices, Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.execute.plan_executor import PlanExecutor
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan
from alexsim.processes.world import RENDEZVOUS, Connected, Place, World, joined
from alexsim.recipe.file import load_recipe
from alexsim.train.engine import Engine
from alexsim.train.settings import TrainSettings

RATES = Hyperparameters(weight_rate=0.01, bias_rate=0.02)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BUDGET = 1 << 30
LIFTED = 1 << 62


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = 60 * torch.randn(2, 3, 224, 224, generator=generator)
    return images, torch.randint(1000, (2,), generator=generator)


def planned(schedule: str) -> Plan:
    return plan(load_network("alexnet-2012"), batch_size=2, backend="aten", schedule=schedule)


def run(executor: PlanExecutor) -> dict[str, torch.Tensor]:
    executor.initialise()
    losses = [
        executor.step(*batch(step), step=step, hyperparameters=RATES).losses for step in range(2)
    ]
    losses.append(executor.evaluate(*batch(9)).losses)
    state = {name: tensor.cpu().clone() for name, tensor in executor.state().items()}
    return state | {"losses": torch.stack([one.cpu() for one in losses])}


def be_a_process(schedule: str, threads: int, to: Path) -> None:
    """Train as the others of the run do, and leave what each one saw."""
    torch.set_num_threads(threads)
    world = joined(Place.from_environment(), 2, 120)
    assert isinstance(world, Connected)
    caps: list[tuple[str, int]] = []

    def cap(place: torch.device, budget_bytes: int) -> None:
        caps.append((place.type, budget_bytes))
        cards.cap(place, budget_bytes)

    ranks.cap = cap
    made = planned(schedule)
    try:
        ranks.Ranks(made, Choices(budget_bytes=1000, device=DEVICE), world)
    except MemoryBudgetError as error:
        refused = str(error)
    strict = ranks.Ranks(made, Choices(budget_bytes=BUDGET, seed=3, device=DEVICE), world)
    found = run(strict)
    seen: dict[str, Any] = {
        "refused": refused,
        "peaks": strict.peak_bytes,
        "held": strict.process_bytes,
        "not_finite": strict.first_not_finite(),
    }
    strict.record(True)
    strict.step(*batch(3), step=3, hyperparameters=RATES)
    seen["traced"] = sorted({span.device for span in strict.trace().spans})
    strict.record(False)
    state = strict.state()
    strict.load_state({name: torch.full_like(tensor, 2) for name, tensor in state.items()})
    seen["loaded"] = all(bool((tensor == 2).all()) for tensor in strict.state().values())
    strict.load_state({name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()})
    seen["first_not_finite"] = strict.first_not_finite()
    strict.close()
    seen["caps"] = caps
    if world.first:
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, to / "found")
    (to / f"seen-{world.rank}").write_text(json.dumps(seen))
    world.close()


@pytest.mark.parametrize("schedule", ["serial", "overlap"])
def test_processes_train_to_the_same_bits(schedule: str, tmp_path: Path) -> None:
    threads = 2
    torch.set_num_threads(threads)
    started = [
        subprocess.Popen(
            [sys.executable, __file__, schedule, str(threads), str(tmp_path)],
            env={
                **os.environ, RENDEZVOUS: f"file://{tmp_path}/meet", "GLOO_SOCKET_IFNAME": "lo",
                "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in started:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    wanted = run(Executor(planned(schedule), seed=3, device=DEVICE))
    found = load_file(tmp_path / "found")
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        assert torch.equal(tensor, found[name]), name
    for rank in range(2):
        seen = json.loads((tmp_path / f"seen-{rank}").read_text())
        # Each process holds its own device to the budget, and its allocator as well.
        assert f"gpu{rank}" in seen["refused"]
        assert seen["caps"] == [[DEVICE, 1000], [DEVICE, BUDGET], [DEVICE, LIFTED]]
        assert seen["peaks"].keys() == {"gpu0", "gpu1"}
        assert all(peak < BUDGET for peak in seen["peaks"].values())
        if DEVICE == "cpu":
            assert seen["held"] == {}
        assert seen["not_finite"] == ""
        assert seen["traced"] == ["gpu0", "gpu1"]
        assert seen["loaded"]
        assert seen["first_not_finite"].endswith(" on gpu0")


def test_the_driver_counts_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda card: card,
        nvmlDeviceGetComputeRunningProcesses=lambda card: [
            SimpleNamespace(pid=os.getpid() + 1 - card, usedGpuMemory=7 + card)
        ],
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert cards.process_bytes() == 8

    def refuse() -> None:
        raise OSError

    monkeypatch.setattr(library, "nvmlInit", refuse)
    assert cards.process_bytes() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert cards.process_bytes() is None


@pytest.mark.gpu
def test_the_allocator_refuses_what_is_beyond_the_budget() -> None:
    place = torch.device("cuda", 0)
    cards.cap(place, BUDGET)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2 * BUDGET, dtype=torch.uint8, device=place)
    finally:
        cards.cap(place, LIFTED)
    assert torch.empty(2 * BUDGET, dtype=torch.uint8, device=place).numel() == 2 * BUDGET


# --- the command ----------------------------------------------------------------------------------

TRAIN = (
    sys.executable, "-m", "alexsim", "train", "--net", "lenet-5", "--gpus", "2", "--batch", "12",
    "--seed", "3", "--workers", "1", "--checkpoint-every", "2", "--threads", "1",
)  # fmt: skip
NET = """
from alexsim.network.layers import (
    Convolution, Dropout, FullyConnected, MaxPool, ReLU, SoftmaxCrossEntropy,
)
from alexsim.network.network import Network

net = Network(
    name="tiny",
    input_shape=(1, 28, 28),
    columns=2,
    layers=(
        Convolution(name="conv1", filters=4, size=5, stride=2, padding=1),
        ReLU(name="relu1"),
        FullyConnected(name="fc2", units=6, reads="all"),
        ReLU(name="relu2"),
        Dropout(name="dropout2"),
        FullyConnected(name="fc3", units=(3, 0), reads="all"),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
"""


@pytest.fixture(scope="module")
def command(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Trains a small network of two columns."""
    path = tmp_path_factory.mktemp("net") / "tiny.py"
    path.write_text(NET)
    words = list(TRAIN)
    words[words.index("lenet-5")] = f"{path}:net"
    return (*words, "--data", str(folder))


def completed(*words: object) -> subprocess.CompletedProcess[str]:
    return prepared.run([str(word) for word in words], capture_output=True, text=True, timeout=300)


def answer(*words: object) -> dict[str, Any]:
    """Here, where one process is all there is."""
    assert words[1:3] == ("-m", "alexsim")
    strict = "--strict" in words
    done = completed(*words, "--json") if strict else here(*words[3:], "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def started(*words: object) -> subprocess.Popen[str]:
    return prepared.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def checkpoint(run: Path) -> Path:
    (found,) = run.glob("checkpoint-*.safetensors")
    return found


def the_other(first: subprocess.Popen[str]) -> int:
    """The process of gpu1, once it runs the command."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if ranks := prepared.ranks_of(first.pid):
            return ranks[0]
        time.sleep(0.01)
    raise AssertionError("no other process within 60 s")


def wait_for_steps(run: Path, steps: int) -> None:
    metrics, until = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("loss") < steps:
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    """All processes that a process has begun."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def errors_in(err: str) -> list[str]:
    """Lines that say what went wrong."""
    assert "Traceback" not in err
    return [line for line in err.splitlines() if line.startswith("alexsim: ")]


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_strict_run_is_one_of_one_process_and_goes_on_as_either(
    gpus: int, command: tuple[str, ...], tmp_path: Path
) -> None:
    base = (*command, "--gpus", gpus, "--steps", 6)
    whole, apart = (
        answer(*base, "-o", tmp_path / "a"),
        answer(*base, "-o", tmp_path / "b", "--strict"),
    )
    same = ("losses", "top1", "top5", "threads", "devices", "exchanged_bytes_per_step")
    assert {key: whole[key] for key in same} == {key: apart[key] for key in same}
    assert checkpoint(tmp_path / "a").read_bytes() == checkpoint(tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "b" / "config.json").read_text())["settings"]["strict"] is True
    # It is a strict run when it goes on, which alone waits for other processes.
    for run, code in (("a", 2), ("b", 0)):
        resume = (*TRAIN[:4], "--resume", tmp_path / run, "--steps", 9)
        done = completed(*resume, "--timeout", 30)
        assert done.returncode == code, done.stderr
        if code:
            assert "--timeout is for several processes" in done.stderr
            answer(*resume)
        else:
            assert ", a process each" in done.stderr
    assert checkpoint(tmp_path / "a").read_bytes() == checkpoint(tmp_path / "b").read_bytes()


def test_threads_are_those_of_one_process(command: tuple[str, ...], tmp_path: Path) -> None:
    """Without --threads as well, so that it need not be said for the same bits."""
    given = command.index("--threads")
    default = (*command[:given], *command[given + 2 :], "--steps", 1, "--strict")
    assert answer(*default, "-o", tmp_path / "run")["threads"] == os.cpu_count()


def test_stages_that_freeze_layers_take_over_from_each_other(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = here("recipe", "show", "2012").stdout
    # An epoch each; the fifth stage freezes conv1.
    count = itertools.count(1)
    stages = re.sub(r"from_epoch = \d+", lambda _: f"from_epoch = {next(count)}", recipe)
    path = tmp_path / "mine.toml"
    path.write_text(stages)
    base = (*command, "--steps", 30, "--recipe", path)
    for name, more in (("a", ()), ("b", ("--strict",))):
        assert answer(*base, "-o", tmp_path / name, *more)["steps"] == 30
        # A frozen layer keeps no momentum.
        assert "conv1.a.weight.momentum" not in load_file(checkpoint(tmp_path / name))
    assert checkpoint(tmp_path / "a").read_bytes() == checkpoint(tmp_path / "b").read_bytes()


def test_a_device_that_does_not_fit_is_named_before_anything_begins(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = completed(*command, "-o", tmp_path / "run", "--strict", "--mem-cap", "1KB")
    assert done.returncode == 3
    assert "gpu" in done.stderr
    assert not (tmp_path / "run").exists()


def test_without_processes_nothing_is_strict(folder: Path) -> None:
    settings = TrainSettings(
        network="lenet-5", batch_size=4, gpus=1, policy="as-released", schedule="serial",
        budget_bytes=BUDGET, data=str(folder), steps=1, seed=0, threads=1, workers=1,
        checkpoint_every=1, recipe=load_recipe("2012").only_first_stage, strict=True,
    )  # fmt: skip
    with pytest.raises(AlexsimError, match="strict needs a process per GPU"):
        Engine(settings, World()).enter(settings.recipe.stages[0])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_named_in_one_line(
    how: signal.Signals, command: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = started(*command, "--steps", 100_000, "-o", run, "--strict", "--timeout", 3, "--json")
    wait_for_steps(run, 5)
    other = the_other(first)
    os.kill(other, how)
    _, err = first.communicate(timeout=60)
    assert first.returncode == 1
    (line,) = errors_in(err)
    how_long = "gone" if how == signal.SIGKILL else "silent for 3 s"
    assert re.fullmatch(rf"alexsim: rank 0: .+: rank 1 is {how_long}", line)
    assert err.splitlines()[-1] == line
    assert not alive(other)
    # What was saved is whole.
    assert load_file(checkpoint(run))


def test_what_all_processes_find_is_said_once(command: tuple[str, ...], tmp_path: Path) -> None:
    done = completed(
        *command, "--steps", 60, "-o", tmp_path / "run", "--strict", "--learning-rate", 1e12
    )
    assert done.returncode == 1
    (line,) = errors_in(done.stderr)
    assert " is not a number at step " in line


@pytest.mark.parametrize("when", ["before it begins", "in a step"])
def test_no_process_outlives_the_first_one(
    when: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = started(*command, "--steps", 100_000, "-o", run, "--strict", "--json")
    other = the_other(first)
    if when == "in a step":
        wait_for_steps(run, 3)
    begun = [*children_of(first.pid), *children_of(other)]
    assert other in begun
    first.kill()
    first.communicate(timeout=60)
    until = time.monotonic() + 20
    while any(alive(pid) for pid in begun):
        assert time.monotonic() < until, "a process is left"
        time.sleep(0.05)


if __name__ == "__main__":
    be_a_process(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
