"""What a network sees in single images: its guesses, the filters they excite, their neighbours.

That is what the paper's figure 4 shows. Images are files of the user's own: one that cannot be
read is named, and the others go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.errors import DataError
from alexsim.network.editions import load_network
from alexsim.network.layers import Convolution
from alexsim.network.network import Network
from alexsim.plan.records import letter
from alexsim.train.dataset import Floats, Sample
from alexsim.train.evaluate import Activations, Done, Setup, answers, feature_layer, forward
from alexsim.train.images import Pixels, load_crops, square_side
from alexsim.train.loader import Views, crop_of
from alexsim.train.weights import Weights

STRONGEST = 5
"""Filters that are shown of an image."""
NO_CLASS = -1
"""Label of an image whose class nobody knows."""
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
    """What a network says of one image."""

    picture: Picture
    probabilities: Floats
    """Of every class, averaged over the views."""
    strongest: tuple[Response, ...]
    """The filters that respond most; empty if nobody asked, or there are none to draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """An image, and how far its features are from a query's."""

    picture: Picture
    distance: float
    """Euclidean, in the units of the activations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An image and those of a set that a network takes for the most alike."""

    query: Picture
    nearest: tuple[Neighbour, ...]
    """The nearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """A row for every query, and why images of the set could not be read."""

    rows: tuple[Row, ...]
    broken: tuple[str, ...]


_Near = tuple[float, Sample]


def labelled(paths: Sequence[Path], classes: Sequence[str]) -> list[Sample]:
    """Files as samples; one that lies in a folder named as a class is of that class."""
    place = {name: number for number, name in enumerate(classes)}
    return [
        Sample(path=str(path), label=place.get(path.absolute().parent.name, NO_CLASS))
        for path in paths
    ]


def pictures(
    samples: Sequence[Sample], network: Network
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """The images' centre crops, and why others could not be read.

    Raises:
        DataError: none can be read.
    """
    channels, side = network.input_shape[:2]
    middle = (square_side(side) - side) // 2
    crops, failures = load_crops(
        [crop_of(sample, middle, middle, mirror=False) for sample in samples], side, channels
    )
    found = tuple(
        Picture(sample=sample, crop=crop)
        for sample, crop, failure in zip(samples, crops, failures, strict=True)
        if failure is None
    )
    broken = tuple(failure for failure in failures if failure is not None)
    if not found:
        raise DataError(f"none of {len(samples)} images can be read; the first: {broken[0]}")
    return found, broken


def predictions(
    weights: Weights,
    shown: Sequence[Picture],
    setup: Setup,
    *,
    views: Views,
    filters: bool,
    done: Done,
) -> tuple[Prediction, ...]:
    """What a network says of some images and, with ``filters``, which of its filters they excite.

    Raises:
        DataError: a file was damaged since it was looked at.
        PlanError: the backend cannot run this network.
    """
    samples = [one.sample for one in shown]
    found = answers(weights, samples, setup, views=views, done=done)
    if len(found.samples) < len(samples):
        raise DataError(f"cannot be read any more: {found.broken[0]}")
    strongest = responses(weights, shown, setup) if filters else ((),) * len(shown)
    return tuple(
        Prediction(picture=picture, probabilities=own, strongest=excited)
        for picture, own, excited in zip(shown, found.probabilities, strongest, strict=True)
    )


def drawable(network: Network) -> Convolution | None:
    """The first layer, if it is a convolution whose filters are grey or colour pictures."""
    first = network.layers[0]
    if isinstance(first, Convolution) and first.groups == 1 and network.input_shape[0] in (1, 3):
        return first
    return None


def responses(
    weights: Weights, shown: Sequence[Picture], setup: Setup
) -> tuple[tuple[Response, ...], ...]:
    """Of each image the filters of the first convolution that respond most, the strongest first.

    A filter's response is its largest output anywhere in the normalised centre crop. Of equal
    ones the first counts, filter or place. Empty where the filters are no pictures.
    """
    first = drawable(load_network(weights.network))
    if first is None:
        return ((),) * len(shown)
    samples = [one.sample for one in shown]
    with forward(weights, setup) as asked:
        found = asked.activations(samples, first.name, done=lambda _: None)
        outputs = (output for part in found for output in part.values)
        return tuple(
            _strongest(output, first, picture.crop)
            for output, picture in zip(outputs, shown, strict=True)
        )


def _strongest(output: Floats, layer: Convolution, crop: Pixels) -> tuple[Response, ...]:
    """``output``: ``[filters of all columns, h, w]``."""
    places = output.reshape(len(output), -1)
    peaks = places.max(1)
    made = []
    for index in np.argsort(-peaks, kind="stable")[:STRONGEST].tolist():
        y, x = divmod(int(places[index].argmax()), output.shape[2])
        column, number = divmod(index, layer.filters)
        top, left = y * layer.stride - layer.padding, x * layer.stride - layer.padding
        made.append(
            Response(
                layer=layer.name,
                column=letter(column),
                filter=number,
                activation=float(peaks[index]),
                top=top,
                left=left,
                patch=_patch(crop, top, left, layer.size),
            )
        )
    return tuple(made)


def _patch(crop: Pixels, top: int, left: int, size: int) -> Pixels:
    """A square of an image; grey where it hangs over the edge."""
    out = np.full((size, size, crop.shape[2]), _OUTSIDE, dtype=np.uint8)
    rows, across = max(0, -top), max(0, -left)
    inside = crop[top + rows : top + size, left + across : left + size]
    out[rows : rows + inside.shape[0], across : across + inside.shape[1]] = inside
    return out


def neighbours(
    weights: Weights,
    queries: Sequence[Picture],
    samples: Sequence[Sample],
    setup: Setup,
    *,
    count: int,
    done: Done,
) -> Neighbours:
    """The ``count`` images whose features are nearest to each query's (paper, figure 4, right).

    Features are the last hidden layer's output for the centre crop. Distances are Euclidean, in
    float64; of equal ones the earlier image is nearer. A query that is itself among the images is
    left out of its own. No more than a minibatch of features is kept at a time.

    Args:
        done: is told how many images have been seen, queries first.

    Raises:
        DataError: a query, or all of a minibatch, cannot be read.
        NetworkError: the network has no hidden layer.
        PlanError: the backend cannot run this network.
    """
    layer = feature_layer(weights.network)
    own = [one.sample for one in queries]
    broken: dict[str, None] = {}
    best: list[list[_Near]] = [[] for _ in queries]
    with forward(weights, setup) as asked:
        features = np.concatenate(
            [_features(found) for found in asked.activations(own, layer, done=done)]
        )
        for found in asked.activations(samples, layer, done=lambda seen: done(len(own) + seen)):
            broken |= dict.fromkeys(found.broken)
            values = _features(found)
            for row, (query, feature) in enumerate(zip(own, features, strict=True)):
                near = _without(query, found.samples, _distances(feature, values))
                # Sorting keeps equal ones in order, and those found before are the earlier.
                best[row] = sorted((*best[row], *near), key=lambda one: one[0])[:count]
    network = load_network(weights.network)
    rows = (_row(query, near, network) for query, near in zip(queries, best, strict=True))
    return Neighbours(rows=tuple(rows), broken=tuple(broken))


def _row(query: Picture, near: Sequence[_Near], network: Network) -> Row:
    """Neighbours with their pictures, which are few: only these are decoded again."""
    if not near:
        return Row(query=query, nearest=())
    shown, broken = pictures([sample for _, sample in near], network)
    if broken:
        raise DataError(f"cannot be read any more: {broken[0]}")
    return Row(
        query=query,
        nearest=tuple(
            Neighbour(picture=picture, distance=distance)
            for picture, (distance, _) in zip(shown, near, strict=True)
        ),
    )


def _features(found: Activations) -> NDArray[np.float64]:
    return found.values.reshape(len(found.values), -1).astype(np.float64)


def _distances(query: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not by |a|^2 + |b|^2 - 2ab, which is not exactly 0 for equal images.
    return np.asarray(np.sqrt(np.square(of - query).sum(1)), dtype=np.float64)


def _without(
    query: Sample, samples: Sequence[Sample], distances: NDArray[np.float64]
) -> Iterator[_Near]:
    """Images and their distances, less the query itself."""
    return (
        (distance, sample)
        for distance, sample in zip(distances.tolist(), samples, strict=True)
        if not _same_file(sample, query)
    )


def _same_file(sample: Sample, query: Sample) -> bool:
    """Whether two names are of one file; an image in a shard is no file."""
    # Following links takes long for all of a large set: a link has the name of its file.
    if sample.length >= 0 or Path(sample.path).name != Path(query.path).name:
        return False
    return Path(sample.path).resolve() == Path(query.path).resolve()
