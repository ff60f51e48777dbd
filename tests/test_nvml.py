"""Telemetry against a library that answers as NVIDIA's would, and refuses as it would."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import Library, NVMLError

from alexsim.execute.context import Choices
from alexsim.execute.executor import Executor
from alexsim.plan.plan import Plan
from alexsim.processes.world import World
from alexsim.profile import nvml
from alexsim.profile.nvml import Energy, Sample, Sampler, Telemetry
from alexsim.recipe.file import load_recipe
from alexsim.train import engine, loop
from alexsim.train.settings import TrainSettings, Watcher

ANSWERS = {
    "nvmlDeviceGetUtilizationRates": {"utilisation": 0.75},
    "nvmlDeviceGetMemoryInfo": {"memory_bytes": 5},
    "nvmlDeviceGetPowerUsage": {"power_w": 100.0},
    "nvmlDeviceGetClockInfo": {"sm_mhz": 1980, "memory_mhz": 2619},
    "nvmlDeviceGetPcieThroughput": {
        "pcie_sent_bytes_per_s": 3 * 1024,
        "pcie_received_bytes_per_s": 7 * 1024,
    },
    "nvmlDeviceGetTemperature": {"temperature_c": 61},
    "nvmlDeviceGetCurrentClocksThrottleReasons": {
        "throttle": ("power cap", "temperature, by software")
    },
}
"""What a question makes of a sample of the first card."""


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made = Library()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(nvml, "_INTERVAL_S", 0.01)
    return made


def watched(body: Callable[[], object] = lambda: None) -> tuple[Sampler, list[Sample]]:
    samples: list[Sample] = []
    with Sampler(samples.append) as sampler:
        body()
    return sampler, samples


def sampling() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nvml"]


def test_samples_come_in_the_units_they_claim(library: Library) -> None:
    sampler, samples = watched(lambda: time.sleep(0.3))
    assert sampler.why == ""
    assert sampler.names == ("Card 0", "Card 1")
    assert [sample.card for sample in samples] == [0, 1] * (len(samples) // 2)
    assert len(samples) >= 6
    times = [sample.time_s for sample in samples[::2]]
    assert times == sorted(times)
    assert 0 <= times[0] < 0.3 <= times[-1] + 1e-3
    wanted = {key: value for answer in ANSWERS.values() for key, value in answer.items()}
    for sample in samples[::2]:
        assert sample == Sample(time_s=sample.time_s, card=0, **wanted)
    assert (samples[1].utilisation, samples[1].memory_bytes) == (0.76, 6)
    assert (samples[1].temperature_c, samples[1].throttle) == (62, ())
    assert nvml.reasons(0x1401) == ("idle", "0x1400")


def test_the_first_sample_is_taken_at_once_and_the_last_at_the_end(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "_INTERVAL_S", 60)
    _, samples = watched(lambda: time.sleep(0.2))
    assert [sample.card for sample in samples] == [0, 1, 0, 1]
    assert samples[0].time_s < 0.2 <= samples[2].time_s + 1e-3 < 30


@pytest.mark.parametrize("question", sorted(ANSWERS))
def test_what_a_card_refuses_is_none_and_the_rest_is_there(library: Library, question: str) -> None:
    library.refused = {question}
    _, samples = watched()
    wanted = {key: value for answer in ANSWERS.values() for key, value in answer.items()}
    wanted |= dict.fromkeys(ANSWERS[question])
    assert samples[0] == Sample(time_s=samples[0].time_s, card=0, **wanted)


def test_energy_is_the_counters_where_cards_have_them(library: Library) -> None:
    sampler, _ = watched(lambda: time.sleep(0.05))
    # Asked once before and once after, 5 J later, on two cards.
    assert sampler.energy == Energy(joules=10.0, source="counter")
    found = Telemetry(cards=sampler.names, why="", samples=(), energy=sampler.energy, images=40)
    assert found.joules_per_image == 0.25
    assert replace(found, images=0).joules_per_image is None
    assert replace(found, energy=None).joules_per_image is None


@pytest.mark.parametrize("interval_s", [0.01, 60])
def test_energy_is_power_over_all_of_the_time_elsewhere(
    library: Library, monkeypatch: pytest.MonkeyPatch, interval_s: float
) -> None:
    library.refused = {"nvmlDeviceGetTotalEnergyConsumption"}
    monkeypatch.setattr(nvml, "_INTERVAL_S", interval_s)
    inside = []

    def body() -> None:
        before = time.monotonic()
        time.sleep(0.15)
        inside.append(time.monotonic() - before)

    before = time.monotonic()
    sampler, _ = watched(body)
    outside = time.monotonic() - before
    assert sampler.energy is not None
    assert sampler.energy.source == "power"
    # Two cards of 100 W for as long as the body took, or a moment longer.
    assert 200 * inside[0] <= sampler.energy.joules <= 200 * outside


def test_one_card_without_a_counter_makes_all_count_by_power(library: Library) -> None:
    answer = library.nvmlDeviceGetTotalEnergyConsumption

    def only_first(card: int) -> int:
        if card:
            raise NVMLError("Not Supported")
        return answer(card)

    library.nvmlDeviceGetTotalEnergyConsumption = only_first
    sampler, _ = watched(lambda: time.sleep(0.02))
    assert sampler.energy is not None
    assert sampler.energy.source == "power"
    library.refused = {"nvmlDeviceGetPowerUsage"}
    assert watched(lambda: time.sleep(0.02))[0].energy is None


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (None, "no pynvml: pip install nvidia-ml-py"),
        ("nvmlInit", "NVML: Not Supported"),
        ("nvmlDeviceGetCount", "NVML: Not Supported"),
        ("nvmlDeviceGetHandleByIndex", "NVML: Not Supported"),
    ],
)
def test_without_nvml_a_line_says_why_and_nothing_runs(
    library: Library, monkeypatch: pytest.MonkeyPatch, refused: str | None, why: str
) -> None:
    if refused is None:
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        library.refused = {refused}
    seen = []
    sampler, samples = watched(lambda: seen.extend(sampling()))
    assert sampler.why == why
    assert "\n" not in why
    assert seen == samples == []
    assert sampler.energy is None
    assert sampler.names == ()


def test_the_thread_lives_as_long_as_the_body(library: Library) -> None:
    seen: list[str] = []
    watched(lambda: seen.extend([*sampling(), str(library.open)]))
    assert seen == ["nvml", "1"]
    assert sampling() == []
    assert library.open == 0


def test_a_body_that_fails_ends_it_as_well(library: Library) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watched(fail)
    assert sampling() == []
    assert library.open == 0


def steps_with_telemetry(
    folder: Path,
    run_dir: Path,
    pool: ProcessPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    notes: list[str],
) -> Any:
    """A run of three steps that takes this machine for a card: only watching it looks there."""

    def here(made: Plan, settings: TrainSettings, world: World) -> Executor:
        assert (settings.device, world.size) == ("cuda", 1)
        return Executor(made, Choices(seed=settings.seed, device="cpu"))

    monkeypatch.setattr(engine, "_executor", here)
    monkeypatch.setattr(loop, "_pool", lambda workers: nullcontext(pool))
    settings = TrainSettings(
        network="lenet-5", batch_size=4, gpus=1, policy="as-released", schedule="serial",
        budget_bytes=1 << 30, data=str(folder), steps=3, seed=0, threads=1, workers=2,
        checkpoint_every=50, recipe=load_recipe("2012").only_first_stage, device="cuda",
    )  # fmt: skip
    return loop.train(settings, run_dir, resume=False, watch=Watcher(note=notes.append))


def test_training_on_cards_leaves_their_telemetry(
    folder: Path,
    tmp_path: Path,
    pool: ProcessPoolExecutor,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    result = steps_with_telemetry(folder, tmp_path / "run", pool, monkeypatch, notes)
    assert notes == []
    assert result.cards == ("Card 0", "Card 1")
    assert result.joules_per_image == 10.0 / 12
    lines = (tmp_path / "run" / "telemetry.jsonl").read_text().splitlines()
    samples = [Sample(**json.loads(line)) for line in lines]
    assert {tuple(sample.throttle or ()) for sample in samples[::2]} == {
        ("power cap", "temperature, by software")
    }
    assert [sample.card for sample in samples[:2]] == [0, 1]
    assert {sample.power_w for sample in samples} == {100.0}
    assert sampling() == []


def test_training_without_nvml_says_so_and_goes_on(
    folder: Path, tmp_path: Path, pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    notes: list[str] = []
    result = steps_with_telemetry(folder, tmp_path / "run", pool, monkeypatch, notes)
    assert notes == ["no telemetry: no pynvml: pip install nvidia-ml-py"]
    assert result.steps == 3
    assert result.joules_per_image is None
    assert not (tmp_path / "run" / "telemetry.jsonl").exists()
