"""What trained networks say of images: ``eval --json``, ``predict``, ``nearest``, ``filters``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from alexsim.data.sources.listing import Skipped
from alexsim.documents.base import From, Joined, NetworkDocument, Number, Part
from alexsim.evaluate.evaluate import Combined, errors
from alexsim.evaluate.explain import Prediction
from alexsim.evaluate.neighbours import Neighbours
from alexsim.report.evaluation import best, mean_of
from alexsim.report.filters import not_finite
from alexsim.report.pictures import Filters
from alexsim.report.prediction import ClassNames
from alexsim.train.weights import Weights


class ErrorRates(Part):
    """Means over images; errors are fractions."""

    loss: Annotated[Number, From("errors.loss")]
    top1: Annotated[float, From("errors.top1")]
    top5: Annotated[float, From("errors.top5")]
    nan_images: Annotated[int, From("errors.nan_images")]
    """Images for which the network puts out NaN: they count as wrong."""


class ModelErrors(ErrorRates):
    """One network's."""

    model: str
    network: str
    share: float
    """Of the average."""
    unnamed_outputs: int
    """Outputs that have no class,"""
    unnamed_probability: Number
    """and their mean probability."""


class EvaluationDocument(ErrorRates, NetworkDocument):
    """``alexsim eval --json``, of one network or of the average of several."""

    network: str
    data: str
    split: str
    views: int
    images: int
    """That could be read."""
    tuned: bool
    """Whether the shares suit other images best."""
    models: tuple[ModelErrors, ...]
    broken: tuple[str, ...]
    """Files that could not be read, and why."""
    left_out: tuple[Skipped, ...] = ()
    """What is not in the split."""


def evaluation_document(
    combined: Combined,
    models: Sequence[Path],
    loaded: Sequence[Weights],
    *,
    views: int,
    split: str,
    data: Path,
    left_out: Sequence[Skipped] = (),
) -> EvaluationDocument:
    """``alexsim eval --json``."""
    together = combined.together
    rows = [
        {
            "errors": errors(answers),
            "model": str(model),
            "network": weights.network,
            "share": share,
            "unnamed_outputs": weights.outputs - weights.named,
            "unnamed_probability": mean_of(answers.elsewhere)
            if weights.outputs > weights.named
            else 0.0,
        }
        for model, weights, answers, share in zip(
            models, loaded, combined.each, combined.shares, strict=True
        )
    ]
    networks = {weights.network for weights in loaded}
    return EvaluationDocument.of(
        errors=errors(together),
        network=loaded[0].network if len(networks) == 1 else "several",
        batch_size=len(together.samples),
        data=str(data),
        split=split,
        views=views,
        images=len(together.samples),
        tuned=combined.tuned,
        models=[Joined(None, row) for row in rows],
        broken=together.broken,
        left_out=tuple(left_out),
    )


class Guess(Part):
    """A class and its probability."""

    class_: Annotated[str, Field(alias="class")]
    words: str | None
    """What a WordNet id means, if it is known."""
    probability: float


class ExcitedFilter(Part):
    """A filter of the first convolution, and where in the centre crop it responds most."""

    layer: str
    column: str
    filter: int
    activation: Number
    top: int
    left: int
    """Corner of its window in pixels; negative over the edge."""


class PredictedImage(Part):
    """What a network says of an image."""

    file: str
    class_: Annotated[str | None, Field(alias="class")]
    """Its own, if it is known."""
    unnamed_probability: Number
    """Of outputs without a class."""
    guesses: tuple[Guess, ...]
    filters: tuple[ExcitedFilter, ...]


class PredictionDocument(NetworkDocument):
    """``alexsim model predict --json``; probabilities are 0...1."""

    network: str
    model: str
    views: int
    unnamed_outputs: int
    nan_images: int
    images: tuple[PredictedImage, ...]
    broken: tuple[str, ...]


def prediction_document(
    predictions: Sequence[Prediction],
    names: ClassNames,
    weights: Weights,
    broken: Sequence[str],
    *,
    model: str,
    views: int,
) -> PredictionDocument:
    """``alexsim model predict --json``."""
    return PredictionDocument.of(
        network=weights.network,
        batch_size=len(predictions),
        model=model,
        views=views,
        unnamed_outputs=weights.outputs - weights.named,
        nan_images=sum(not np.isfinite(each.probabilities).all() for each in predictions),
        images=[
            {
                "file": each.picture.sample.place,
                "class": names.right(each.picture.sample.label),
                "unnamed_probability": each.elsewhere if weights.outputs > weights.named else 0.0,
                "guesses": [
                    {"class": name, "words": names.words.get(name), "probability": probability}
                    for name, probability in best(each.probabilities, names.ids)
                ],
                "filters": each.strongest,
            }
            for each in predictions
        ],
        broken=tuple(broken),
    )


class NearImage(Part):
    """An image of the set."""

    file: str
    class_: Annotated[str | None, Field(alias="class")]
    distance: float
    """Euclidean, in the units of the activations."""


class QueryImage(Part):
    """An image, and those that are most alike."""

    file: str
    class_: Annotated[str | None, Field(alias="class")]
    nearest: tuple[NearImage, ...]


class NeighboursDocument(NetworkDocument):
    """``alexsim model nearest --json``."""

    network: str
    model: str
    data: str
    split: str
    layer: str
    """Whose activations are compared."""
    images: tuple[QueryImage, ...]
    nan_images: int
    """Images of the set whose activations are not finite."""
    broken: tuple[str, ...]
    left_out: tuple[Skipped, ...] = ()


def neighbour_document(
    neighbours: Neighbours,
    names: ClassNames,
    network: str,
    *,
    model: str,
    data: str,
    split: str,
    layer: str,
    left_out: Sequence[Skipped] = (),
) -> NeighboursDocument:
    """``alexsim model nearest --json``."""
    return NeighboursDocument.of(
        neighbours,
        network=network,
        batch_size=len(neighbours.rows),
        model=model,
        data=data,
        split=split,
        layer=layer,
        images=[
            {
                "file": row.query.sample.place,
                "class": names.right(row.query.sample.label),
                "nearest": [
                    {
                        "file": near.picture.sample.place,
                        "class": names.right(near.picture.sample.label),
                        "distance": near.distance,
                    }
                    for near in row.nearest
                ],
            }
            for row in neighbours.rows
        ],
        left_out=tuple(left_out),
    )


class FilterColumn(Part):
    """The first convolution's weights in one column, in short."""

    column: str
    device: str
    shape: Annotated[tuple[int, ...], From("weights.shape")]
    """Filters, channels, height, width."""
    lowest: Annotated[Number, From(lambda filters: float(filters.weights.min()))]
    mean: Annotated[Number, From(lambda filters: float(filters.weights.mean()))]
    highest: Annotated[Number, From(lambda filters: float(filters.weights.max()))]
    deviation: Annotated[Number, From(lambda filters: float(filters.weights.std()))]
    not_finite_filters: Annotated[int, From(not_finite)]


class FiltersDocument(NetworkDocument):
    """``alexsim model filters --json``."""

    network: str
    model: str
    layer: str
    columns: tuple[FilterColumn, ...]


def filters_document(filters: Sequence[Filters], network: str, *, model: str) -> FiltersDocument:
    """``alexsim model filters --json``: what the picture is of, and its numbers in short."""
    return FiltersDocument.of(
        network=network,
        batch_size=0,
        model=model,
        layer=filters[0].layer,
        columns=tuple(filters),
    )
