"""Where a run stands in its recipe: stage, rates, and when held-out images are tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from alexsim.execute.context import Hyperparameters
from alexsim.network.update_rules import UPDATES, Optimizer
from alexsim.recipe.recipe import Recipe, Stage, reductions
from alexsim.train.settings import LayerSize


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A recipe on a data set. Everything is a function of the steps done: runs resume anywhere."""

    recipe: Recipe
    batch_size: int
    images: int
    """Of the training set."""
    held_out: int

    def epoch(self, done: int) -> int:
        """The epoch in which the next step begins; the first is 1."""
        return done * self.batch_size // self.images + 1

    def stage(self, done: int) -> Stage:
        """The stage of the next step."""
        return self.recipe.stage(self.epoch(done))

    def hyperparameters(self, done: int, errors: Sequence[float]) -> Hyperparameters:
        """Rates of the next step, after these validation errors."""
        stage, recipe = self.stage(done), self.recipe
        divisor = 1.0
        if recipe.plateau:
            divisor = recipe.plateau.divide_by ** reductions(errors, recipe.plateau)
        return Hyperparameters(
            weight_rate=stage.weight_rate / divisor,
            bias_rate=stage.bias_rate / divisor,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            layer_rates=tuple((la, rate / divisor) for la, rate in stage.layer_rates.items()),
            nesterov=recipe.nesterov,
            decay_all=recipe.decay_all,
            beta2=recipe.beta2,
            epsilon=recipe.epsilon,
        )

    def tests_after(self, done: int) -> bool:
        """Whether held-out images are tested after that many steps."""
        return bool(self.held_out) and self._tests(done) > self._tests(done - 1)

    def tested(self, done: int) -> tuple[int, int]:
        """The held-out images of a test: the first, and how many; every test takes the next."""
        validation = self.recipe.validation
        assert validation is not None
        count = min(validation.images or self.held_out, self.held_out)
        return (self._tests(done) - 1) * count % self.held_out, count

    def _tests(self, done: int) -> int:
        validation = self.recipe.validation
        if validation is None:
            return 0
        every = validation.every_images or validation.every_epochs * self.images
        return done * self.batch_size // every


def sizes_of(
    state: Mapping[str, torch.Tensor],
    optimizer: Optimizer = "sgd-2012",
    rates: Hyperparameters | None = None,
) -> dict[str, LayerSize]:
    """Mean magnitude of every layer's weights and of their last increment, columns together.

    The increment is worked out from the rule's state, in which Nesterov's look ahead and AdamW's
    decay leave nothing.
    """
    sums: dict[str, dict[str, tuple[float, int]]] = {}
    for name, tensor in state.items():
        layer, column, role = name.split(".", 2)
        values = None
        if role == "weight":
            values = tensor
        elif role == "weight.momentum":
            values = _increment(state, f"{layer}.{column}", optimizer, rates or Hyperparameters())
        if values is not None:
            total, count = sums.setdefault(layer, {}).get(role, (0.0, 0))
            total += values.abs().sum(dtype=torch.float64).item()
            sums[layer][role] = (total, count + tensor.numel())
    return {
        layer: LayerSize(_mean(by_role["weight"]), _mean(by_role.get("weight.momentum", (0.0, 1))))
        for layer, by_role in sums.items()
    }


def _increment(
    state: Mapping[str, torch.Tensor], part: str, optimizer: Optimizer, rates: Hyperparameters
) -> torch.Tensor:
    """What the last update added to a part's weights."""
    momentum = state[f"{part}.weight.momentum"]
    if optimizer == "sgd-2012":
        return momentum
    rate = rates.weight_rate_of(part.partition(".")[0])
    if optimizer == "sgd":
        return momentum * -rate
    done = max(1.0, state[f"{part}.{UPDATES}"].item())
    square = state[f"{part}.weight.variance"] / (1 - rates.beta2**done)
    return momentum * (-rate / (1 - rates.momentum**done)) / (square.sqrt() + rates.epsilon)


def _mean(sum_and_count: tuple[float, int]) -> float:
    return sum_and_count[0] / sum_and_count[1]
