"""Builds the kernels for this machine, once: C++ by GCC into the user's cache, in seconds.

The folder's name is a hash of everything that the result depends on: sources, generated code,
flags, the compiler's version and the processor's features. A library is written beside its place
and renamed, so that two processes may build at once. Its threads are those of the OpenMP library
that torch has loaded: GNU's, which is why the compiler must be GCC, and torch imported first.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

import platformdirs
import torch  # noqa: F401  first: the library must find its OpenMP

from alexsim_kernels.cpu.transforms import header

Scalar = Literal["float", "double"]
UNITS = (
    "product", "winograd", "winograd_weight", "direct", "indirect", "indirect_weight", "pool",
    "norm", "batch_norm", "linear", "linear_bf16", "relu", "upload",
)  # fmt: skip
"""Translation units, compiled side by side."""
_FLOAT_ONLY = {"linear_bf16"}
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC",
    # Products and sums contract; NaN and infinity stay what they are.
    "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
_SECONDS = 300


class BuildError(RuntimeError):
    """The kernels cannot be built here; the message is one line that says why."""


def available() -> str:
    """Why there are no kernels of this package here, in one line; empty if they can be had.

    Builds nothing: a compiler that is there may still fail, which ``library`` reports.
    """
    try:
        _compiler()
    except BuildError as error:
        return str(error)
    return ""


def bf16_available() -> str:
    """Why there are no products of bfloat16 here, in one line; empty if they can be had.

    Builds nothing: asks the compiler what this processor has.
    """
    if why_not := available():
        return why_not
    return "" if _knows_bf16() else _NO_BF16


_NO_BF16 = (
    "bf16 needs a processor with AVX512_BF16, and a compiler that knows it:"
    " g++ -march=native finds none here"
)


@cache
def _knows_bf16() -> bool:
    macros = subprocess.run(
        [_compiler()[0], *FLAGS, "-dM", "-E", "-x", "c++", os.devnull],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "__AVX512BF16__" in macros.stdout


def library(scalar: Scalar, progress: Callable[[str], None] | None = None) -> ctypes.CDLL:
    """The kernels for one type, built if they are not in the cache.

    Args:
        scalar: ``float`` or ``double``.
        progress: called with one line before anything is compiled.

    Raises:
        BuildError: there is no compiler, or it fails.
    """
    made = _loaded.get(scalar)
    if made is None:
        made = _loaded[scalar] = ctypes.CDLL(str(build(scalar, progress)))
    return made


_loaded: dict[str, ctypes.CDLL] = {}


def build(scalar: Scalar, progress: Callable[[str], None] | None = None) -> Path:
    """Path of the library in the cache, compiled if it is not there.

    Raises:
        BuildError: there is no compiler, it fails, or the cache cannot be written.
    """
    compiler, version = _compiler()
    sources = _sources()
    key = hashlib.sha256()
    for part in (*sources.values(), *FLAGS, version, _processor(), scalar):
        key.update(part.encode() + b"\0")
    name = f"{scalar}-{key.hexdigest()[:20]}.so"
    try:
        folder = Path(platformdirs.user_cache_path("alexsim")) / "cpu-kernels"
        target = folder / name
        if target.exists():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        if progress is not None:
            progress(f"compiling the CPU kernels ({scalar}) with {version.splitlines()[0]}")
        with tempfile.TemporaryDirectory(prefix="alexsim-") as work:
            for file, text in sources.items():
                (Path(work) / file).write_text(text, encoding="utf-8")
            _compile(compiler, scalar, Path(work), name)
            # Beside its place first: it appears whole, whoever else builds it.
            handle, beside = tempfile.mkstemp(prefix=name, dir=folder)
            os.close(handle)
            shutil.copyfile(Path(work) / name, beside)
        Path(beside).replace(target)
    except OSError as error:
        raise BuildError(f"cannot write the CPU kernels: {error}") from error
    return target


def _compile(compiler: str, scalar: Scalar, work: Path, name: str) -> None:
    flags = [*FLAGS, f"-DSCALAR={scalar}"]
    units = [unit for unit in UNITS if scalar == "float" or unit not in _FLOAT_ONLY]
    jobs = [
        subprocess.Popen(
            [compiler, *flags, "-c", f"{unit}.cpp", "-o", f"{unit}.o"],
            cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for unit in units
    ]  # fmt: skip
    errors = []
    for job in jobs:
        try:
            _, text = job.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            job.kill()
            _, text = job.communicate()
            text = f"{compiler} took longer than {_SECONDS} s\n{text}"
        if job.returncode:
            errors.append(text)
    if not errors:
        linked = subprocess.run(
            [compiler, *FLAGS, "-shared", *(f"{unit}.o" for unit in units), "-o", name],
            cwd=work, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if linked.returncode:
            errors.append(linked.stderr)
    if errors:
        raise BuildError(f"the CPU kernels do not compile: {_first_error(errors[0])}")


def _first_error(text: str) -> str:
    lines = text.strip().splitlines() or ["the compiler says nothing"]
    return next((line for line in lines if "error" in line), lines[0])


@cache
def _compiler() -> tuple[str, str]:
    """Path and version of a C++ compiler that is GCC.

    Raises:
        BuildError: there is none.
    """
    if platform.system() != "Linux":
        raise BuildError(f"the CPU kernels are built on Linux only, this is {platform.system()}")
    for name in filter(None, (os.environ.get("CXX"), "g++", "c++")):
        path = shutil.which(name)
        if path is None:
            continue
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if "Free Software Foundation" in told.stdout:
            return path, told.stdout
    raise BuildError("the CPU kernels need GCC's C++ compiler: no g++ on the path")


def _sources() -> dict[str, str]:
    folder = files("alexsim_kernels.cpu")
    made = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith((".cpp", ".h"))
    }
    return {**made, "transforms.h": header()}


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    words = ("model name", "flags", "Features", "CPU part")
    lines = {line for line in text.splitlines() if line.startswith(words)}
    return "\n".join([platform.machine(), *sorted(lines)])
