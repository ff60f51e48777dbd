"""Images that a network finds alike: nearest by the last hidden layer's activations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.data.dataset import Sample
from alexsim.editions.load import load_network
from alexsim.errors import DataError
from alexsim.evaluate.evaluate import Activations, Done, feature_layer, forward
from alexsim.evaluate.explain import Picture, pictures
from alexsim.evaluate.setup import Setup
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
    """A query image, and the images of a set that are nearest to it."""

    query: Picture
    nearest: tuple[Neighbour, ...]
    """The nearest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """A row for every query, and why other images of the set could not be read."""

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
    float64; of equal distances the earlier image's is nearer. A query that is itself among the
    images is no neighbour of itself, an image whose features are not finite is nobody's. No more
    than a minibatch of features is kept at a time.

    Args:
        done: called with the number of images seen so far, queries first.

    Raises:
        DataError: a query, or all of a minibatch, cannot be read.
        NetworkError: the network has no hidden layer.
    """
    layer = feature_layer(weights.network)
    query_samples = [query.sample for query in queries]
    broken: dict[str, None] = {}
    best: list[list[_Near]] = [[] for _ in queries]
    nan_images = 0
    with forward(weights, setup) as predictor:
        features = np.concatenate(
            [_features(batch) for batch in predictor.activations(query_samples, layer, done=done)]
        )
        if len(features) < len(query_samples):
            raise DataError("an image cannot be read any more that could be a moment ago")
        for batch in predictor.activations(
            samples, layer, done=lambda seen: done(len(query_samples) + seen)
        ):
            broken |= dict.fromkeys(batch.broken)
            values = _features(batch)
            nan_images += int((~np.isfinite(values).all(1)).sum())
            for row, (query, feature) in enumerate(zip(query_samples, features, strict=True)):
                near = _without(query, batch.samples, _distances(feature, values))
                # Sorting is stable: of equal distances, earlier minibatches' stay before.
                best[row] = sorted((*best[row], *near), key=lambda neighbour: neighbour[0])[:count]
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


def _features(batch: Activations) -> NDArray[np.float64]:
    return batch.values.reshape(len(batch.values), -1).astype(np.float64)


def _distances(query: NDArray[np.float64], features: NDArray[np.float64]) -> NDArray[np.float64]:
    # Not by |a|^2 + |b|^2 - 2ab, which is not exactly 0 for equal images.
    return np.asarray(np.sqrt(np.square(features - query).sum(1)), dtype=np.float64)


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
