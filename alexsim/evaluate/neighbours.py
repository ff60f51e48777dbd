"""Images that a network takes for alike: nearest by the last hidden layer's activations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.data.dataset import Sample
from alexsim.errors import DataError
from alexsim.evaluate.evaluate import Activations, Done, Setup, feature_layer, forward
from alexsim.evaluate.explain import Picture, pictures
from alexsim.network.editions import load_network
from alexsim.network.network import Network
from alexsim.train.weights import Weights


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
    """Without neighbours where the query's features are not finite."""
    broken: tuple[str, ...]
    nan_images: int = 0
    """Images of the set whose features are not finite: nobody's neighbours."""


_Near = tuple[float, Sample]


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
    left out of its own, an image whose features are not finite of all. No more than a minibatch of
    features is kept at a time.

    Args:
        done: is told how many images have been seen, queries first.

    Raises:
        DataError: a query, or all of a minibatch, cannot be read.
        NetworkError: the network has no hidden layer.
    """
    layer = feature_layer(weights.network)
    own = [one.sample for one in queries]
    broken: dict[str, None] = {}
    best: list[list[_Near]] = [[] for _ in queries]
    nan_images = 0
    with forward(weights, setup) as asked:
        features = np.concatenate(
            [_features(found) for found in asked.activations(own, layer, done=done)]
        )
        if len(features) < len(own):
            raise DataError("an image cannot be read any more that could be a moment ago")
        for found in asked.activations(samples, layer, done=lambda seen: done(len(own) + seen)):
            broken |= dict.fromkeys(found.broken)
            values = _features(found)
            nan_images += int((~np.isfinite(values).all(1)).sum())
            for row, (query, feature) in enumerate(zip(own, features, strict=True)):
                near = _without(query, found.samples, _distances(feature, values))
                # Sorting keeps equal ones in order, and those found before are the earlier.
                best[row] = sorted((*best[row], *near), key=lambda one: one[0])[:count]
    network = load_network(weights.network)
    rows = (_row(query, near, network) for query, near in zip(queries, best, strict=True))
    return Neighbours(rows=tuple(rows), broken=tuple(broken), nan_images=nan_images)


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
    """Images and their distances, less the query itself and those at no known distance."""
    return (
        (distance, sample)
        for distance, sample in zip(distances.tolist(), samples, strict=True)
        if math.isfinite(distance) and not _same_file(sample, query)
    )


def _same_file(sample: Sample, query: Sample) -> bool:
    """Whether two names are of one file; an image in a shard is no file."""
    # Following links takes long for all of a large set: a link has the name of its file.
    if sample.length >= 0 or Path(sample.path).name != Path(query.path).name:
        return False
    return Path(sample.path).resolve() == Path(query.path).resolve()
