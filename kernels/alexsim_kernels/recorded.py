"""What kernels compiled to before, by what they are compiled from: ``compiled.csv``.

A row's key is a hash of a kernel's source and of all that it is specialised for: types, constants,
warps and stages, architecture, Triton's version. A kernel whose key is in the file needs no
compiler; one that was changed has another key. ``python -m alexsim_kernels.compiled --record``
writes the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import triton

from alexsim_kernels.code import KernelCode

_FILE = resources.files("alexsim_kernels") / "compiled.csv"
_KEY, _TRITON = "key", "triton"
_COLUMNS = (_TRITON, *(field.name for field in fields(KernelCode)), _KEY)


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


def recorded() -> dict[str, KernelCode]:
    """What this version of Triton is on record with, by key."""
    version = triton.__version__
    return {row[_KEY]: _code(row) for row in _rows() if row[_TRITON] == version}


def record(codes: Iterable[tuple[str, KernelCode]], arch: int) -> None:
    """Write what kernels compiled to for one architecture, in place of what this version of Triton
    was on record with; other versions and architectures stay."""
    version = triton.__version__
    rows = [row for row in _rows() if (row[_TRITON], row["arch"]) != (version, str(arch))]
    rows += [{_TRITON: version, _KEY: key, **asdict(code)} for key, code in codes]
    rows.sort(key=lambda row: (row[_TRITON], int(row["arch"])))
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = Path(str(_FILE))
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text.getvalue(), encoding="utf-8")
    beside.replace(path)


def _rows() -> list[dict[str, Any]]:
    if not _FILE.is_file():
        return []
    return list(csv.DictReader(io.StringIO(_FILE.read_text(encoding="utf-8"))))


def _code(row: Mapping[str, str]) -> KernelCode:
    values = {
        field.name: int(row[field.name]) if field.type == "int" else row[field.name]
        for field in fields(KernelCode)
    }
    return KernelCode(**values)  # type: ignore[arg-type]


def named(code: KernelCode, op: str, precision: str) -> KernelCode:
    """The same code as another op launches it."""
    return replace(code, op=op, precision=precision)
