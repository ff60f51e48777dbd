"""The ``state_dict`` in a file of PyTorch's, whatever stands around it and before its names.

A pickle can run code, so files are loaded with ``weights_only=True``, which takes tensors and plain
values only. Everything in a file has a name: its keys joined by dots, be they those of
dictionaries in one another (``state_dict``, ``model``) or parts of a tensor's own name
(``module.conv1.weight``). What stands before the network's names is their prefix.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors import SafetensorError
from safetensors.torch import load_file

from alexsim.errors import InterchangeError, unreadable

Words = tuple[str, ...]

# What wrapping a part of a model puts into the middle of its names.
_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Words of prefixes under which stand averages of weights, or what is as large as they are.
_COPIES = {"ema", "swa", "avg", "average", "averaged", "shadow", "teacher", "target"}
_COPIES |= {"momentum", "velocity", "grad", "grads", "gradients", "optim", "optimizer"}
_SHOWN = 4
# A zip or a pickle; a field of Caffe's NetParameter: name, layers, input or layer.
_TORCH, _CAFFE = (b"PK", b"\x80"), (b"\n", b"\x12", b"\x1a", b"\xa2")
_LONGEST_HEADER = 100_000_000
"""Bytes, in safetensors."""
# NumPy's numbers, as losses and rates often are: bytes and their type, no code.
_NUMBERS: list[Any] = [
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefdg"),
    *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_OTHERS = (
    (0, b"\x1f\x8b", "packed with gzip"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy's"),
    (0, b"version https://git-lfs", "a pointer of Git LFS"),
    (0, b"<", "HTML or XML"),
    (257, b"ustar", "a tar archive"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The tensors of a network in a file."""

    scheme: int
    """Which of the sets of names that were asked for."""
    tensors: dict[str, torch.Tensor]
    """As float32; with other tensors that stand among them."""
    prefix: str
    others: Words
    """Prefixes under which a whole network stands, too."""
    left_out: Words
    """What else is in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """A value that holds no others."""

    name: str
    words: Words
    container: int
    value: object


def choose(
    path: Path, network: str, schemes: Iterable[Iterable[str]], key: str | None = None
) -> Chosen:
    """The tensors of a network that have all names of one of ``schemes`` behind one prefix.

    Of several prefixes ``key`` says how it begins. Otherwise it is the first in the file that does
    not call itself a copy (an average, gradients), or the first.

    Raises:
        InterchangeError: the file cannot be read or would run code; no prefix has all names, or
            something among them is no tensor of real numbers.
    """
    loaded = (_safetensors if format_of(path) == "safetensors" else _pickled)(path)
    leaves = list(_leaves(loaded))
    tensors = [leaf for leaf in leaves if isinstance(leaf.value, torch.Tensor)]
    if not tensors or isinstance(loaded, torch.Tensor):
        held = listed([leaf.name for leaf in leaves])
        kind = f"a {type(loaded).__name__}" + (f" of {held}" if held else "")
        raise InterchangeError(f"{path} holds no state_dict but {kind}")
    if twice := [name for name, count in Counter(t.name for t in tensors).items() if count > 1]:
        raise InterchangeError(f"{path} holds two tensors of the name {twice[0]}")
    wanted = [tuple(scheme) for scheme in schemes]
    matches = [
        (scheme, prefix, named)
        for scheme, names in enumerate(wanted)
        for prefix, named in _by_prefix(tensors, names).items()
    ]
    complete = [match for match in matches if len(match[2]) == len(wanted[match[0]])]
    if not complete:
        why = _why_not(tensors, wanted, matches)
        raise InterchangeError(f"{path} does not fit {network}: {why}")
    prefixes = [".".join(prefix) for _, prefix, _ in complete]
    asked = [at for at, name in enumerate(prefixes) if f"{name}.".startswith(f"{key or name}.")]
    if not asked:
        places = " or ".join(map(under, prefixes))
        raise InterchangeError(f"{path} has no weights of {network} under {key!r}, but {places}")
    at = min(asked, key=lambda at: not _COPIES.isdisjoint(re.split(r"[._]", prefixes[at].lower())))
    scheme, prefix, named = complete[at]
    names = {leaf.name: name for name, leaf in named.items()}
    known = {leaf.name for _, _, other in complete for leaf in other.values()}
    # What else is in their dictionary may be layers that the network has not.
    containers = {leaf.container for leaf in named.values()}
    names |= {
        leaf.name: ".".join(leaf.words[len(prefix) :])
        for leaf in tensors
        if leaf.name not in known
        and leaf.container in containers
        and leaf.words[: len(prefix)] == prefix
    }
    known |= names.keys()
    left_out = (_first_apart(leaf.words, prefix) for leaf in leaves if leaf.name not in known)
    return Chosen(
        scheme=scheme,
        tensors={names[leaf.name]: _real(leaf, path) for leaf in tensors if leaf.name in names},
        prefix=prefixes[at],
        others=tuple(dict.fromkeys(name for name in prefixes if name != prefixes[at])),
        left_out=tuple(dict.fromkeys(left_out)),
    )


def format_of(path: Path) -> Literal["torch", "safetensors", "caffe"]:
    """What wrote a file: as its first bytes say, whatever its ending.

    Raises:
        InterchangeError: it cannot be read, or is of another format.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InterchangeError(f"cannot read {path}: {error.strerror or error}") from error
    if head.startswith(_TORCH):
        return "torch"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LONGEST_HEADER:
        return "safetensors"
    if head.startswith(_CAFFE) or path.suffix == ".caffemodel":
        return "caffe"
    kinds = (kind for at, magic, kind in _OTHERS if head[at:].startswith(magic))
    kind = next(kinds, "" if head else "empty")
    raise InterchangeError(
        f"{path} is {kind}{': ' if kind else ''}no file of torch.save, safetensors or Caffe"
    )


def under(prefix: str) -> str:
    """Where names are, in words."""
    return f"under {prefix!r}" if prefix else "at the top"


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _leaves(loaded: object) -> Iterator[_Leaf]:
    """Depth first; a container that stands in several places counts at the first alone."""
    stack, seen = [("", 0, loaded)], set()
    while stack:
        name, container, value = stack.pop()
        inside: Iterable[tuple[object, object]] | None = None
        if isinstance(value, Mapping):
            inside = value.items()
        elif isinstance(value, list | tuple):
            inside = enumerate(value)
        if inside is None:
            yield _Leaf(name=name, words=tuple(name.split(".")), container=container, value=value)
        elif id(value) not in seen:
            seen.add(id(value))
            before = f"{name}." if name else ""
            stack += [(f"{before}{key}", id(value), item) for key, item in inside][::-1]


def _by_prefix(tensors: Iterable[_Leaf], names: Iterable[str]) -> dict[Words, dict[str, _Leaf]]:
    """The tensors whose names end in one of ``names``, by the prefix before it."""
    ends: dict[str, list[tuple[str, Words]]] = {}
    for name in names:
        *_, last = words = tuple(name.split("."))
        ends.setdefault(last, []).append((name, words))
    prefixes: dict[Words, dict[str, _Leaf]] = {}
    for leaf in tensors:
        for name, words in ends.get(leaf.words[-1], ()):
            prefix = _before(leaf.words, words)
            if prefix is not None:
                prefixes.setdefault(prefix, {}).setdefault(name, leaf)
    return prefixes


def _before(words: Words, ending: Words) -> Words | None:
    """What stands before an ending, between whose words wrappers may stand; None without it."""
    at = len(words)
    for word in reversed(ending):
        while at and words[at - 1] != word and words[at - 1] in _WRAPPERS:
            at -= 1
        if not at or words[at - 1] != word:
            return None
        at -= 1
    return words[:at]


def _why_not(
    tensors: Sequence[_Leaf],
    wanted: Sequence[Words],
    matches: Sequence[tuple[int, Words, dict[str, _Leaf]]],
) -> str:
    if not matches:
        has = listed([leaf.name for leaf in tensors])
        return f"no name ends in {wanted[0][0]} (has: {has})"
    scheme, prefix, named = max(matches, key=lambda match: len(match[2]))
    missing = next(name for name in wanted[scheme] if name not in named)
    text = f"it has {next(iter(named))} {under('.'.join(prefix))}, but no {missing}"
    other = next((place for s, place, names in matches if s == scheme and missing in names), None)
    return text if other is None else f"{text}, which is {under('.'.join(other))}"


def _first_apart(words: Words, prefix: Words) -> str:
    """A name up to the word at which it leaves the prefix."""
    same = 0
    while words[same : same + 1] == prefix[same : same + 1] != ():
        same += 1
    return ".".join(words[: same + 1])


def _real(leaf: _Leaf, path: Path) -> torch.Tensor:
    value = leaf.value
    assert isinstance(value, torch.Tensor)
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        kind = "without values" if value.is_meta else f"a {value.dtype}"
        raise InterchangeError(f"{path}: {leaf.name} is no tensor of real numbers but {kind}")
    return value.detach().float()


def _pickled(path: Path) -> object:
    try:
        # PyTorch warns before it fails; a path it would judge by its ending.
        with (
            path.open("rb") as file,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_NUMBERS),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InterchangeError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        # PyTorch's message is a page on how to load it all the same.
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        fault = f"({named[1]})" if named else "or is damaged"
        raise InterchangeError(
            f"{path} holds more than tensors {fault}: only a state_dict is loaded, as no code in a"
            " file is run; whoever made it can save the state_dict alone"
        ) from error
    except Exception as error:
        # Bytes of another format may raise anything.
        first = re.split(r"\n|\. ", str(error))[0]
        raise InterchangeError(f"{path} is no file of torch.save: {first}") from error


def _safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InterchangeError(unreadable(path, error)) from error
