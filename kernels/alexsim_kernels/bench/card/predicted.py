"""What was predicted of a card before it was measured, as it stands on record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable

from alexsim_kernels.bench.card.job import Job

_FOLDER = "baselines/predicted"


@dataclass(frozen=True, slots=True)
class Predicted:
    """Milliseconds by op, precision and batch; of a card that nobody predicted, none."""

    card: str = ""
    """The record's name, such as ``h200``."""
    times: Mapping[tuple[str, str, int | None], float] = field(default_factory=dict)

    @staticmethod
    def of(job: Job) -> Predicted:
        """Of the card that the job's ceilings name."""
        named = [row.detail for row in job.rows_of("ceilings") if row.op == "card" and row.detail]
        return predicted_of(str(named[0].get("name", ""))) if named else Predicted()

    def ms(self, op: str, precision: str = "", batch: int | None = None) -> float | None:
        """What an op was predicted to take; None where nobody did."""
        return self.times.get((op, precision, batch))


def predicted_of(card: str, folder: Traversable | None = None) -> Predicted:
    """The record that fits a card's name, as its driver has it (``NVIDIA H200``).

    A record's name must stand in it as words, so that no ``h200`` is a ``GH200``; of several, the
    longest counts.
    """
    records = {file.name.removesuffix(".json"): file for file in _records(folder)}
    for name in sorted(records, key=len, reverse=True):
        words = re.escape(name).replace(r"\-", "[- ]")
        if re.search(rf"\b{words}\b", card, re.IGNORECASE):
            rows = json.loads(records[name].read_text("utf-8"))["rows"]
            times = {
                (row["op"], row.get("precision", ""), row.get("batch")): row["predicted_ms"]
                for row in rows
                if row.get("predicted_ms") is not None
            }
            return Predicted(name, times)
    return Predicted()


def _records(folder: Traversable | None) -> list[Traversable]:
    """Files of predictions; none where they are not there, or not installed."""
    if folder is None:
        try:
            folder = files("alexsim_profiles").joinpath(_FOLDER)
        except ModuleNotFoundError:
            return []
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.name.endswith(".json")]
