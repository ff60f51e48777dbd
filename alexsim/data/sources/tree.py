"""Classes and splits as folders tell them, in a file system or in tars: one rule for both.

An image's class is the first folder below that of its split, or below the source if there are no
splits. Folders around all of these tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alexsim.data.sources.splits import SourceSplit, split_of_folder, split_words
from alexsim.errors import DataError

NO_FOLDER = "in no class folder"
BESIDE = "beside the folders of the splits"


class SplitAndClass(NamedTuple):
    """The split and class that an image's folders give it."""

    split: SourceSplit
    image_class: str
    """Empty where an image of a split lies in no folder of it."""
    reason: str = ""
    """Why it cannot be taken; empty if it can."""


@dataclass(slots=True)
class _Folder:
    """A folder with images in it or below."""

    folders: dict[str, _Folder] = field(default_factory=dict)
    images: int = 0
    """Those that lie in it, not below."""


def by_folders(
    paths: Sequence[str], by_rule: Mapping[str, SourceSplit], source: str
) -> Iterator[SplitAndClass]:
    """The split and class of every image.

    Args:
        paths: of the images, below the source.
        by_rule: splits of the folders that the user's rules name.
        source: name of the source, for messages.

    Raises:
        DataError: a folder's name has words of two splits, or every class has splits in it.
    """
    root = _tree(paths)
    around: list[str] = []
    while (only := _around(root, by_rule)) is not None:
        around.append(only)
        root = root.folders[only]
    splits = _splits(root, by_rule, "/".join((source, *around)))
    has_training = "train" in splits.values()
    depth = len(around)
    for path in paths:
        *folders, _ = path.split("/")
        if folders[:depth] != around:
            yield SplitAndClass("train", "", NO_FOLDER)
            continue
        inner = folders[depth:]
        split = splits.get(inner[0]) if inner else None
        if split is not None:
            missing = NO_FOLDER if split == "train" and len(inner) == 1 else ""
            yield SplitAndClass(split, inner[1] if len(inner) > 1 else "", missing)
        elif has_training:
            yield SplitAndClass("none", "", BESIDE)
        else:
            yield SplitAndClass("train", inner[0] if inner else "", "" if inner else NO_FOLDER)


def _tree(paths: Iterable[str]) -> _Folder:
    root = _Folder()
    known: dict[str, _Folder] = {"": root}
    for path in paths:
        place, _, _ = path.rpartition("/")
        if place not in known:
            at = root
            for name in place.split("/"):
                at = at.folders.setdefault(name, _Folder())
            known[place] = at
        known[place].images += 1
    return root


def _around(folder: _Folder, by_rule: Mapping[str, SourceSplit]) -> str | None:
    """The only folder in a folder, if it leads to several folders: it is around all of them."""
    if len(folder.folders) != 1:
        return None
    (name,) = folder.folders
    if name in by_rule or split_of_folder(name):
        return None
    inside = folder.folders[name]
    while len(inside.folders) == 1:
        ((next_name, deeper),) = inside.folders.items()
        if split_of_folder(next_name) or next_name in by_rule:
            return name
        inside = deeper
    return name if inside.folders else None


def _splits(
    folder: _Folder, by_rule: Mapping[str, SourceSplit], where: str
) -> dict[str, SourceSplit]:
    """Folders that are splits: those with folders of classes whose names say so.

    Among other classes, a folder with images alone is a class, whatever it is called.
    """
    splits = {name: split for name, split in by_rule.items() if name in folder.folders}
    named = {
        name: words
        for name in folder.folders
        if name not in splits and (words := split_words(name))
    }
    for name, words in named.items():
        if len(words) > 1 and folder.folders[name].folders:
            raise DataError(
                f"{where}/{name}: {' and '.join(sorted(words))} are both in its name; --split"
                f" {name}=train (or val, test, none) says which it is"
            )
    whole = {name: split for name in named if (split := split_of_folder(name))}
    rivals = folder.folders.keys() - splits.keys() - named.keys()
    for name, words in named.items():
        if len(words) == 1 and (folder.folders[name].folders or (name in whole and not rivals)):
            splits |= dict.fromkeys((name,), *words)
    if "train" in splits.values():
        # Beside a training split, images without class folders are those of another split.
        splits |= {name: split for name, split in whole.items() if split != "train"} | splits
    for name in folder.folders.keys() - splits.keys():
        inner = folder.folders[name].folders
        within = next(
            (n for n in inner if split_of_folder(n) == "train" and inner[n].folders), None
        )
        if within:
            raise DataError(f"{where}/{name} has {within}/ in it: give that folder")
    return splits
