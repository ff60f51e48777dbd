"""Images in folders: ``<class>/*``, or that below ``train/`` beside ``val/`` or ``test/``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alexsim.data.sources.entries import Entry, entries, is_hidden
from alexsim.data.sources.rows import Row, Rows
from alexsim.data.sources.splits import SplitRules, refuse_idle_rules, split_by_rules
from alexsim.data.sources.tree import BESIDE, by_folders


def list_folders(root: Path, rules: SplitRules, progress: Callable[[int], None]) -> Rows:
    """Every image below a folder.

    Raises:
        DataError: a folder cannot be read, its split is not clear, or a rule matches nothing.
    """
    rows = Rows(kind="files", source=root)
    images: list[Entry] = []
    for entry in entries(root, rows.other):
        if entry.reason:
            rows.skip(entry.name, entry.reason, entry.images)
        else:
            images.append(entry)
        if len(images) % 1000 == 0:
            progress(len(images))
    paths = [entry.name for entry in images]
    folders = dict.fromkeys(
        root / "/".join(parts[: depth + 1])
        for place in dict.fromkeys(path.rpartition("/")[0] for path in paths)
        for parts in [place.split("/") if place else []]
        for depth in range(min(len(parts), 3))
        if not is_hidden(place)
    )
    refuse_idle_rules(rules, root, list(folders))
    by_rule = {
        folder.name: split for folder in folders if (split := split_by_rules(rules, root, folder))
    }
    for path, (split, image_class, reason) in zip(
        paths, by_folders(paths, by_rule, str(root)), strict=True
    ):
        if reason:
            rows.skip(path.partition("/")[0] if reason == BESIDE else path, reason)
        else:
            rows.add(Row(str(root), path, image_class, split=split))
    return rows
