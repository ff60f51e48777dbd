"""What runs where no option says so: a card where there is one, and there each op by whoever its
tables say is faster. Where there is no card, the CPU does the work of the one that is made up."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from chains import FAMILIES
from commands import here
from tiny import write_weights

from alexsim.editions.load import load_network
from alexsim.execute import cards, executor
from alexsim.execute.here import device_here, faster_by_triton, faster_text
from alexsim.network.kernel_names import kernel_name
from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy
from alexsim.plan.planner import plan
from alexsim.train import run_profile
from alexsim_kernels import op_names, tables

CARD = "NVIDIA X"
NAME = tables.card_name(CARD, triton.__version__)
LENET = load_network("lenet-5")
SLOWER, FASTER = {"triton_ms": 2.0, "aten_ms": 1.0}, {"triton_ms": 1.0, "aten_ms": 2}
CONV2 = "convolution forward 6x14x14 to 16 by 5x5 stride 1x1 padding 0x0 groups 1 fp32"
FC4 = "linear grad_weight 400 to 120 fp32"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Sets what ships, and what the user measured: none of both before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shipped: dict[str, Any] = {}
    monkeypatch.setattr(tables, "_shipped", lambda: shipped)

    def set_tables(ships: dict[str, Any], users: dict[str, Any] | None = None) -> None:
        shipped[NAME] = {"ops": ships}
        if users is not None:
            tables.keep(NAME, {"ops": users})

    return set_tables


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("the card here is another")
    there = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: CARD)
    for module in (cards, executor):
        monkeypatch.setattr(module, "places", lambda device, count: [there] * count)
    measured = run_profile.ceilings
    monkeypatch.setattr(run_profile, "ceilings", lambda _, *what: measured("cpu", *what))


def train(run: Path, *more: object) -> Any:
    common = ("--net", "lenet-5", "--batch", 4, "--steps", 2, "--workers", 1)
    return here("train", *common, "-o", run, *more)


def settings(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())["settings"]


@pytest.mark.parametrize("there", [True, False])
def test_auto_is_a_card_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_here("auto") == ("cuda" if there else "cpu")
    assert [device_here(name) for name in ("cpu", "cuda")] == ["cpu", "cuda"]


@pytest.mark.usefixtures("card")
def test_a_run_is_on_the_card_and_goes_on_there(
    folder: Path, table: Callable[..., None], tmp_path: Path
) -> None:
    """Without a table, by ATen alone."""
    ran = train(tmp_path / "run", "--data", folder)
    assert not ran.returncode, ran.stderr
    first = ran.stderr.splitlines()[0]
    assert first.startswith("lenet-5, batch 4, ")
    assert first.endswith(f"on {CARD}, backend aten, exchanges by peer")
    stored = settings(tmp_path / "run")
    assert (stored["device"], stored["backend"], stored["triton_ops"]) == ("cuda", "aten", [])
    assert "Triton" not in ran.stderr
    again = here("train", "--resume", tmp_path / "run", "--steps", 3)
    assert f"on {CARD}" in again.stderr.splitlines()[0]
    assert settings(tmp_path / "run")["device"] == "cuda"


def test_a_run_without_a_card_is_on_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = train(tmp_path / "run", "--data", folder, "--threads", 1, "--backend", "aten")
    assert ran.stderr.splitlines()[0].endswith("on cpu, backend aten, 1 threads")
    assert settings(tmp_path / "run")["device"] == "cpu"
    # A card that has come since changes nothing.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    again = here("train", "--resume", tmp_path / "run", "--steps", 3)
    assert not again.returncode, again.stderr
    assert again.stderr.splitlines()[0].endswith("on cpu, backend aten, 1 threads")


@pytest.mark.usefixtures("card")
def test_what_was_measured_to_be_faster_runs_by_triton_also_when_a_run_goes_on(
    folder: Path, table: Callable[..., None], tmp_path: Path
) -> None:
    table({}, {CONV2: FASTER, op_names.row(FC4, 64): FASTER, "update 48000": SLOWER})
    ran = train(tmp_path / "run", "--data", folder)
    assert not ran.returncode, ran.stderr
    said = "  2 of 34 ops by Triton's kernels, faster on this card (own table)"
    assert said in ran.stderr.splitlines()
    stored = settings(tmp_path / "run")
    assert (stored["backend"], stored["triton_ops"]) == ("aten", [CONV2, FC4])
    assert (stored["graph"], stored["fusion"], stored["precision"]) == (False, "none", "fp32")
    profile = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert profile["where"] == f"{CARD}, aten and triton, {stored['threads']} threads"

    table({CONV2: SLOWER}, {CONV2: SLOWER, op_names.row(FC4, 64): FASTER})
    again = here("train", "--resume", tmp_path / "run", "--steps", 3)
    assert said in again.stderr.splitlines()
    assert settings(tmp_path / "run")["triton_ops"] == [CONV2, FC4]
    parts = here(
        "train", "--resume", tmp_path / "run", "--steps", 4, "--partition", "hybrid", "--gpus", 1
    )
    assert not parts.returncode, parts.stderr
    assert "alexsim: no ops by Triton's kernels from here on" in parts.stderr
    assert "ops by Triton's kernels, faster" not in parts.stderr

    alone = train(tmp_path / "aten", "--data", folder, "--backend", "aten", "--json")
    both = train(tmp_path / "both", "--data", folder, "--json")
    losses = [json.loads(each.stdout)["losses"] for each in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("ships", "users", "faster"),
    [
        ({}, None, []),
        ({CONV2: FASTER}, None, [CONV2]),
        ({CONV2: SLOWER}, None, []),
        ({CONV2: {"triton_ms": 1, "aten_ms": 1}}, None, []),
        ({CONV2: FASTER}, {CONV2: SLOWER}, []),
        ({CONV2: SLOWER, FC4: FASTER}, {CONV2: FASTER}, [CONV2, FC4]),
        # A name that no op has; another precision.
        ({"convolution forward of nothing": FASTER}, {FC4.replace("fp32", "tf32"): FASTER}, []),
    ],
)
def test_the_user_s_table_goes_before_the_one_that_ships(
    ships: dict, users: dict | None, faster: list[str], table: Callable[..., None]
) -> None:
    table(ships, users)
    assert faster_by_triton([LENET], 16) == tuple(faster)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"a": 1}', "\x00", json.dumps({NAME: {"ops": {CONV2: {"triton_ms": 1}}}}),
        json.dumps({NAME: {"ops": {CONV2: {"triton_ms": "1", "aten_ms": 2}}}}),
    ],
)  # fmt: skip
def test_a_broken_table_of_the_user_s_is_none(text: str, table: Callable[..., None]) -> None:
    table({FC4: FASTER})
    path = tables.cache_file()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    tables._cached.cache_clear()
    assert faster_by_triton([LENET], 16) == (FC4,)


@pytest.mark.usefixtures("card")
def test_another_card_s_table_says_nothing(table: Callable[..., None]) -> None:
    tables.keep("NVIDIA Y, triton 1", {"ops": {CONV2: FASTER}})
    assert faster_by_triton([LENET], 16) == ()


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("ships", "users", "whose"),
    [
        ({CONV2: FASTER}, None, " (shipped table)"),
        ({CONV2: FASTER}, {FC4: FASTER}, " (own and shipped tables)"),
        ({}, {CONV2: FASTER}, " (own table)"),
        ({}, None, ""),
    ],
)
def test_whose_table_decided_is_said(
    ships: dict, users: dict | None, whose: str, table: Callable[..., None]
) -> None:
    table(ships, users)
    names = faster_by_triton([LENET], 16) or (CONV2,)
    made = plan(LENET, batch_size=16, backend="aten", triton_ops=names)
    said = f"{len(names)} of 34 ops by Triton's kernels, faster on this card"
    assert faster_text(made) == said + whose


def test_the_row_of_the_nearest_number_of_images_counts() -> None:
    rows = [op_names.row("a", n) for n in (16, 64, 1024)] + ["a", "b", "a, images x", "a, images 0"]
    for images, nearest in ((1, 16), (16, 16), (32, 16), (33, 64), (500, 1024), (9999, 1024)):
        assert op_names.nearest(rows, "a", images) == op_names.row("a", nearest)
    assert op_names.nearest(rows[3:], "a", 5) == "a"
    assert op_names.nearest(rows, "c", 5) is None


def test_ops_of_one_name_are_alike() -> None:
    """Over all editions: what a name leaves out is images, ties, and windows over the edge."""
    shapes: dict[str, set[tuple[object, ...]]] = {}
    flat = (FullyConnected, SoftmaxCrossEntropy)
    for edition in FAMILIES:
        for parts in load_network(edition).parts:
            for part, kind in itertools.product(parts, ("forward", "grad_input", "grad_weight")):
                if name := kernel_name(kind, part):
                    channels = part.input_shape[0], part.output_shape[0]
                    extent = () if isinstance(part.layer, flat) else part.input_shape[1:]
                    inputs = math.prod(part.input_shape)
                    of = (kind, type(part.layer), channels, extent, inputs, part.weight_shape)
                    shapes.setdefault(name, set()).add(of)
    assert len(shapes) > 200
    assert {name: of for name, of in shapes.items() if len(of) > 1} == {}


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--threads", 1], "--threads are a CPU's (--device cpu)"),
        (["--backend", "native"], "--backend native is for CPUs (--device cpu)"),
        (["--graph"], "--graph needs --device cuda and --backend triton"),
        (["--precision", "tf32"], "--precision tf32 needs --backend triton"),
        (["--transport", "peer"], "one GPU exchanges nothing"),
    ],
)
def test_what_does_not_go_with_the_card_that_auto_is(
    more: list[object], why: str, table: Callable[..., None], folder: Path, tmp_path: Path
) -> None:
    table({CONV2: FASTER})
    ran = train(tmp_path / "run", "--data", folder, *more)
    assert ran.returncode == 2
    assert why in ran.stderr


@pytest.mark.usefixtures("card")
def test_an_answer_begins_with_what_gave_it(
    table: Callable[..., None], folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path)
    image = folder / "dark" / "00.JPEG"
    asked = here("model", "predict", weights, image)
    assert not asked.returncode, asked.stderr
    assert asked.stderr.splitlines() == [f"alexsim: on {CARD}, backend aten"]
    conv1 = "convolution forward 3x24x24 to 4 by 5x5 stride 2x2 padding 1x1 groups 1 fp32"
    table({conv1: FASTER})
    both = here("eval", weights, "--data", folder, "--split", "train", "--workers", 1)
    assert both.stderr.splitlines()[0] == (
        f"alexsim: on {CARD}, backend aten;"
        " 2 of 15 ops by Triton's kernels, faster on this card (shipped table)"
    )
    assert here("model", "predict", weights, image, "--json").stderr == ""
    refused = here("eval", weights, "--data", folder, "--threads", 1)
    assert "--threads are a CPU's" in refused.stderr
