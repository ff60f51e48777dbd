"""The first convolution's filters as a picture file, as figure 3 of the 2012 paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError
from alexsim.evaluate.explain import drawable
from alexsim.network.part import letter
from alexsim.report.pictures import FAINT, Canvas, Filters, enlarged, grid
from alexsim.train.weights import Weights

_ROOM, _GAP = 800, 40
"""Pixels that a column's filters are enlarged to, and around them."""
_TITLE, _HEADING, _FOOT = 56, 48, 44


def first_filters(weights: Weights) -> tuple[Filters, ...]:
    """The first convolution's filters, a record per column.

    Raises:
        AlexsimError: the first layer is no convolution over one or three channels.
    """
    network = load_network(weights.network)
    first = drawable(network)
    if first is None:
        raise AlexsimError(
            f"{network.name}: its first layer, {network.layers[0].name}, is no convolution over"
            " one or three channels, so its filters are no pictures"
        )
    return tuple(
        Filters(
            layer=first.name,
            column=letter(part.column),
            device=f"GPU {part.column}",
            weights=weights.state[f"{first.name}.{letter(part.column)}.weight"].numpy(),
        )
        for part in network.parts[0]
    )


def filters_picture(columns: Sequence[Filters], network: str) -> Image.Image:
    """The columns side by side, each under the name of its GPU."""
    blocks = [enlarged(grid(column.weights), _ROOM) for column in columns]
    across = sum(block.width + _GAP for block in blocks) + _GAP
    titles = _TITLE + (_HEADING if len(columns) > 1 else 0)
    canvas = Canvas(across, _GAP // 2 + titles + blocks[0].height + _FOOT)
    count, _, height, width = columns[0].weights.shape
    room = across - 2 * _GAP
    title = f"{columns[0].layer} of {network}: {len(columns) * count} filters of {height} x {width}"
    canvas.text(_GAP, _GAP // 2 + _TITLE // 2, title, size=36, room=room)
    left, top = _GAP, _GAP // 2 + titles
    for column, block in zip(columns, blocks, strict=True):
        if len(columns) > 1:
            canvas.text(left, top - _HEADING // 2, column.device, size=30, room=block.width, at="m")
        canvas.paste(block, left, top)
        left += block.width + _GAP
    foot = top + blocks[0].height + _FOOT // 2
    scale = "Each on its own scale; mid-grey is zero."
    if sum(not_finite(column) for column in columns):
        scale += " Magenta is NaN or infinite."
    canvas.text(_GAP, foot, scale, size=22, room=room, fill=FAINT)
    return canvas.image


def not_finite(column: Filters) -> int:
    """Filters of a column that have a weight which is not finite."""
    return int((~np.isfinite(column.weights).all(axis=(1, 2, 3))).sum())


def filters_note(columns: Sequence[Filters]) -> str:
    """A line on filters that are not finite; empty where all are."""
    count, every = sum(map(not_finite, columns)), sum(len(column.weights) for column in columns)
    return f"{count} of {every} filters are not finite: magenta is NaN or infinite" * bool(count)
