"""Packages that parts need: installed, or in a folder beside, unpacked or as wheels."""

from __future__ import annotations

import platform
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

import alexsim_kernels
from alexsim_kernels.bench.card.parts import DISTRIBUTIONS, Part


def checkout() -> Path | None:
    """The folder that holds ``kernels``, ``alexsim`` and ``profiles``; None where installed."""
    root = Path(alexsim_kernels.__file__ or "").parents[2]
    return root if (root / "alexsim" / "__init__.py").is_file() else None


def search_path(folder: Path | None, unpacked: Path) -> tuple[list[str], list[str]]:
    """Where children look first, and a line on each wheel that is of no use.

    Args:
        folder: packages and wheels, if there are some beside.
        unpacked: an empty folder for what is in the wheels.
    """
    paths: list[Path] = []
    useless: list[str] = []
    if folder:
        for wheel in sorted(folder.glob("*.whl")):
            if not _fits(wheel.stem):
                useless.append(f"{wheel.name} is not for {_here()}")
                continue
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(unpacked)
            except (OSError, zipfile.BadZipFile) as error:
                useless.append(f"{wheel.name} cannot be unpacked: {error}")
            else:
                paths = [unpacked]
        paths.append(folder)
    if root := checkout():
        paths += [root, root / "kernels", root / "profiles"]
    return [str(path.absolute()) for path in paths], useless


def _here() -> str:
    return f"Python 3.{sys.version_info.minor} on {sys.platform} {platform.machine()}"


def _fits(stem: str) -> bool:
    """Whether a wheel's tags are of this interpreter: ``name-version-python-abi-platform``."""
    pythons, abi, platforms = ([""] * 3 + stem.split("-"))[-3:]
    minor = sys.version_info.minor
    for_python = any(
        python in ("py3", f"py3{minor}", f"cp3{minor}")
        or (abi == "abi3" and python[:3] == "cp3" and int(python[3:] or 0) <= minor)
        for python in pythons.split(".")
    )
    return for_python and any(
        place == "any" or (place.startswith(_PLATFORMS.get(sys.platform, "?")) and _machine(place))
        for place in platforms.split(".")
    )


_PLATFORMS = {"linux": ("linux", "manylinux"), "darwin": ("macosx",)}


def _machine(place: str) -> bool:
    return place.endswith((platform.machine(), "universal2"))


def missing(part: Part, paths: Sequence[str]) -> Iterator[str]:
    """Packages that a part needs and that are not here, by the names that they are imported by."""
    for name in part.needs:
        spec = PathFinder.find_spec(name, list(paths)) or find_spec(name)
        # A folder without code is taken for a package too.
        if spec is None or spec.origin is None:
            yield name


def how_to_get(names: Sequence[str]) -> str:
    """The command that brings packages, on a machine that has an index."""
    distributions = [DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in names]
    where = f"--python-version 3.{sys.version_info.minor} --only-binary :all:"
    if sys.platform == "linux":
        kinds = (f"manylinux{kind}_{platform.machine()}" for kind in ("2014", "_2_28"))
        where += "".join(f" --platform {kind}" for kind in kinds)
    return f"pip download -d packages {where} {' '.join(distributions)}"
