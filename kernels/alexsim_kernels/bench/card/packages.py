"""Packages that parts need: installed, or in a folder beside, unpacked or as wheels."""

from __future__ import annotations

import ast
import platform
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

import alexsim_kernels
from alexsim_kernels.bench.card.parts import Part, distribution


def checkout() -> Path | None:
    """The folder that holds ``kernels``, ``alexsim`` and ``profiles``; None where installed."""
    root = Path(alexsim_kernels.__file__ or "").parents[2]
    return root if (root / "alexsim" / "__init__.py").is_file() else None


def search_path(folder: Path | None, temporary: Path) -> tuple[list[str], list[str]]:
    """Where children look first, and a line on each wheel that is of no use.

    Args:
        folder: packages and wheels, if there are some beside.
        temporary: an empty folder; what is installed stays, only what is not is put into it.
    """
    unpacked, linked = temporary / "unpacked", temporary / "packages"
    useless: list[str] = []
    paths = [root, root / "kernels", root / "profiles"] if (root := checkout()) else []
    if folder:
        for wheel in sorted(folder.glob("*.whl")):
            if _fits(wheel.stem):
                try:
                    with zipfile.ZipFile(wheel) as archive:
                        archive.extractall(unpacked)
                except (OSError, zipfile.BadZipFile) as error:
                    useless.append(f"{wheel.name} cannot be unpacked: {error}")
            else:
                useless.append(f"{wheel.name} is not for {_here()}")
        linked.mkdir()
        for source in (folder.absolute(), unpacked):
            for entry in source.iterdir() if source.is_dir() else ():
                name = entry.name.partition(".")[0]
                if entry.suffix != ".whl" and not _spec_origin(name, sys.path):
                    with suppress(FileExistsError):
                        (linked / entry.name).symlink_to(entry)
        paths.append(linked)
    return [str(path.absolute()) for path in paths], useless


def _spec_origin(name: str, paths: Sequence[str]) -> str | None:
    """The file of a package's code; None of one that is not there, or is a folder without code."""
    spec = PathFinder.find_spec(name, list(paths))
    return spec.origin if spec else None


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
    everywhere = [*paths, *sys.path]
    return (name for name in needs(part, everywhere) if not _spec_origin(name, everywhere))


def needs(part: Part, paths: Sequence[str]) -> tuple[str, ...]:
    """What the table says, and ``NEEDS`` of the module, which may lack what its import needs."""
    return tuple(dict.fromkeys((*part.needs, *_declared(part.module, paths))))


def _declared(module: str, paths: Sequence[str]) -> tuple[str, ...]:
    package, *names = module.split(".")
    if origin := _spec_origin(package, paths):
        path = Path(origin).parent.joinpath(*names).with_suffix(".py") if names else Path(origin)
        for statement in ast.parse(path.read_bytes()).body if path.is_file() else ():
            match statement:
                case (
                    ast.Assign(targets=[ast.Name(id="NEEDS")], value=ast.expr() as value)
                    | ast.AnnAssign(target=ast.Name(id="NEEDS"), value=ast.expr() as value)
                ):
                    return tuple(ast.literal_eval(value))
    return ()


def how_to_get(names: Sequence[str]) -> str:
    """The command that brings packages, on a machine that has an index."""
    where = f"--python-version 3.{sys.version_info.minor} --only-binary :all:"
    if sys.platform == "linux":
        kinds = (f"manylinux{kind}_{platform.machine()}" for kind in ("2014", "_2_28"))
        where += "".join(f" --platform {kind}" for kind in kinds)
    return f"pip download -d packages {where} {' '.join(map(distribution, names))}"
