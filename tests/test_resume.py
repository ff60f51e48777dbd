"""Runs that go on, that cannot, and that never began."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from alexsim.cli.app import main
from alexsim.errors import RunError
from alexsim.recipe.file import load_recipe, recipe_table
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.settings import TrainSettings

STEPS = 12


def train(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["train", *map(str, arguments)])
    return int(caught.value.code or 0)


def begin(folder: Path, run: Path, *more: object) -> int:
    return train(
        "--net", "lenet-5", "--batch", 16, "--seed", 3, "--data", folder, "-o", run,
        "--workers", 1, "--threads", 1, "--json", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    assert begin(folder, run, "--steps", STEPS) == 0
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.iterdir()}


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ((), STEPS),
        (("--steps", STEPS), STEPS),
        (("--steps", 10), 10),
        (("--epochs", "0.1"), 1),
        (("--threads", 2), STEPS),
    ],
)
def test_a_finished_run_says_what_was_done_and_what_may_be_asked(
    more: tuple[object, ...], asked: int, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert train("--resume", run, *more) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{STEPS} steps are done, {asked} were asked for" in line
    assert f"goes on for more than {STEPS} (--steps N or --epochs N)" in line
    assert contents(run) == before


def test_a_few_steps_more_keep_the_profile_and_count_all(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    assert train("--resume", run, "--steps", STEPS + 2, "--json") == 0
    after = contents(run)
    for name in ("profile.json", "trace.json.gz"):
        assert after[name] == before[name]
    steps = [json.loads(line) for line in after["metrics.jsonl"].splitlines()]
    assert [one["step"] for one in steps if "loss" in one] == [*range(1, STEPS + 3)]
    assert json.loads(after["config.json"])["settings"]["steps"] == STEPS + 2
    with pytest.raises(SystemExit) as caught:
        main(["report", str(run), "-o", str(tmp_path / "page.html")])
    assert not caught.value.code
    text = "".join((tmp_path / "page.html").read_text().split())
    for name, count in (("stepsdone", STEPS + 2), ("steps", STEPS + 2), ("stepstimed", 10)):
        assert f"<dt>{name}</dt><dd>{count}</dd>" in text, name


def test_a_run_that_was_stopped_before_its_last_test_goes_on(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    assert "held_out" in lines[-1]
    metrics.write_text("".join(lines[:-1]))
    assert train("--resume", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == STEPS
    assert metrics.read_text().splitlines()[-1] == lines[-1].strip()


@pytest.mark.parametrize("name", ["gone", "folder", "file"])
def test_what_is_no_run_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert train("--resume", tmp_path / name) == 2
    assert f"{tmp_path / name} holds no run: no config.json" in capsys.readouterr().err


OTHER: dict[Any, Any] = {int: "x", str: 5, bool: "x"}


@pytest.mark.parametrize(
    "name", [*get_type_hints(TrainSettings), "versions", "classes", "settings"]
)
def test_a_config_that_is_damaged_is_named(
    name: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((run / "config.json").read_text())
    table = config if name in config else config["settings"]
    for value in (None, [], {"a": 1}, OTHER.get(type(table[name]), "x"), -1):
        if name == "seed" and value == -1:
            continue
        changed = copy.deepcopy(config)
        (changed if name in config else changed["settings"])[name] = value
        if name in ("classes", "versions", "triton_ops") and type(value) is type(table[name]):
            continue
        (run / "config.json").write_text(json.dumps(changed))
        assert train("--resume", run, "--steps", 20) == 2, value
        line = capsys.readouterr().err.splitlines()[-1]
        assert "config.json is damaged, or no config of this version" in line


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("statistics.npz", lambda data: data[: len(data) // 2]),
        ("statistics.npz", lambda _: b""),
        ("metrics.jsonl", lambda data: b"half a li\n" + data),
        ("metrics.jsonl", lambda data: b"[]\n" + data),
        ("checkpoint-00000012.safetensors", lambda data: data[: len(data) // 2]),
    ],
)
def test_a_file_that_is_damaged_is_named(
    name: str,
    change: Callable[[bytes], bytes],
    run: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run / name).write_bytes(change((run / name).read_bytes()))
    assert train("--resume", run, "--steps", 20) == 2
    assert f"{run / name}" in capsys.readouterr().err.splitlines()[-1]


def test_other_files_are_no_checkpoints(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They stay, and are not taken for one."""
    (run / "checkpoint-best.safetensors").write_bytes(b"mine")
    assert train("--resume", run, "--steps", STEPS + 1, "--json") == 0
    assert (run / "checkpoint-best.safetensors").read_bytes() == b"mine"


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unreadable")
    for name in ("a", "b"):
        (root / name).mkdir()
        for index in range(5):
            (root / name / f"{index}.JPEG").write_bytes(b"no image")
    return root


def test_a_run_that_never_began_leaves_nothing(
    unreadable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(unreadable, tmp_path / "runs" / "a", "--steps", 2) == 2
    assert "can be read" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
    # What was there before is not the run's.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    assert begin(unreadable, tmp_path / "mine", "--steps", 2) == 2
    assert contents(tmp_path / "mine") == {"notes.txt": b"keep"}


def test_a_first_step_that_fails_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alexsim.errors import TrainingError
    from alexsim.train.run import Run

    def fails(*_: object) -> None:
        raise TrainingError("the loss is not a number")

    monkeypatch.setattr(Run, "_step", fails)
    assert begin(folder, tmp_path / "run", "--steps", 2) == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"nesterov": True}, "settings.recipe: nesterov is a constant of optimizer sgd"),
        ({"beta2": 0.999}, "settings.recipe: beta2 is a constant of optimizer adamw"),
        (
            {"validation": {"images": 0, "every_images": 0, "every_epochs": 1}},
            "give every_images or",
        ),
    ],
)
def test_a_stored_recipe_is_read_as_a_file_s(
    recipe: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """What a file need not say is added, and what it may not say is refused."""
    settings = RESUMABLE | {"recipe": recipe_table(load_recipe("2012"))}
    adamw = recipe_table(load_recipe("2012").updated_by("adamw"))
    del adamw["decay_all"]
    for stage in adamw["stages"]:
        del stage["bias_rate"]
    config = {"schema": 1, "data_fingerprint": "", "classes": [], "versions": {}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config | {"settings": settings | {"recipe": adamw}}))
    assert RunDirectory(tmp_path).config().settings.recipe.decay_all
    path.write_text(
        json.dumps(config | {"settings": settings | {"recipe": settings["recipe"] | recipe}})
    )
    with pytest.raises(RunError, match=says):
        RunDirectory(tmp_path).config()
    path.write_text(json.dumps(config | {"settings": settings | {"partition": "replicas"}}))
    with pytest.raises(RunError, match=r"settings\.partition must be one of columns, hybrid"):
        RunDirectory(tmp_path).config()


RESUMABLE = {
    "network": "lenet-5", "batch_size": 4, "gpus": 1, "policy": "as-released",
    "schedule": "serial", "budget_bytes": 1, "data": "d", "steps": 1, "seed": 0, "threads": 1,
    "workers": 1, "checkpoint_every": 1,
}  # fmt: skip
