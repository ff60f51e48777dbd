"""How the CPU kernels are built: once, whole, and in one line where they cannot be."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexsim.command.run_options import chosen_backend
from alexsim.errors import AlexsimError
from alexsim_kernels.cpu import build

pytestmark = pytest.mark.usefixtures("cpu_kernels")
TINY = {"tiny.cpp": "SCALAR twice(SCALAR x) { return 2 * x; }\n"}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Sources of one short unit, and an empty cache."""
    sources = dict(TINY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "UNITS", ("tiny",))
    monkeypatch.setattr(build, "_sources", lambda: sources)
    return sources


def test_a_library_is_compiled_once_and_says_so(tiny: dict[str, str]) -> None:
    lines: list[str] = []
    path = build.build("float", lines.append)
    assert build.build("float", lines.append) == path
    assert len(lines) == 1
    assert lines[0].startswith("compiling the CPU kernels (float) with ")
    tiny["tiny.cpp"] += "// changed\n"
    assert build.build("float", lines.append) != path
    assert len(lines) == 2


def test_two_may_build_at_once(tiny: dict[str, str]) -> None:
    with ThreadPoolExecutor(2) as pool_:
        first, second = pool_.map(build.build, ("double", "double"))
    assert first == second
    assert os.listdir(first.parent) == [first.name]  # noqa: PTH208


def test_a_failing_compiler_is_one_line(tiny: dict[str, str]) -> None:
    tiny["tiny.cpp"] = "#error no vectors here\n"
    with pytest.raises(build.BuildError, match=r"do not compile: tiny.cpp:1:2: error: #error no"):
        build.build("float")


def test_without_a_compiler_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert build.available() == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    build._compiler.cache_clear()
    try:
        assert build.available() == "the CPU kernels need GCC's C++ compiler: no g++ on the path"
    finally:
        monkeypatch.undo()
        build._compiler.cache_clear()


def test_a_plan_needs_neither_torch_nor_a_compiler() -> None:
    script = (
        "import sys, alexsim_kernels.cpu.algorithm, alexsim_kernels.cpu.scratch;"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_our_kernels_are_the_backend_where_they_can_be_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    assert chosen_backend(None, "cpu", notes.append) == "native"
    assert chosen_backend("aten", "cpu", notes.append) == "aten"
    assert chosen_backend(None, "cuda", notes.append) == "aten"
    with pytest.raises(AlexsimError, match="--backend native is for CPUs"):
        chosen_backend("native", "cuda", notes.append)
    assert not notes

    def missing() -> None:
        raise build.BuildError("no g++ on the path")

    monkeypatch.setattr(build, "_loaded", {})
    monkeypatch.setattr(build, "_compiler", missing)
    assert chosen_backend(None, "cpu", notes.append) == "aten"
    assert len(notes) == 1
    assert "no g++ on the path" in notes[0]
    with pytest.raises(AlexsimError, match="--backend native: no g"):
        chosen_backend("native", "cpu", notes.append)
