"""Images in folders: ``<class>/*``, or that below ``train/`` beside ``val/`` or ``test/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alexsim.errors import DataError
from alexsim.train.packing.entries import IMAGE_ENDINGS, Entry, ending, entries, is_hidden
from alexsim.train.packing.rows import Row, Rows
from alexsim.train.packing.splits import (
    SourceSplit,
    SplitRules,
    refuse_idle_rules,
    split_of_folder,
    told,
)


def list_folders(root: Path, rules: SplitRules, found: Callable[[int], None]) -> Rows:
    """Every image below a folder; its class is the first folder below that of its split.

    Raises:
        DataError: a folder cannot be read, or a rule is of none.
    """
    rows = Rows(kind="files", source=root)
    folders = _folders(root)
    refuse_idle_rules(rules, root, folders)
    splits = _splits(root, folders, rules)
    for folder in folders:
        if folder in splits:
            for entry in entries(folder, rows.other):
                _add(rows, root, folder, entry, splits[folder])
                found(len(rows))
    beside = "train" in splits.values()
    for entry in entries(root, rows.other, without={folder.name for folder in splits}):
        if beside and not entry.reason:
            rows.skip(entry.name.partition("/")[0], "beside the folders of the splits")
        else:
            _add(rows, root, root, entry, "train")
        found(len(rows))
    return rows


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir())
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror}") from error


def _splits(root: Path, folders: list[Path], rules: SplitRules) -> dict[Path, SourceSplit]:
    """Folders that are splits. One that is called so may be a class, too: trains, say."""
    said = {folder: split for folder in folders if (split := told(rules, root, folder))}
    named = {
        folder: split
        for folder in folders
        if folder not in said and (split := split_of_folder(folder.name))
    }
    classes = [
        folder
        for folder in folders
        if folder not in named and folder not in said and not is_hidden(folder.name)
    ]
    # A split has folders of classes; a class among classes has images.
    training = {
        folder
        for folder, split in named.items()
        if split == "train" and not (classes and _has_images(folder))
    }
    has_training = bool(training) or "train" in said.values()
    others = {
        folder
        for folder, split in named.items()
        if split != "train" and (has_training or not _has_images(folder))
    }
    return said | {folder: named[folder] for folder in sorted(training | others)}


def _has_images(folder: Path) -> bool:
    return any(ending(path.name) in IMAGE_ENDINGS and path.is_file() for path in folder.iterdir())


def _add(rows: Rows, root: Path, folder: Path, entry: Entry, split: SourceSplit) -> None:
    top, inside, _ = entry.name.partition("/")
    reason = entry.reason
    if not inside and split == "train":
        reason = reason or "in no class folder"
    if reason:
        rows.skip((folder / entry.name).relative_to(root).as_posix(), reason, entry.images)
    else:
        rows.add(Row(str(folder), entry.name, top if inside else "", split=split))
