"""What a network sees in single images: its guesses, and the filters that they excite.

Images are the user's files: a file that cannot be read is named, and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alexsim.data.choices import Views
from alexsim.data.dataset import Sample
from alexsim.data.images import load_crops
from alexsim.data.loader import crop_of
from alexsim.data.slots import Pixels
from alexsim.data.statistics import Floats
from alexsim.editions.load import load_network
from alexsim.errors import DataError
from alexsim.evaluate.evaluate import Done, answers, forward
from alexsim.evaluate.setup import Setup
from alexsim.names import name_text
from alexsim.network.layers import Convolution, pair
from alexsim.network.network import Network
from alexsim.network.part import letter, square_side
from alexsim.train.weights import Weights

STRONGEST = 5
"""Filters that are shown of an image."""
NO_CLASS = -1
"""Label of an image whose class is not known."""
_OUTSIDE = 128
"""Grey level where a window hangs over the image's edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image as the network sees it."""

    sample: Sample
    crop: Pixels
    """Its centre, ``[side, side, channels]``, before normalisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A filter of the first convolution, and where in an image it is excited most."""

    layer: str
    column: str
    filter: int
    """Its number within its column, from 0."""
    activation: float
    """The convolution's output there, bias included, before ReLU."""
    top: int
    left: int
    """Corner of its window in the centre crop; negative where that hangs over the edge."""
    patch: Pixels
    """The image in that window, ``[size, size, channels]``; grey outside of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A network's answer to one image."""

    picture: Picture
    probabilities: Floats
    """Of every class that the network knows, averaged over the views; perhaps NaN."""
    elsewhere: float
    """Probability of the outputs that have no class."""
    strongest: tuple[Response, ...]
    """The filters that respond most; empty if not asked for, or if filters cannot be drawn."""


def labelled(paths: Sequence[Path], classes: Sequence[str]) -> list[Sample]:
    """Files as samples; a file that lies in a folder named as a class is of that class."""
    place = {name: number for number, name in enumerate(classes)}
    return [
        Sample(path=str(path), label=place.get(name_text(path.absolute().parent.name), NO_CLASS))
        for path in paths
    ]


def pictures(
    samples: Sequence[Sample], network: Network
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """The images' centre crops, and why other images could not be read.

    Raises:
        DataError: no image can be read.
    """
    channels, side = network.input_shape[:2]
    middle = (square_side(side) - side) // 2
    crops, failures = load_crops(
        [crop_of(sample, middle, middle) for sample in samples], side, channels
    )
    readable = tuple(
        Picture(sample=sample, crop=crop)
        for sample, crop, failure in zip(samples, crops, failures, strict=True)
        if failure is None
    )
    broken = tuple(failure for failure in failures if failure is not None)
    if not readable:
        raise DataError(f"none of {len(samples)} images can be read; the first: {broken[0]}")
    return readable, broken


def predictions(
    weights: Weights,
    shown: Sequence[Picture],
    setup: Setup,
    *,
    views: Views,
    filters: bool,
    done: Done,
) -> tuple[Prediction, ...]:
    """A network's answers to some images and, with ``filters``, the filters that they excite.

    Raises:
        DataError: a file was damaged since it was looked at.
    """
    samples = [picture.sample for picture in shown]
    answered = replace(
        answers(weights, samples, setup, views=views, done=done), classes=weights.named
    )
    if len(answered.samples) < len(samples):
        raise DataError(f"cannot be read any more: {answered.broken[0]}")
    strongest = responses(weights, shown, setup) if filters else ((),) * len(shown)
    return tuple(
        Prediction(
            picture=picture, probabilities=probabilities, elsewhere=float(rest), strongest=excited
        )
        for picture, probabilities, rest, excited in zip(
            shown, answered.guesses, answered.elsewhere, strongest, strict=True
        )
    )


def drawable(network: Network) -> Convolution | None:
    """The first layer, if it is a convolution whose filters are grey or colour pictures."""
    first = network.layers[0]
    if not isinstance(first, Convolution) or first.groups > 1 or not isinstance(first.size, int):
        return None
    return first if network.input_shape[0] in (1, 3) else None


def responses(
    weights: Weights, shown: Sequence[Picture], setup: Setup
) -> tuple[tuple[Response, ...], ...]:
    """For each image, the filters of the first convolution that respond most, strongest first.

    A filter's response is its largest output anywhere in the normalised centre crop. Of equal
    responses the first counts, by filter and by place. A filter with an output that is not finite
    responds to nothing. Empty where the filters are no pictures.
    """
    first = drawable(load_network(weights.network))
    if first is None:
        return ((),) * len(shown)
    samples = [picture.sample for picture in shown]
    with forward(weights, setup) as predictor:
        batches = predictor.activations(samples, first.name, done=lambda _: None)
        outputs = (output for batch in batches for output in batch.values)
        return tuple(
            _strongest(output, first, picture.crop)
            for output, picture in zip(outputs, shown, strict=True)
        )


def _strongest(output: Floats, layer: Convolution, crop: Pixels) -> tuple[Response, ...]:
    """``output``: ``[filters of all columns, h, w]``."""
    places = output.reshape(len(output), -1)
    peaks = places.max(1)
    strongest = []
    order = np.argsort(-peaks, kind="stable")
    sound = np.asarray(np.isfinite(places).all(1))
    for index in order[sound[order]][:STRONGEST].tolist():
        y, x = divmod(int(places[index].argmax()), output.shape[2])
        column, number = divmod(index, layer.filters)
        (down, right), (above, before) = pair(layer.stride), pair(layer.padding)
        top, left = y * down - above, x * right - before
        strongest.append(
            Response(
                layer=layer.name,
                column=letter(column),
                filter=number,
                activation=float(peaks[index]),
                top=top,
                left=left,
                patch=_patch(crop, top, left, pair(layer.size)[0]),
            )
        )
    return tuple(strongest)


def _patch(crop: Pixels, top: int, left: int, size: int) -> Pixels:
    """A square of an image; grey where it hangs over the edge."""
    out = np.full((size, size, crop.shape[2]), _OUTSIDE, dtype=np.uint8)
    rows, across = max(0, -top), max(0, -left)
    inside = crop[top + rows : top + size, left + across : left + size]
    out[rows : rows + inside.shape[0], across : across + inside.shape[1]] = inside
    return out
