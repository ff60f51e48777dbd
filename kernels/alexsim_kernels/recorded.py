"""What kernels compiled to before, by what they are compiled from: ``compiled.csv``, and of
candidates ``candidates.csv``.

A row's key is a hash of a kernel's source and of all that it is specialised for: types, constants,
warps and stages, architecture, Triton's version. A kernel whose key is in the file needs no
compiler; one that was changed has another key. ``python -m alexsim_kernels.compiled --record`` and
``.candidates_record`` write the files.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import triton

from alexsim_kernels.code import KernelCode


@dataclass(frozen=True, slots=True)
class Record:
    """A file of the package, and its columns beside those of every kernel."""

    name: str
    columns: tuple[str, ...] = ()

    @property
    def file(self) -> Traversable:
        """Where it lies."""
        return resources.files("alexsim_kernels") / self.name


COMPILED = Record("compiled.csv")
"""Every kernel as an op of AlexNet launches it."""
CANDIDATES = Record("candidates.csv", ("product", "tile"))
"""Candidates of convolutions: the product's name, and the tile as JSON."""
_KEY, _TRITON = "key", "triton"


def key_of(function: Any, compiling: Mapping[str, Any]) -> str:  # Triton's own objects
    """The key of a kernel about to be compiled.

    Args:
        function: the ``JITFunction``.
        compiling: what Triton's ``jit_cache_hook`` is given as ``compile``.
    """
    special = json.loads(compiling["specialization_data"])
    # Libraries lie where Triton is installed, which is another path everywhere.
    special["options"]["extern_libs"] = [name for name, _ in special["options"]["extern_libs"]]
    content = [triton.__version__, function.cache_key, special]
    text = json.dumps(content, sort_keys=True, default=str, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def recorded(of: Record) -> dict[str, KernelCode]:
    """What this version of Triton is on record with, by key."""
    version = triton.__version__
    return {row[_KEY]: code_of(row) for row in rows(of) if row[_TRITON] == version}


def record(
    of: Record, codes: Iterable[tuple[str, KernelCode, Mapping[str, str]]], arch: int
) -> None:
    """Write what kernels compiled to for one architecture, in place of what this version of Triton
    was on record with; other versions and architectures stay.

    Args:
        of: which record.
        codes: each kernel's key and code, and the record's further columns.
        arch: the architecture.
    """
    version = triton.__version__
    kept = [row for row in rows(of) if (row[_TRITON], row["arch"]) != (version, str(arch))]
    kept += [{_TRITON: version, _KEY: key, **asdict(code), **more} for key, code, more in codes]
    kept.sort(key=lambda row: (row[_TRITON], int(row["arch"])))
    names = (field.name for field in fields(KernelCode))
    text = io.StringIO()
    writer = csv.DictWriter(text, (_TRITON, *of.columns, *names, _KEY), lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    path = Path(str(of.file))
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text.getvalue(), encoding="utf-8")
    beside.replace(path)
    rows.cache_clear()


@cache
def rows(of: Record) -> list[dict[str, Any]]:
    """All rows of a record, by the names of its columns."""
    if not of.file.is_file():
        return []
    return list(csv.DictReader(io.StringIO(of.file.read_text(encoding="utf-8"))))


def code_of(row: Mapping[str, str]) -> KernelCode:
    """The code that a row holds."""
    values = {
        field.name: int(row[field.name]) if field.type == "int" else row[field.name]
        for field in fields(KernelCode)
    }
    return KernelCode(**values)  # type: ignore[arg-type]


def named(code: KernelCode, op: str, precision: str) -> KernelCode:
    """The same code as another op launches it."""
    return replace(code, op=op, precision=precision)
