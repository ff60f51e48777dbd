"""A run written for TensorBoard, by its own package: neither TensorFlow nor PyTorch is imported."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from typing import Any, BinaryIO

from alexsim.errors import RunError
from alexsim.files import unfinished
from alexsim.page.trackers.series import Series
from alexsim.report.pictures import png

_EVENTS = "events.out.tfevents.{}.alexsim"
"""The name that TensorBoard looks for; it reads a folder's files in the order of their times."""
_RGB = 3


def write(series: Series, folder: Path) -> str:
    """Write the run's event file, then drop what an earlier export left of it.

    Raises:
        RunError: the folder cannot be written.
    """
    name = _EVENTS.format(int(time.time()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished(folder / name) as beside, beside.open("wb") as file:
            write_events(series, file)
        for earlier in folder.glob(_EVENTS.format("*")):
            if earlier.name != name:
                earlier.unlink()
    except OSError as error:
        raise RunError(f"cannot write {folder}: {error.strerror}") from error
    return str(folder)


def write_events(series: Series, file: BinaryIO) -> None:
    """The format's version, the settings for two plugins (hparams and text), an event per step."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb
    from tensorboard.summary.writer.record_writer import RecordWriter

    writer = RecordWriter(file)

    def add(wall_s: float, **what: object) -> None:
        writer.write(Event(wall_time=wall_s, **what).SerializeToString())

    first_s = series.rows[0].wall_s
    add(first_s, file_version="brain.Event:2")
    # Without an id of its own, runs of the same settings would be shown as one.
    settings = hparams_pb(flat(series.settings), trial_id=series.name, start_time_secs=first_s)
    code = indent(json.dumps(series.settings, indent=2, allow_nan=False), " " * 4)  # in Markdown
    settings.MergeFrom(text_pb("config", code))
    add(first_s, summary=settings)
    for row in series.rows:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in row.values.items()]
        for tag, picture in row.pictures.items():
            width, height = picture.size
            image = Summary.Image(
                height=height, width=width, colorspace=_RGB, encoded_image_string=png(picture)
            )
            values.append(Summary.Value(tag=tag, image=image))
        add(row.wall_s, step=row.step, summary=Summary(value=values))


def flat(settings: Mapping[str, Any], place: str = "") -> dict[str, str | float | bool]:
    """Nested settings by their places, ``recipe.stages[0].weight_rate``; null is left out."""
    leaves: dict[str, str | float | bool] = {}
    for key, value in settings.items():
        name = f"{place}.{key}" if place else key
        if isinstance(value, list):
            value = {f"[{index}]": each for index, each in enumerate(value)}
        if isinstance(value, Mapping):
            leaves |= {leaf.replace(".[", "["): held for leaf, held in flat(value, name).items()}
        elif value is not None:
            leaves[name] = value
    return leaves
