"""A trained network's answers: probabilities over views, errors, ensembles.

Images are read as in training; the network sees the centre or ten views of each, and the
probabilities of its views are averaged (paper, section 4.1). Several networks' answers are averaged
likewise, equally or by shares (section 6: five networks, and two more).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from alexsim.data.augmentation import Preparation
from alexsim.data.choices import Views
from alexsim.data.dataset import Dataset, Sample
from alexsim.data.loader import Batch, Loader
from alexsim.data.statistics import Floats, Statistics
from alexsim.data.workers import workers_for
from alexsim.editions.load import load_network
from alexsim.errors import DataError, NetworkError
from alexsim.evaluate.setup import Setup, forward_plan
from alexsim.execute.executor import Executor
from alexsim.network.layers import Dropout, FullyConnected
from alexsim.network.part import square_side
from alexsim.train.settings import Evaluation
from alexsim.train.weights import Weights

Done = Callable[[int], None]
_TUNING_STEPS = 1000
_SETTLED = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The probabilities that a network, or several together, give some images."""

    samples: tuple[Sample, ...]
    """Images that could be read."""
    probabilities: Floats
    """``[images, outputs]``. A row is NaN where any output is not finite."""
    broken: tuple[str, ...]
    """Why other images could not be read."""
    classes: int = 0
    """How many outputs, the first, have a class; 0: all. Only these are guesses."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each image."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether every probability of each image is finite."""
        return np.asarray(np.isfinite(self.probabilities).all(1))

    @property
    def guesses(self) -> Floats:
        """Probabilities of the outputs that have a class, as they are: ``[images, classes]``."""
        return self.probabilities[:, : self.classes or None]

    @property
    def elsewhere(self) -> NDArray[np.float64]:
        """The probability of each image on outputs without a class."""
        left_out = self.probabilities[:, self.classes or self.probabilities.shape[1] :]
        return np.asarray(left_out.sum(1, dtype=np.float64))


def answers(
    weights: Weights, samples: Sequence[Sample], setup: Setup, *, views: Views, done: Done
) -> Answers:
    """Probabilities of every class for every image, averaged over its views.

    Views are summed in float64, in order, however they fall into batches.

    Raises:
        DataError: no image can be read.
    """
    network = load_network(weights.network)
    sums = np.zeros((len(samples), network.classes))
    softmax = network.layers[-1].name
    seen = np.zeros(len(samples), dtype=np.int64)
    broken: dict[str, None] = {}
    with forward(weights, setup) as predictor:
        shown = 0
        for batch in predictor.loader.views(samples, views):
            probabilities = predictor.output(batch, softmax).double().numpy()
            broken |= dict.fromkeys(batch.broken)
            for row in range(batch.valid):
                if batch.readable[row]:
                    sums[(shown + row) // views] += probabilities[row]
                    seen[(shown + row) // views] += 1
            shown += batch.valid
            done(shown // views)
    read = np.flatnonzero(seen)
    if not len(read):
        raise DataError(f"none of {len(samples)} images can be read, such as {samples[0].place}")
    sums[~np.isfinite(sums).all(1)] = np.nan
    return Answers(
        samples=tuple(samples[int(i)] for i in read),
        probabilities=(sums[read] / views).astype(np.float32),
        broken=tuple(broken),
    )


def feature_layer(name: str) -> str:
    """The layer that the last projection reads; dropout, which only scales, left out.

    Its output are the features of the paper's figure 4: fc7's 4096 units in AlexNet, after ReLU.

    Raises:
        NetworkError: the last projection reads the image itself.
    """
    layers = load_network(name).layers
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, FullyConnected)) - 1
    while last >= 0 and isinstance(layers[last], Dropout):
        last -= 1
    if last < 0:
        raise NetworkError(f"network {name!r} has no hidden layer, so an image has no features")
    return layers[last].name


def averaged(members: Sequence[Answers], shares: Sequence[float]) -> Answers:
    """The average of several networks' answers to the same images, summed in order in float64.

    A network of share 0 is left out, even where it puts out NaN. Where networks differ in their
    number of outputs, only outputs with a class are averaged.

    Raises:
        DataError: they are not of the same images.
    """
    first = members[0]
    for member in members[1:]:
        if [s.path for s in member.samples] != [s.path for s in first.samples]:
            raise DataError("the networks could not read the same images")
    alike = len({member.probabilities.shape for member in members}) == 1
    parts = [member.probabilities if alike else member.guesses for member in members]
    total = np.zeros(parts[0].shape)
    for part, share in zip(parts, shares, strict=True):
        if share:
            total += share * part.astype(np.float64)
    return replace(first, probabilities=total.astype(np.float32))


def tuned(members: Sequence[Answers]) -> tuple[float, ...]:
    """Shares, summing to 1, under which the members' average has the least mean loss.

    Expectation maximisation for a mixture of fixed parts: every step lowers the loss, which is
    convex in the shares (Dempster, Laird, Rubin 1977). A network that puts out NaN for an image
    gets share 0: any other share makes the loss NaN. Where all do, shares are equal.
    """
    rows = np.arange(len(members[0].labels))
    sound = np.array([bool(member.finite.all()) for member in members])
    if not sound.any():
        return (1 / len(members),) * len(members)
    likelihoods = np.stack(
        [member.probabilities.astype(np.float64)[rows, member.labels] for member in members]
    )
    likelihoods = np.maximum(np.where(sound[:, None], likelihoods, 0), np.finfo(np.float32).tiny)
    shares = sound / sound.sum()
    for _ in range(_TUNING_STEPS):
        parts = shares[:, None] * likelihoods
        new = (parts / parts.sum(0)).mean(1)
        moved = np.abs(new - shares).max()
        shares = new
        if moved < _SETTLED:
            break
    return tuple(float(share) for share in shares)


def errors(outputs: Answers) -> Evaluation:
    """Mean loss, top-1 and top-5 error; guesses that tie share the credit.

    Outputs without a class are no guesses. An image with a probability that is not finite counts
    as wrong, and makes the loss NaN.
    """
    finite = outputs.finite
    likelihood = outputs.guesses[np.arange(len(outputs.labels)), outputs.labels].astype(np.float64)
    above = (outputs.guesses > likelihood[:, None]).sum(1)
    level = np.maximum((outputs.guesses == likelihood[:, None]).sum(1), 1)
    top1, top5 = (
        float(np.mean(1 - np.where(finite, np.clip((first - above) / level, 0, 1), 0)))
        for first in (1, 5)
    )
    losses = -np.log(np.maximum(np.where(finite, likelihood, np.nan), np.finfo(np.float32).tiny))
    return Evaluation(
        # An exact sum: the same images have the same loss in any order.
        loss=math.fsum(losses) / len(losses),
        top1=top1,
        top5=top5,
        nan_images=int((~finite).sum()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """Networks on the same images, each by itself and their average."""

    each: tuple[Answers, ...]
    together: Answers
    shares: tuple[float, ...]
    """Of each network in the average; they sum to 1."""
    tuned: bool


def combined(
    each: Sequence[Answers],
    *,
    shares: tuple[float, ...] | None = None,
    tuned_on: Sequence[Answers] | None = None,
) -> Combined:
    """Average networks by ``shares``, by the shares that suit ``tuned_on`` best, or equally.

    Raises:
        DataError: the networks could not read the same images.
    """
    if tuned_on:
        shares = tuned(tuned_on)
    chosen = shares or (1 / len(each),) * len(each)
    together = averaged(each, chosen) if len(each) > 1 else each[0]
    return Combined(each=tuple(each), together=together, shares=chosen, tuned=bool(tuned_on))


def class_names(loaded: Sequence[Weights], dataset: Dataset) -> tuple[str, ...]:
    """Names of the networks' outputs; the data's classes where no network knows them.

    Raises:
        DataError: networks differ in them, or do not know a class of the data.
    """
    known = {weights.classes for weights in loaded if weights.classes}
    if len(known) > 1:
        raise DataError("the networks were trained on different classes")
    names = known.pop() if known else dataset.classes
    for weights in loaded:
        if not weights.classes and weights.outputs != len(names):
            raise DataError(
                f"a network of {weights.outputs} outputs without names cannot be tested on"
                f" {len(names)} classes"
            )
    if strange := [name for name in dataset.classes if name not in names]:
        raise DataError(
            f"{dataset.root}: {len(strange)} of its {len(dataset.classes)} classes are not among"
            f" those trained on, such as {strange[0]!r}"
        )
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """A layer's output for some images that could be read."""

    samples: tuple[Sample, ...]
    values: Floats
    """``[images, ...]``, the layer's columns side by side."""
    broken: tuple[str, ...]
    """Why other images could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A network that only goes forward, and what reads its images."""

    executor: Executor
    loader: Loader

    def output(self, batch: Batch, layer: str) -> torch.Tensor:
        """What a layer puts out for a minibatch, ``[N, ...]``."""
        images = torch.from_numpy(batch.images).permute(0, 3, 1, 2)
        labels = torch.zeros(len(batch.labels), dtype=torch.int64)
        self.executor.evaluate(images, labels, normalising=batch.normalising)
        return self.executor.activation(layer)

    def activations(
        self, samples: Sequence[Sample], layer: str, *, done: Done
    ) -> Iterator[Activations]:
        """A layer's output for the centre crops of any number of images, a minibatch at a time.

        ``done``: called with the number of images seen so far.
        """
        shown = 0
        for batch in self.loader.views(samples):
            values = self.output(batch, layer).numpy()
            good = [row for row in range(batch.valid) if batch.readable[row]]
            yield Activations(
                samples=tuple(samples[shown + row] for row in good),
                values=values[good],
                broken=batch.broken,
            )
            shown += batch.valid
            done(shown)


@contextlib.contextmanager
def forward(weights: Weights, setup: Setup) -> Iterator[Forward]:
    """A plan that only goes forward, with these weights, and a loader for its images."""
    network = load_network(weights.network)
    executor = Executor(forward_plan(network, setup), device=setup.device)
    executor.load_state(weights.state)
    channels, crop_side = network.input_shape[0], network.input_shape[1]
    side = square_side(crop_side)
    no_mean = np.zeros((side, side, channels), dtype=np.float32)
    with workers_for(setup.workers) as pool:
        loader = Loader(
            Dataset(root="", classes=weights.classes, train=(), held_out=()),
            Statistics(
                mean=no_mean if weights.mean is None else weights.mean,
                axes=np.eye(channels, dtype=np.float32),
                deviations=np.zeros(channels, dtype=np.float32),
            ),
            Preparation(normalisation=weights.normalisation),
            batch_size=setup.batch_size,
            crop_side=crop_side,
            seed=0,
            pool=pool,
        )
        yield Forward(executor=executor, loader=loader)
