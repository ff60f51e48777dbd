"""Python in the documentation is run, block by block, beside the files that it speaks of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny
import torch
from commands import here

import alexsim

DOCS = Path(__file__).parents[1] / "docs"
BLOCKS = {
    f"{path.stem}-{number}": text
    for path in sorted(DOCS.glob("*.md"))
    for number, text in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
}
OTHERS = {"data-0": "webdataset"}
"""Blocks that need a package which is no dependency of ours."""


@pytest.fixture(scope="module")
def place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a profile and weights, under the names that the documentation uses."""
    there = tmp_path_factory.mktemp("docs")
    base = ("--net", "lenet-5", "--batch", 8)
    run, profile = there / "runs" / "today", there / "profile.json"
    for words in (
        ("train", *base, "--data", folder, "--steps", 3, "--workers", 1, "-o", run),
        ("profile", *base, "--rounds", 1, "-o", profile),
    ):
        done = here(*words)
        assert done.returncode == 0, done.stderr
    tiny.write_weights(there, network="lenet-5").rename(there / "alexnet.safetensors")
    return there


@pytest.mark.parametrize("name", sorted(BLOCKS.keys() - OTHERS.keys()))
def test_a_block_runs(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    height = alexsim.network("lenet-5").input_shape
    exec(compile(BLOCKS[name], name, "exec"), {"images": torch.zeros(2, *height)})


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 8
    assert set(OTHERS) <= set(BLOCKS)
