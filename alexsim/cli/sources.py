"""Options of commands that read a source of images: how, where it does not tell itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from alexsim.command.fields import Options, option
from alexsim.data.sources.classes import LabelScheme
from alexsim.errors import AlexsimError

if TYPE_CHECKING:
    from alexsim.data.sources.source import SourceChoices


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """How a source of images is read."""

    names: Path | None = option(
        "FILE",
        "Names of classes, as in LOC_synset_mapping.txt. Default: such a file beside the data.",
    )
    val_labels: Path | None = option(
        "FILE",
        "Labels of the validation images, wherever these lie: a line for each, with its name, as in"
        " LOC_val_solution.csv, or without, in the order of their names. Default: a file beside the"
        " data, where images lie in no class folder.",
    )
    label_scheme: LabelScheme | None = option(
        "SCHEME",
        "What those labels are: `names` of classes (WordNet ids, say; the default), the `words`"
        " they are called, `ilsvrc`: ILSVRC's own ids, by its development kit, or places among the"
        " classes, `0-based` or `1-based`.",
    )
    split: list[str] | None = option(
        "NAME=SPLIT",
        "Files or folders of this name, as in 'interval-*.tar=train', are `train`, `val`, `test` or"
        " `none`. Default: by a whole word of the name; else train.",
    )
    image: str = option(
        "ENDING",
        "Of WebDataset samples with several images take these, as in left.jpg. Default: jpg, jpeg,"
        " png, webp, then others; a plain ending before one with a dot.",
        "",
    )

    def choices(self) -> SourceChoices:
        """How to read a source.

        Raises:
            AlexsimError: a split is none of those there are.
        """
        from alexsim.data.sources.source import SourceChoices
        from alexsim.data.sources.splits import SourceSplit

        rules: list[tuple[str, SourceSplit]] = []
        for text in self.split or ():
            pattern, equals, named = text.rpartition("=")
            if not equals or not pattern:
                raise AlexsimError(f"--split must be NAME=SPLIT, as in val.tar=train; got {text!r}")
            splits: tuple[SourceSplit, ...] = get_args(SourceSplit)
            if named not in splits:
                raise AlexsimError(
                    f"--split {pattern}= must be one of {', '.join(splits)}; got {named!r}"
                )
            rules += [(pattern, split) for split in splits if split == named]
        return SourceChoices(
            names=self.names,
            labels=self.val_labels,
            scheme=self.label_scheme,
            splits=tuple(rules),
            image=self.image.removeprefix("."),
        )
