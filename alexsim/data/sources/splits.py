"""Which split a file or folder of a source is: as the user says, or by a whole word of its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from alexsim.errors import DataError

SourceSplit = Literal["train", "val", "test", "none"]
SOURCE_SPLITS: tuple[SourceSplit, ...] = get_args(SourceSplit)
_SPLIT_OF_WORD: dict[str, SourceSplit] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_WORDS = re.compile(r"[^\W\d_]+")

SplitRules = Sequence[tuple[str, SourceSplit]]
"""Patterns of names, as in ``interval-*.tar``, and the split that they are."""


def split_by_rules(rules: SplitRules, source: Path, path: Path) -> SourceSplit | None:
    """The split of the first of the user's rules that matches a file's or folder's name or path."""
    names = (path.name, path.relative_to(source).as_posix() if path != source else path.name)
    for pattern, split in rules:
        if any(fnmatchcase(name, pattern.rstrip("/")) for name in names):
            return split
    return None


def split_words(name: str) -> frozenset[SourceSplit]:
    """The splits whose words a name has between separators or digits."""
    words = _WORDS.findall(name.lower())
    return frozenset(_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD)


def split_of_folder(name: str) -> SourceSplit | None:
    """The split of a folder whose whole name is such a word, as in ``train``, ``val2017``."""
    words = _WORDS.findall(name.lower())
    if len(words) != 1 or name.startswith("."):
        return None
    return _SPLIT_OF_WORD.get(words[0])


def split_of_file(rules: SplitRules, source: Path, path: Path) -> SourceSplit:
    """The split of a tar or parquet file: by a word of its name, else by the folder it lies in.

    A name that has no such word as a whole (latest, interval-000, contest) is training's.

    Raises:
        DataError: the name has words of two splits.
    """
    if (ruled := split_by_rules(rules, source, path)) is not None:
        return ruled
    splits = split_words(path.stem)
    if path.name.lower().startswith("t10k-"):
        # MNIST's test images, ten thousand.
        splits = frozenset({"test"})
    if len(splits) > 1:
        raise DataError(
            f"{path}: {' and '.join(sorted(splits))} are both in its name; --split"
            f" {path.name}=train (or val, test, none) says which it is"
        )
    if splits:
        return next(iter(splits))
    inner = path.relative_to(source).parts[:-1] if path != source else ()
    for part in reversed(inner):
        if split := split_of_folder(part):
            return split
    return "train"


def refuse_idle_rules(rules: SplitRules, source: Path, paths: Sequence[Path]) -> None:
    """Every rule must match a file or a folder.

    Raises:
        DataError: a pattern matches nothing in the source.
    """
    for pattern, split in rules:
        if not any(split_by_rules([(pattern, split)], source, path) for path in paths):
            raise DataError(f"--split {pattern}={split}: there is no {pattern} in {source}")
