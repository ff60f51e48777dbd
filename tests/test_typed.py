"""Whatever is read from TOML or JSON: what is amiss with it is named, at its place."""

from __future__ import annotations

import copy
import json
import math
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from alexsim.bench import store
from alexsim.costs import measured
from alexsim.costs.card import EMPTY, Card, ErrorClass, LeftOut
from alexsim.data.packed import pack_index as packed
from alexsim.data.packed.index import read_index
from alexsim.data.sources.listing import ImageClass, Skipped
from alexsim.editions.load import edition_names
from alexsim.errors import AlexsimError, DataError, ProfileError, RunError
from alexsim.fidelity.rows import Names
from alexsim.machine.device import Architecture, Device, load_device
from alexsim.machine.link import Link
from alexsim.machine.machine import Machine, load_machine
from alexsim.machine.sheet import find, read_sheet
from alexsim.recipe.defaults import Defaults
from alexsim.recipe.file import load_recipe, recipe_from, recipe_names, recipe_table
from alexsim.recipe.recipe import Plateau
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.settings import (
    Evaluation,
    HeldOutLine,
    LayerSize,
    PartEvaluation,
    RunConfig,
    StepLine,
    TrainSettings,
    ValidationLine,
)
from alexsim.typed import load, parse, read

Document = dict[str, Any]
Place = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A valid document, how it is read, and what is free in it."""

    document: Document
    read: Callable[[Document, Path], Any]
    write: Callable[[Any], Document] | None = None
    """None where nobody writes such a document."""
    error: type[AlexsimError] = ProfileError
    optional: set[str] = field(default_factory=set)
    """Keys that may be missing."""
    free: set[str] = field(default_factory=set)
    """Tables whose keys are anybody's."""
    nan: set[str] = field(default_factory=set)
    """Numbers that may be NaN, and tables of them."""
    mixed: set[str] = field(default_factory=set)
    """Tables of numbers and texts."""


def shipped(*names: str) -> Document:
    text = files("alexsim_profiles").joinpath(*names).read_text("utf-8")
    return tomllib.loads(text) if names[-1].endswith(".toml") else json.loads(text)


def plain(document: Any) -> Document:
    """As JSON has it."""
    return json.loads(json.dumps(document))


def sheet(kind: Any, folder: str, name: str, optional: set[str]) -> Case:
    return Case(
        document=find(folder, name, what="sheet")[0],
        read=lambda document, _: read_sheet(kind, document, "it.toml"),
        optional=optional,
        free={"sources"},
    )


def from_file(load: Callable[[str], Any]) -> Callable[[Document, Path], Any]:
    def of(document: Document, folder: Path) -> Any:
        lines = [f"{key} = {toml(value)}" for key, value in document.items()]
        (folder / "it.toml").write_text("\n".join(lines))
        return load(str(folder / "it.toml"))

    return of


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(k)} = {toml(v)}' for k, v in value.items())} }}"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return json.dumps(value)


def in_file(name: str, reader: Callable[[Path], Any]) -> Callable[[Document, Path], Any]:
    def of(document: Document, folder: Path) -> Any:
        (folder / name).write_text(json.dumps(document))
        return reader(folder / name)

    return of


def line(record: Any, nan: set[str] | None = None) -> Case:
    def last(path: Path) -> Any:
        path.write_text(f"{path.read_text()}\n")
        return RunDirectory(path.parent).metrics()[-1]

    return Case(
        document=plain(asdict(record)),
        read=in_file("metrics.jsonl", last),
        write=asdict,
        error=RunError,
        optional={"nan_images", "held_out", "validation"},
        free={"layers"},
        nan=nan or set(),
    )


def recipe(name: str, **changes: Any) -> Case:
    return Case(
        document=plain(recipe_table(replace(load_recipe(name), **changes))),
        read=lambda document, _: recipe_from(document, "it.toml"),
        write=recipe_table,
        optional={
            "validation", "plateau", "optimizer", "nesterov", "decay_all", "beta2", "epsilon",
            "layer_rates", "frozen", "bias_rate",
        },
        free={"layer_rates"},
    )  # fmt: skip


SETTINGS = TrainSettings(
    network="lenet-5", batch_size=4, gpus=1, policy="reuse", schedule="serial",
    budget_bytes=1 << 30, data="a/b", steps=3, seed=0, threads=1, workers=1, checkpoint_every=2,
    recipe=load_recipe("2012"),
)  # fmt: skip
OPTIONAL_SETTINGS = {
    "launch", "replicas", "device", "backend", "transport", "precision", "graph", "strict",
    "order", "init_from", "new_head", "partition", "variable_batch", "fusion", "triton_ops",
}  # fmt: skip
TESTED = {"loss": 0.5, "top1": 0.25, "top5": 0.0}
SHARD = {"file": "a.tar", "images": 3, "bytes": 9, "sha256": "0f"}
INDEX = packed.PackIndex(
    format="WebDataset", versions={"pillow": "1"}, settings=packed.PackSettings(),
    images={"train": 3, "val": 0}, classes=(ImageClass(wnid="n1", name="cat"),),
    shards={"train": (packed.Shard(**SHARD),), "val": ()}, files={"members.npy": "0f"},
    skipped=(Skipped(file="b.png", reason="no bytes"),), others=1, other="c.txt",
)  # fmt: skip
DEFAULTED = {
    "side",
    "quality",
    "order",
    "seed",
    "shard_images",
    "others",
    "other",
    "name",
    "skipped.images",
}
CASES = {
    "architecture": sheet(Architecture, "architectures", "hopper", set()),
    "device": sheet(Device, "devices", "gtx580", {"note", "price_usd", "link", "peer"}),
    "link": sheet(Link, "links", "nvlink2", set()),
    "machine": Case(
        document=find("machines", "gtx580x2", what="sheet")[0],
        read=lambda document, _: read_sheet(
            Machine, {**document, "device_name": document.get("device")}, "it.toml"
        ),
        free={"sources"},
    ),
    # What a file leaves out it inherits.
    "machine of one's own": Case(
        document=(document := find("machines", "gtx580x2", what="sheet")[0]),
        read=from_file(load_machine.__wrapped__),
        optional=set(document) - {"device"},
        free={"sources"},
    ),
    "device of one's own": Case(
        document=(document := find("devices", "gtx580", what="sheet")[0]),
        read=from_file(load_device),
        optional=set(document) - {"architecture", "memory_bytes", "memory_bytes_per_s"},
        free={"sources"},
    ),
    **{f"recipe {name}": recipe(name) for name in recipe_names()},
    "recipe with all": recipe(
        "2012", plateau=Plateau(divide_by=10, times=2, patience=3), title="with all"
    ),
    "recipe adamw": Case(**vars(recipe("2012")) | {
        "document": plain(recipe_table(load_recipe("2012").updated_by("adamw")))}),
    "editions": Case(
        document=shipped("training", "editions.toml")["resnet50"],
        read=lambda document, _: read(Defaults, document, "it.toml"),
        write=asdict,
        optional={"also"},
    ),
    "names": Case(
        document={key: rows[:2] for key, rows in shipped("measurements", "names.toml").items()},
        read=lambda document, _: read(Names, document, "it.toml"),
        optional={"family"},
    ),
    "config": Case(
        document=plain(
            RunConfig(
                settings=SETTINGS, data_fingerprint="f", classes=("cat", "dog"),
                versions={"torch": "2"}, launch="x",
            ).table
        ),
        read=in_file("config.json", lambda path: RunDirectory(path.parent).config()),
        write=lambda config: config.table,
        error=RunError,
        optional=OPTIONAL_SETTINGS | recipe("2012").optional - {"bias_rate"},
        free={"versions", "layer_rates"},
    ),
    "calibration": Case(
        document=(lambda d: d | {
            "rates": d["rates"][:1],
            **{key: dict([*d[key].items()][:2]) for key in ("ops", "half_ops")},
        })(shipped("baselines", "cpu-2-cores", "calibration.json")),
        read=in_file("it.json", lambda path: measured.read(str(path))),
        write=lambda record: json.loads(measured.write(record)),
        free={"ops", "half_ops"},
    ),
    "card": Case(
        document=(lambda d: d | {
            "data": {"a": "b"}, "devices": {"A": 3}, "libraries": {"c": 1},
            "kernel_sources": {"d": 2},
            "classes": [asdict(ErrorClass(
                unit="network", device_seen=True, library_seen=False, reduced=False,
                platform="hip", rows=20, median=0.1, mean=0.2, noise=0.3,
            ))],
            "left_out": [asdict(LeftOut(
                what="convolutions", left_out="device", groups=2, rows=30, median=0.1, mean=0.2,
                mechanism_median=0.3, mechanism_mean=0.4, roofline_median=0.5, roofline_mean=0.6,
                coverage=0.9,
            ))],
        })(asdict(EMPTY)),
        read=lambda document, _: parse(Card, json.dumps(document), "it.json"),
        write=lambda card: json.loads(json.dumps(asdict(card))),
        free={"data", "devices", "libraries", "kernel_sources"},
    ),
    "baseline": Case(
        document=(lambda d: d | {"counted": {"a": 1, "b": 0.5, "c": "x"}})(
            shipped("baselines", "bench", "alexnet-2012.json")
        ),
        read=in_file("it.json", store.load),
        write=store.document,
        free={"counted", "machines", "timed"},
        mixed={"counted"},
    ),
    "index": Case(
        document=plain({"schema": packed.SCHEMA} | asdict(INDEX)),
        read=in_file("index.json", lambda path: read_index(path.parent)),
        write=lambda index: {"schema": packed.SCHEMA} | asdict(index),
        error=DataError,
        optional=DEFAULTED,
        free={"versions", "files"},
    ),
    "part": Case(
        document=plain(asdict(packed.ShardDone(**SHARD, split="val", skipped=INDEX.skipped))),
        read=lambda document, _: parse(packed.ShardDone, json.dumps(document), "it", DataError),
        write=asdict,
        error=DataError,
        optional={"skipped", "skipped.images"},
    ),
    "plan of a set": Case(
        document=plain(asdict(packed.PackPlan(
            source="a", listing="0f", settings=INDEX.settings, versions={"pillow": "1"}))),
        read=in_file("it.json", lambda path: load(packed.PackPlan, path, "plan", DataError)),
        write=asdict,
        error=DataError,
        optional=DEFAULTED,
        free={"versions"},
    ),
    "step": line(StepLine(step=1, loss=2.5, top1=0.5, top5=0.25, step_s=0.5, data_wait_s=0.1)),
    "validation": line(
        ValidationLine(step=1, validation=PartEvaluation(**TESTED, epoch=1, images=2),
                       layers={"conv1": LayerSize(0.5, 0.0)}),
        nan={"loss", "layers"},
    ),
    "held out": line(HeldOutLine(step=1, held_out=Evaluation(**TESTED)), nan={"loss"}),
}  # fmt: skip


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every place of a tree below its root."""
    inside = value.items() if isinstance(value, dict) else ()
    for step, inner in enumerate(value) if isinstance(value, list) else inside:
        yield (*at, step)
        yield from places(inner, (*at, step))


def at(document: Any, place: Place) -> Any:
    for step in place:
        document = document[step]
    return document


def with_value(document: Document, place: Place, value: Any) -> Document:
    changed = copy.deepcopy(document)
    at(changed, place[:-1])[place[-1]] = value
    return changed


def others(case: Case, place: Place) -> Iterator[Any]:
    """Values that may not stand at a place."""
    value = at(case.document, place)
    yield from ({"?": {}}, [[]])
    if not case.mixed & set(place):
        yield 5 if isinstance(value, str) else "x"
    if not isinstance(value, dict | list):
        yield []
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield True
        if not case.nan & set(place):
            yield math.nan


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_amiss_is_named_at_its_place(case: Case, tmp_path: Path) -> None:
    record = case.read(case.document, tmp_path)
    if case.write is not None:
        assert plain(case.write(record)) == case.document

    def refused(document: Document, *names: object) -> None:
        with pytest.raises(case.error) as caught:
            case.read(document, tmp_path)
        assert "\n" not in str(caught.value)
        assert any(str(name) in str(caught.value) for name in names), caught.value

    for place in places(case.document):
        *above, last = place
        table = next((step for step in reversed(above) if isinstance(step, str)), "")
        for value in others(case, place):
            refused(with_value(case.document, place, value), last, table or last)
        if isinstance(last, int) or table in case.free - {"sources"}:
            continue
        if not {last, f"{table}.{last}"} & case.optional:
            less = copy.deepcopy(case.document)
            del at(less, tuple(above))[last]
            refused(less, last)
        if table != "sources":
            refused(with_value(case.document, (*above, "strange"), 1), "strange")


def test_every_edition_has_defaults_that_are_read() -> None:
    tables = shipped("training", "editions.toml")
    alike = [name for table in tables.values() for name in table.get("also", [])]
    assert {*tables, *alike} - {"other"} <= set(edition_names())
    assert len({*tables, *alike}) == len(tables) + len(alike)
