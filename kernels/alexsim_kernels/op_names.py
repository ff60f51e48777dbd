"""Names of ops in a card's table, ``tables.Table["ops"]``: what was timed, by the numbers that it
is made of. Imports nothing heavy, so that plans can ask.

A name leaves out how many images an op works on: that is the row's, ``row(name, images)``. An op is
looked up in the row whose number is nearest to its own, by their ratio, the smaller of two that
are as near; a row with the bare name is of any number, and goes after all others. A product has one
name with and without the ReLU at its end, with and without what is added to its result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

Pass = Literal["forward", "grad_input", "grad_weight"]
Numbers = int | Sequence[int]
"""One number, or one per axis; one is the same for both."""
_IMAGES = ", images "


def row(name: str, images: int) -> str:
    """The key of what was timed for an op with so many images."""
    return f"{name}{_IMAGES}{images}"


def nearest(rows: Iterable[str], name: str, images: int) -> str | None:
    """The row for an op; None where there is none of its name."""
    best: tuple[float, int, str] | None = None
    for key in rows:
        of, _, number = key.partition(_IMAGES)
        if of != name or not (key == name or (number.isdecimal() and int(number))):
            continue
        far = abs(math.log(int(number) / images)) if number else math.inf
        best = min(best or (far, int(number or 0), key), (far, int(number or 0), key))
    return best and best[2]


def convolution(
    pass_: Pass,
    *,
    channels: int,
    extent: tuple[int, int],
    filters: int,
    taps: Numbers,
    stride: Numbers = 1,
    padding: Numbers = 0,
    groups: int = 1,
    precision: str = "fp32",
) -> str:
    """Of one column's convolution: ``[N, channels, *extent]`` by ``[filters, channels / groups,
    *taps]``. Its gradient of weights has that of biases with it."""
    return (
        f"convolution {pass_} {channels}x{_axes(extent)} to {filters} by {_axes(taps)}"
        f" stride {_axes(stride)} padding {_axes(padding)} groups {groups} {precision}"
    )


def linear(pass_: Pass, *, inputs: int, units: int, precision: str = "fp32") -> str:
    """Of a fully connected layer, ``[N, inputs]`` to ``[N, units]``; its gradient of weights, with
    that of biases, is stored as it is or added to a momentum."""
    return f"linear {pass_} {inputs} to {units} {precision}"


def pool(
    pass_: Pass, *, channels: int, extent: tuple[int, int], size: Numbers, stride: Numbers
) -> str:
    """Of a max-pool, whatever it does with ties."""
    return f"max-pool {pass_} {channels}x{_axes(extent)} {_axes(size)} stride {_axes(stride)}"


def norm(
    pass_: Pass,
    *,
    window: Literal["across", "over"],
    channels: int,
    extent: tuple[int, int],
    size: int,
) -> str:
    """Of a response norm ``across`` channels or ``over`` pixels."""
    return f"norm {window} {pass_} {channels}x{_axes(extent)} size {size}"


def norm_pool(
    pass_: Pass,
    *,
    channels: int,
    extent: tuple[int, int],
    size: int,
    window: Numbers,
    stride: Numbers,
) -> str:
    """Of a response norm across channels and its max-pool in one kernel; ``size`` is the norm's."""
    return (
        f"norm and max-pool {pass_} {channels}x{_axes(extent)} size {size}"
        f" {_axes(window)} stride {_axes(stride)}"
    )


def softmax(pass_: Pass, *, classes: int) -> str:
    """Of probabilities; ``grad_input`` is that of the mean cross entropy, by them and labels."""
    return f"softmax {pass_} {classes}"


def loss(*, classes: int) -> str:
    """Of cross entropies and top-1 and top-5 errors, by probabilities and labels."""
    return f"loss {classes}"


def dropout(*, units: int) -> str:
    """Of drawing the mask of a dropout over rows of units."""
    return f"dropout draw {units}"


def update(*, weights: int) -> str:
    """Of 2012's rule, for so many weights and their biases. It does not depend on images."""
    return f"update {weights}"


def _axes(value: Numbers) -> str:
    axes = (value, value) if isinstance(value, int) else value
    return "x".join(map(str, axes))
