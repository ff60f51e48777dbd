"""How images may be ordered and looked at; imports nothing, so that commands can name it."""

from __future__ import annotations

from typing import Literal

Order = Literal["shuffled", "shards", "file"]
"""Of training images: see ``alexsim.data.loader``."""
PackOrder = Literal["shuffled", "file"]
"""Of images in shards."""
Views = Literal[1, 10]
"""Crops that are asked of an image: its centre, or the corners too, and all mirrored."""
