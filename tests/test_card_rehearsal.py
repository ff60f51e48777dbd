"""All parts of the command for a card, on this machine's CPU, with the packages they declare."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from alexsim_kernels.bench.card import packages
from alexsim_kernels.bench.card.parts import PARTS

ROOT = Path(__file__).parents[1]
IMPORTED = {"pillow": "PIL"}
"""Dependencies whose import is not called as they are."""
WITHOUT = """
import json, os, sys
from functools import partial
from importlib.machinery import PathFinder

absent, found = json.loads(os.environ["ABSENT"]).get(sys.orig_argv[-1], ()), PathFinder.find_spec
without = lambda name, *more: None if name in absent else found(name, *more)
PathFinder.find_spec = partial(without)  # no method, wherever it is put
"""
"""``sitecustomize`` of a part's process, which has no dependency but those it declares."""


def test_the_whole_of_it_is_rehearsed(tmp_path: Path) -> None:
    """Every part yields rows, nothing fails, and no part imports what it does not declare."""
    if not (ROOT / "alexsim").is_dir():
        pytest.skip("parts run from a checkout")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"\W", each.replace("-", "_"))[0] for each in project["dependencies"]]
    imports = {IMPORTED.get(name, name) for name in names}
    paths = [str(ROOT), *sys.path]
    absent = {part.module: sorted(imports - set(packages.needs(part, paths))) for part in PARTS}
    assert all("plotly" in each for each in absent.values())
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"} | {
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT / "kernels"))),
        "ABSENT": json.dumps(absent),
    }
    command = ("-m", "alexsim_kernels.bench.card", "--rehearse", "--out", tmp_path / "out")
    ran = subprocess.run(
        [sys.executable, *command],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    document = json.loads((tmp_path / "out" / "card.json").read_text())
    assert document["failed"] == [], ran.stdout
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [part["part"] for part in document["parts"]] == [part.name for part in PARTS]
    assert all(part["rows"] and not part["cut"] for part in document["parts"]), ran.stdout
    table = ran.stdout.rpartition("\n\n")[2]
    assert table.startswith("nothing failed\n")
    assert len(table) < 12_000
    tuned = json.loads((tmp_path / "out" / "tuned.json").read_text())
    assert all(table["tiles"] for table in tuned.values())
