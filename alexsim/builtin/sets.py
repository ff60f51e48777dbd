"""Which of the drawn sets a network is trained on where no images are given."""

from __future__ import annotations

from alexsim.builtin.digits import DIGITS
from alexsim.builtin.drawn import DrawnSet
from alexsim.builtin.textures import TEXTURES

SETS = (TEXTURES, DIGITS)


def set_for(channels: int) -> DrawnSet:
    """Digits for networks that read grey, textures for those that read colours."""
    return DIGITS if channels == 1 else TEXTURES


def set_in(folder: str) -> DrawnSet | None:
    """The set whose folder is called so; None if it is none of these versions'."""
    return next((drawn for drawn in SETS if drawn.folder == folder), None)
