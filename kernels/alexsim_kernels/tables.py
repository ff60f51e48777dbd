"""What was measured on a card and is chosen by: the fastest tiles of products, and whose kernels
run an op faster. Imports neither torch nor triton, so that plans can read it.

Two files hold it: ``tuned.json`` in the package, and ``kernels.json`` in the user's cache folder,
which goes first. A card's name has the version of Triton that compiled for it: see ``card_name``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypedDict

Tile = Mapping[str, Any]
"""Fields of ``alexsim_kernels.common.Config``."""


class Times(TypedDict):
    """Medians of an op: by our Triton kernel, and by PyTorch's function, in milliseconds."""

    triton_ms: float
    aten_ms: float


class Table(TypedDict, total=False):
    """Of one card: tiles by the names of products, times by the names of ops."""

    tiles: dict[str, Tile]
    ops: dict[str, Times]


def card_name(device: str, triton: str) -> str:
    """The name of a device with a version of Triton."""
    return f"{device}, triton {triton}"


def tiles(card: str) -> dict[str, Tile]:
    """The fastest tiles that are known for a card."""
    return _both(card, "tiles")


def ops(card: str) -> dict[str, Times]:
    """Times of ops that are known for a card."""
    return _both(card, "ops")


def own_ops(card: str) -> dict[str, Times]:
    """Those of them that the user measured."""
    return dict(_cached(str(cache_file())).get(card, {}).get("ops", {}))


def _both(card: str, kind: str) -> dict[str, Any]:
    shipped, cached = _shipped().get(card, {}), _cached(str(cache_file())).get(card, {})
    return {**shipped.get(kind, {}), **cached.get(kind, {})}  # type: ignore[dict-item]


def cache_file() -> Path:
    """Where ``keep`` writes."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "alexsim" / "kernels.json"


def keep(card: str, table: Table, path: Path | None = None) -> None:
    """Add to what a file holds for a card, in place of what it held by these names.

    Raises:
        OSError: it cannot be written.
    """
    path = path or cache_file()
    known: dict[str, Any] = {name: dict(kept) for name, kept in _cached(str(path)).items()}
    of_card = known.setdefault(card, {})
    for kind, values in table.items():
        of_card[kind] = {**of_card.get(kind, {}), **values}  # type: ignore[dict-item]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            json.dump(known, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _cached.cache_clear()


@cache
def _cached(path: str) -> dict[str, Table]:
    try:
        return _checked(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # a cache that cannot be read is made anew


@cache
def _shipped() -> dict[str, Table]:
    return _checked(
        json.loads((files("alexsim_kernels") / "tuned.json").read_text(encoding="utf-8"))
    )


def _checked(document: Any) -> dict[str, Table]:
    """As it should be.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(document, dict) or not all(
        isinstance(table, dict)
        and table.keys() <= {"tiles", "ops"}
        and all(
            isinstance(named, dict) and all(isinstance(value, dict) for value in named.values())
            for named in table.values()
        )
        and all(
            isinstance(times.get(name), int | float)
            for times in table.get("ops", {}).values()
            for name in Times.__annotations__
        )
        for table in document.values()
    ):
        raise ValueError("tables of cards must hold tiles and ops by their names")
    return document
