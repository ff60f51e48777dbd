"""Traced modules, kept in the user's cache: tracing takes seconds, and the same module comes again.

The key is the content of everything that a trace depends on: the module's tree with its settings
and the shapes of its tensors, every source file that is loaded and belongs to no installed package,
and the versions of what is installed. Weights are in no trace.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import nn

from alexsim import interchange
from alexsim.errors import AlexsimError, NetworkError
from alexsim.files import write_whole
from alexsim.network import layers as kinds
from alexsim.network.layers import Layer, Shape
from alexsim.network.network import Network
from alexsim.typed import read

_PLAIN = (str, int, float, bool, type(None))
_INTERNAL = frozenset(vars(nn.Module()))
"""What every module has: children, tensors and hooks, which are compared as such."""
_HOOKS = frozenset(name for name in _INTERNAL if name.endswith("_hooks"))


class _UnknownError(Exception):
    """A setting that cannot be compared from one process to another."""


def key_of(module: nn.Module, input_shape: Shape, head_weights: Sequence[float] | None) -> str:
    """Digest of all that the trace of a module depends on; empty where that cannot be known."""
    digest = hashlib.sha256(repr((torch.__version__, input_shape, head_weights)).encode())
    try:
        for line in (*_tree(module), *_sources(module)):
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    except _UnknownError:
        return ""
    return digest.hexdigest()


def _tree(module: nn.Module) -> Iterator[str]:
    for name, child in module.named_modules(remove_duplicate=False):
        kind = type(child)
        mode = child.training or not module.training
        yield f"{name} {kind.__module__}.{kind.__qualname__} {mode}"
        for key, value in sorted(vars(child).items()):
            if key in _HOOKS:
                yield f" {key}={_setting(list(value.values()))}"
            elif key not in _INTERNAL:
                yield f" {key}={_setting(value)}"
    first: dict[int, str] = {}
    for name, tensor in _named_tensors(module):
        # Two names may be of one tensor.
        alias = first.setdefault(id(tensor), name)
        yield f"{name} {alias} {tuple(tensor.shape)} {tensor.dtype} {tensor.requires_grad}"


def _named_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _setting(value: Any) -> str:
    """A value as a text that is the same wherever the value is.

    Raises:
        _UnknownError: there is none.
    """
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_setting, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_setting(key)}: {_setting(held)}" for key, held in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, nn.Module):
        return f"{type(value).__qualname__} [{', '.join(_tree(value))}]"
    code = getattr(value, "__code__", None)
    if code is not None:
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        place = (code.co_filename, code.co_firstlineno, value.__defaults__)
        return f"{value.__qualname__} {_setting(place)} {_setting(held)}"
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception as error:  # objects may raise anything
        if settings := getattr(value, "__dict__", None):
            return f"{type(value).__qualname__} {_setting(settings)}"
        raise _UnknownError from error


def _sources(module: nn.Module) -> Iterator[str]:
    """Files of the user's that are loaded, and versions of the packages that have the classes."""
    installed = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib"))
    names = {type(child).__module__ for child in module.modules()}
    for name, loaded in sorted(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        ours = name.partition(".")[0] in ("alexsim", "alexsim_kernels", "alexsim_profiles")
        if file and file.endswith(".py") and not ours and not file.startswith(installed):
            yield f"{file} {_digest(file)}"
    for file in sorted({_file_of(child) for child in module.modules()}):
        yield f"{file} {_digest(file)}"
    for package in sorted({name.partition(".")[0] for name in names}):
        yield f"{package} {getattr(sys.modules.get(package), '__version__', '')}"
    for path in sorted(Path(interchange.__path__[0]).glob("*.py")):
        yield f"{path.name} {_digest(str(path))}"


def _file_of(module: nn.Module) -> str:
    """Where the code of a module's ``forward`` stands: a file that was run has no entry among the
    loaded modules."""
    return (
        type(module).forward.__code__.co_filename
        if hasattr(type(module).forward, "__code__")
        else ""
    )


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return "none"


def _place(key: str) -> Path:
    return user_cache_path("alexsim") / "traced" / f"{key}.json"


def save(key: str, network: Network) -> None:
    """Keep a network without its module; where that cannot be written, it is traced again."""
    if not key:
        return
    document = {
        "name": network.name,
        "input_shape": network.input_shape,
        "frozen": sorted(network.frozen),
        "keys": dict(network.keys),
        "layers": [_written(layer) for layer in network.layers],
    }
    try:
        place = _place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps(document, allow_nan=False).encode())
    except (OSError, AlexsimError):
        return


def load(key: str) -> Network | None:
    """The network that was kept; None if there is none, or it cannot be read."""
    if not key:
        return None
    try:
        document = json.loads(_place(key).read_text("utf-8"))
        return Network(
            name=document["name"],
            input_shape=tuple(document["input_shape"]),
            frozen=frozenset(document["frozen"]),
            keys=document["keys"],
            layers=tuple(_read(layer) for layer in document["layers"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, NetworkError):
        return None


def _written(layer: Layer) -> dict[str, Any]:
    """A layer's kind, and what of it is not its default."""
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}
    usual = {field.name: field.default for field in fields(layer) if field.default is not MISSING}
    return {"kind": type(layer).__name__} | {
        name: value for name, value in values.items() if name not in usual or value != usual[name]
    }


@cache
def _kinds() -> dict[str, type[Layer]]:
    return {name: getattr(kinds, name) for name in kinds.__all__ if name[0].isupper()}


def _read(given: dict[str, Any]) -> Layer:
    kind = _kinds()[given.pop("kind")]
    return read(kind, given, "a traced network", NetworkError)
