"""A run's metrics as TensorBoard and W&B get them; ``trackers_check.py`` asks these themselves."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import here
from safetensors.numpy import save_file

from alexsim.errors import RunError
from alexsim.page.inputs import run_subject
from alexsim.page.trackers.series import Series, series
from alexsim.page.trackers.tensorboard import flat

SETTINGS = {
    "network": "lenet-5", "batch_size": 4, "gpus": 1, "policy": "as-released",
    "schedule": "serial", "budget_bytes": 2**30, "steps": 3,
    "recipe": {"title": "a", "stages": [{"from_epoch": 1, "weight_rate": 0.1, "bias_rate": 0.2}]},
}  # fmt: skip
TESTED = {"loss": None, "top1": 1.0, "top5": 0.5, "nan_images": 1, "epoch": 1, "images": 9}
LINES: list[dict[str, Any]] = [
    {"step": 1, "loss": 2.5, "top1": 0.75, "top5": 0.5, "step_s": 9.0, "data_wait_s": 1.0},
    {"step": 2, "loss": 1e39, "top1": 1.0, "top5": 1.0, "step_s": 0.5, "data_wait_s": 0.25},
    {"step": 2, "validation": TESTED, "layers": {"conv1": [0.5, 0.25]},
     "not_finite": {"validation.loss": "NaN"}},
    {"step": 3, "loss": 2.0, "top1": 0.5, "top5": 0.25, "step_s": 0.25, "data_wait_s": 0.0},
    {"step": 3, "validation": TESTED | {"loss": 3.0}, "layers": {}},
    {"step": 3, "held_out": {"loss": 4.0, "top1": 0.25, "top5": 0.0, "nan_images": 0}},
]  # fmt: skip
WRITTEN_S = 1_800_000_000


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "today"
    folder.mkdir()
    config = {"settings": SETTINGS, "data_fingerprint": "ab", "versions": {"torch": "2"}}
    (folder / "config.json").write_text(json.dumps(config))
    _write(folder, LINES)
    weights = np.linspace(-1, 1, 6 * 25, dtype=np.float32).reshape(6, 1, 5, 5)
    save_file({"conv1.a.weight": weights}, folder / "checkpoint-00000003.safetensors")
    return folder


def _write(folder: Path, lines: list[dict[str, Any]], more: str = "") -> None:
    file = folder / "metrics.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + more)
    os.utime(file, (WRITTEN_S, WRITTEN_S))


def taken(folder: Path) -> Series:
    return series(run_subject(folder), folder)


def succeeded(*line: object) -> str:
    done = here(*line)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def failed(*line: object) -> str:
    done = here(*line)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    return done.stderr


def test_every_value_has_a_tag_and_its_step(run_dir: Path) -> None:
    made = taken(run_dir)
    first, second, last = made.rows
    assert (made.name, [row.step for row in made.rows]) == ("today", [1, 2, 3])
    assert first.values == {
        "train/loss": 2.5, "train/top_1_error": 0.75, "train/top_5_error": 0.5,
        "throughput/images_per_s": 4 / 9, "time/step_s": 9.0, "time/data_wait_s": 1.0,
    }  # fmt: skip
    assert second.values["train/loss"] == 1e39
    assert math.isnan(second.values["held_out/loss"])
    assert second.values["weight_mean_abs/conv1"] == 0.5
    assert second.values["update_mean_abs/conv1"] == 0.25
    # Of two tests at one step, that at the run's end.
    assert last.values["held_out/loss"] == 4.0
    planned = run_subject(run_dir).document
    assert last.values["predicted/step_s"] == planned.predicted_step_s
    assert last.values["predicted/images_per_s"] == 4 / planned.predicted_step_s
    (device,) = planned.memory.devices
    assert last.values["memory/gpu0_planned_bytes"] == device.planned_bytes
    assert [[*row.pictures] for row in made.rows] == [[], [], ["filters/conv1.a"]]


def test_rows_are_as_far_apart_as_steps_took(run_dir: Path) -> None:
    times = [row.wall_s - WRITTEN_S for row in taken(run_dir).rows]
    assert times == [-0.75, -0.25, 0.0]


def test_a_run_that_goes_on_gives_what_there_is(run_dir: Path) -> None:
    _write(run_dir, LINES[:1], '{"step": 2, "lo')
    assert [row.step for row in taken(run_dir).rows] == [1, 3]  # the checkpoint's filters
    _write(run_dir, [])
    with pytest.raises(RunError, match="nothing to export"):
        taken(run_dir)


def test_settings_are_told_by_place(run_dir: Path) -> None:
    made = flat(taken(run_dir).settings)
    assert made["recipe.stages[0].weight_rate"] == 0.1
    assert made["versions.torch"] == "2"
    assert flat({"a": [], "b": None, "c": {"d": [True, [1]]}}) == {"c.d[0]": True, "c.d[1][0]": 1}


def package(name: str, **names: Any) -> ModuleType:
    """One that seems to be installed."""
    module = ModuleType(name)
    vars(module).update(names, __spec__=SimpleNamespace(name=name))
    return module


def test_an_export_takes_the_place_of_the_one_before(
    run_dir: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorboard", package("tensorboard"))
    events = "alexsim.page.trackers.tensorboard.write_events"
    monkeypatch.setattr(events, lambda series, file: file.write(series.name.encode()))
    others = tmp_path / "board" / "today" / "events.out.tfevents.1.another"
    for now in (10, 20):
        monkeypatch.setattr("time.time", lambda now=now: now)
        told = json.loads(succeeded("report", run_dir, "--tensorboard", "board", "--json"))
        others.touch()
    assert sorted(path.name for path in others.parent.iterdir()) == [
        others.name, "events.out.tfevents.20.alexsim",
    ]  # fmt: skip
    assert (others.parent / "events.out.tfevents.20.alexsim").read_bytes() == b"today"
    assert (told["page"], told["bytes"]) == (None, None)
    assert told["exports"] == [
        {"run": "today", "tracker": "tensorboard", "place": "board/today", "rows": 3, "tags": 14}
    ]
    assert not (tmp_path / "report.html").exists()
    # The page itself is not looked at here.
    monkeypatch.setattr("alexsim.page.page.page", lambda run: f"<html>{run.name}")
    both = succeeded("report", run_dir, "--tensorboard", "board", "-o", "report.html").splitlines()
    assert both[0] == "board/today: 3 steps, 14 tags (tensorboard --logdir board)"
    assert both[1].startswith("report.html: ")
    assert (tmp_path / "report.html").read_text() == "<html>today"


class FakeRun(SimpleNamespace):
    """Of the package ``wandb``, what is asked of a run."""

    def __enter__(self) -> FakeRun:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True

    def log(self, values: dict[str, Any], step: int) -> None:
        self.rows.append((step, values))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A package ``wandb`` that is offline."""
    run = FakeRun(disabled=False, url=None, settings=SimpleNamespace(sync_dir="wandb/off"), rows=[])
    module = package(
        "wandb",
        Error=type("Error", (Exception,), {}),
        Settings=lambda **given: given,
        Image=lambda picture: picture.size,
        init=lambda **given: vars(run).update(given=given) or run,
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return run


def test_wandb_gets_every_row_once(run_dir: Path, fake: FakeRun) -> None:
    out = succeeded("report", run_dir, "--wandb", "project")
    assert out == "wandb/off: 3 steps, 14 tags (wandb sync wandb/off)\n"
    made = taken(run_dir)
    assert (fake.given["project"], fake.given["name"]) == ("project", "today")
    assert fake.given["config"] == made.settings
    assert fake.ended
    for (step, values), row in zip(fake.rows, made.rows, strict=True):
        assert step == row.step
        assert values["_timestamp"] == row.wall_s
        assert str({tag: values[tag] for tag in row.values}) == str(row.values)
        assert values.keys() - row.values.keys() == {"_timestamp", *row.pictures}


def test_what_wandb_refuses_is_one_line(run_dir: Path, fake: FakeRun, monkeypatch: Any) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("WANDB_RUN_ID", "abc")
        assert "names one run" in failed("report", run_dir, run_dir, "--wandb", "p")
    fake.disabled = True
    assert "WANDB_MODE switches W&B off" in failed("report", run_dir, "--wandb", "p")
    module: Any = sys.modules["wandb"]

    def refuse(**_: object) -> None:
        raise module.Error("No API key.\n  Log in.")

    module.init = refuse
    assert "--wandb: No API key. Log in." in failed("report", run_dir, "--wandb", "p")


def test_a_missing_package_is_named(run_dir: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("tensorboard", "wandb"):
        line = failed("report", run_dir, f"--{name}", "board")
        assert f'--{name} needs a package: pip install "alexsim[{name}]"' in line
