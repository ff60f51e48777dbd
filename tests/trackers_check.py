"""Export a run to TensorBoard and to Weights & Biases, and read it back with their own packages.

    python tests/trackers_check.py RUN

Needs tensorboard and wandb, and a run of lenet-5 of six steps or more. Prints a line for each of
them; the first value that differs from the run's own files ends it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

TRAINED = {
    "train/loss": "loss", "train/top_1_error": "top1", "train/top_5_error": "top5",
    "time/step_s": "step_s", "time/data_wait_s": "data_wait_s",
}  # fmt: skip
TESTED = {f"held_out/{tag.partition('/')[2]}": key for tag, key in [*TRAINED.items()][:3]}
Values = dict[str, dict[int, float]]
"""By tag and step."""


def alexsim(*arguments: object) -> dict[str, Any]:
    """The document of a command."""
    words = [sys.executable, "-m", "alexsim", *map(str, arguments), "--json"]
    ran = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def prepared(run: Path, folder: Path) -> Path:
    """A copy of a run whose tests have all that there can be: layers, NaN, and infinity."""
    copy = folder / "a run"
    shutil.copytree(run, copy)
    file = copy / "metrics.jsonl"
    *steps, test = file.read_text().splitlines()
    last = json.loads(test)
    tested = {"loss": math.nan, "top1": 1.0, "top5": 1.0, "nan_images": 3, "epoch": 1, "images": 9}
    sizes = {"conv1": [0.125, 1e-9], "fc3": [math.inf, 1e39]}
    on_the_way = [{"step": at, "validation": tested, "layers": sizes} for at in (2, last["step"])]
    lines = [*steps[:2], *map(json.dumps, on_the_way[:1]), *steps[2:], json.dumps(on_the_way[1])]
    file.write_text("\n".join([*lines, test]) + "\n")
    return copy


def expected(run: Path) -> tuple[Values, int]:
    """Every value that the run's own files hold, and how many steps it had."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    profile = json.loads((run / "profile.json").read_text())
    values: Values = {}
    steps = 0
    for line in lines:
        at = line["step"]
        if "step_s" in line:
            steps += 1
            images_per_s = profile["batch_size"] / line["step_s"]
            values.setdefault("throughput/images_per_s", {})[at] = images_per_s
        scores = line.get("held_out") or line.get("validation")
        for tag, key in (TESTED if scores else TRAINED).items():
            values.setdefault(tag, {})[at] = (scores or line)[key]
        for layer, sizes in line.get("layers", {}).items():
            for tag, size in zip(("weight_mean_abs", "update_mean_abs"), sizes, strict=True):
                values.setdefault(f"{tag}/{layer}", {})[at] = size
    for device in profile["memory"]["devices"]:
        values[f"memory/{device['name']}_planned_bytes"] = {steps: device["planned_bytes"]}
    if profile["exchanges"]:
        exchanged = sum(each["bytes"] for each in profile["exchanges"])
        values["exchange/bytes_per_step"] = {steps: exchanged}
    values["predicted/step_s"] = {steps: profile["predicted_step_s"]}
    per_s = profile["batch_size"] / profile["predicted_step_s"]
    values["predicted/images_per_s"] = {steps: per_s}
    return values, steps


def same(theirs: Values, ours: Values, kind: type[np.floating[Any]]) -> None:
    """Raise AssertionError at the first value that is not the same number of this kind."""
    assert theirs.keys() == ours.keys(), theirs.keys() ^ ours.keys()
    for tag, values in ours.items():
        assert list(theirs[tag]) == list(values), tag
        for step, value in values.items():
            np.testing.assert_array_equal(kind(theirs[tag][step]), kind(value), f"{tag} at {step}")


def picture(data: bytes, weights: np.ndarray[Any, Any]) -> None:
    """Raise AssertionError unless the first filter is in the corner, on its own scale."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    times = int((pixels == 255).all((1, 2)).argmin())  # rows of the white edge
    _, _, height, width = weights.shape
    shown = pixels[times::times, times::times][:height, :width]
    first = weights[0].transpose(1, 2, 0)
    levels = np.broadcast_to(127.5 * (1 + first / np.abs(first).max()), shown.shape)
    np.testing.assert_allclose(shown, levels, atol=0.51)


def tensorboard(run: Path, folder: Path) -> int:
    """Check an export that was made twice, the first time while the run went on."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    file = run / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    first = alexsim("report", run, "--tensorboard", folder / "board")["exports"][0]
    file.write_text(whole)
    second = alexsim("report", run, "--tensorboard", folder / "board")["exports"][0]
    assert 0 < first["rows"] < second["rows"]
    assert second["place"] == str(folder / "board" / "a run")
    every = {"scalars": 0, "images": 0, "tensors": 0}
    events = EventAccumulator(second["place"], size_guidance=every).Reload()
    found = {
        tag: {event.step: event.value for event in events.Scalars(tag)}
        for tag in events.Tags()["scalars"]
    }
    values, steps = expected(run)
    same(found, values, np.float32)
    times = [event.wall_time for event in events.Scalars("train/loss")]
    apart = [b - a for a, b in pairwise(times)]
    np.testing.assert_allclose(apart, [*values["time/step_s"].values()][1:], atol=1e-5)
    (tag,) = events.Tags()["images"]
    (shown,) = events.Images(tag)
    assert (tag, shown.step) == ("filters/conv1.a", steps)
    picture(shown.encoded_image_string, filters(run))
    config = json.loads((run / "config.json").read_text())
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info
    assert started.group_name == "a run"  # not one with others of its settings
    told = started.hparams
    settings = config["settings"]
    assert told["batch_size"].number_value == settings["batch_size"]
    assert told["network"].string_value == settings["network"]
    rates = settings["recipe"]["stages"][0]
    assert told["recipe.stages[0].weight_rate"].number_value == rates["weight_rate"]
    assert told["recipe.stages[0].colour_noise"].WhichOneof("kind") == "bool_value"
    text = events.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text)["recipe"] == settings["recipe"]
    return sum(map(len, found.values()))


def filters(run: Path) -> np.ndarray[Any, Any]:
    """The first layer's weights."""
    return load_file(next(run.glob("*.safetensors")))["conv1.a.weight"]


def records(file: Path) -> Iterator[bytes]:
    """What W&B's transaction log holds: LevelDB's log format behind a header of 7 bytes."""
    data, at, parts = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def wandb(run: Path, folder: Path) -> int:
    """Check what an export keeps while it is offline."""
    from wandb.proto.wandb_internal_pb2 import Record

    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"}
    told = alexsim("report", run, "--wandb", "a-project")["exports"][0]
    (file,) = Path(told["place"]).glob("*.wandb")
    found: Values = {}
    config: dict[str, Any] = {}
    pictures, project, times = [], "", []
    for data in records(file):
        record = Record.FromString(data)
        if record.HasField("run"):
            project = record.run.project
            config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
            assert record.run.display_name == "a run"
        if not record.HasField("history"):
            continue
        step = record.history.step.num
        for item in record.history.item:
            key, *inner = item.nested_key
            value = json.loads(item.value_json)
            if key == "_timestamp":
                times.append(value)
            elif inner == ["path"]:
                pictures.append((key, step, value))
            elif not inner and not key.startswith("_"):
                # W&B writes what is no number as a text.
                found.setdefault(key, {})[step] = float(value)
    values, steps = expected(run)
    same(found, values, np.float64)
    apart = [b - a for a, b in pairwise(times)]
    np.testing.assert_allclose(apart, [*values["time/step_s"].values()][1:], atol=1e-5)
    ((tag, at, path),) = pictures
    assert (tag, at) == ("filters/conv1.a", steps)
    picture((file.parent / "files" / path).read_bytes(), filters(run))
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert project == "a-project"
    assert {key: config[key] for key in settings} == settings
    return sum(map(len, found.values()))


def main() -> int:
    """Check the run that is named on the command line."""
    np.seterr(over="ignore")  # 1e39 as float32 is infinity
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = prepared(Path(sys.argv[1]), folder)
        for never in ("torch", "tensorflow"):
            (folder / f"{never}.py").write_text("raise AssertionError('this is imported')")
        os.environ["PYTHONPATH"] = str(folder)
        for check in (tensorboard, wandb):
            print(f"{check.__name__}: {check(run, folder)} values, each as the run's files have it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
