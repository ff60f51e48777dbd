"""What a step takes and gives: hyperparameters, images, losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from alexsim.data.normalising import Normalising
from alexsim.execute.choices import Device, Precision
from alexsim.network.layers import Role
from alexsim.network.update_rules import BETA2, EPSILON, Optimizer

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The update rule's constants for one step (facts of the 2012 recipe are the defaults).

    What each rule makes of them is in ``alexsim.network.update_rules``.
    """

    weight_rate: float = 0.01
    bias_rate: float = 0.01
    """Of biases, scales and shifts, with ``sgd-2012``; other rules have one rate for everything."""
    momentum: float = 0.9
    """Of ``adamw``: beta1."""
    weight_decay: float = 0.0005
    layer_rates: tuple[tuple[str, float], ...] = ()
    """Weight rates of single layers, by name, instead of ``weight_rate``."""
    nesterov: bool = False
    """Of ``sgd``."""
    decay_all: bool = False
    """Whether biases, scales and shifts decay too, with ``sgd`` and ``adamw``."""
    beta2: float = BETA2
    """Of ``adamw``, as ``epsilon``."""
    epsilon: float = EPSILON

    def weight_rate_of(self, layer: str) -> float:
        """The rate of a layer's weights."""
        return dict(self.layer_rates).get(layer, self.weight_rate)

    def rate_and_decay(self, optimizer: Optimizer, layer: str, role: Role) -> tuple[float, float]:
        """Rate and decay of a layer's parameter: the only place that tells weights from others."""
        weight_constants = self.weight_rate_of(layer), self.weight_decay
        if role == Role.WEIGHT:
            return weight_constants
        if optimizer == "sgd-2012":
            return self.bias_rate, 0.0
        return weight_constants if self.decay_all else (weight_constants[0], 0.0)


@dataclass(slots=True, kw_only=True)
class StepContext:
    """What changes from step to step."""

    images: Tensor
    """``[N, C, H, W]``, any strides: the minibatch, or only those of this process's device."""
    normalising: Normalising | None = None
    """What the upload does to images that are bytes; None for floating ones."""
    labels: Tensor
    """``[N]``, int64."""
    step: int
    seed: int
    training: bool
    hyperparameters: Hyperparameters
    uploaded: bool = False
    """The devices have the images already."""
    losses: Tensor | None = None
    """``[N]``, after the loss op: negative log-likelihood of each image."""
    top1: Tensor | None = None
    """``[N]``: error of the best guess, 0 or 1; ties share the credit."""
    top5: Tensor | None = None


Launch = Callable[[StepContext], None]
"""Runs an op of a step."""
STILL = Hyperparameters(weight_rate=1e-20, bias_rate=1e-20)
"""Rates that change no weight, so that every step is the same. Not 0: ATen then leaves products
out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """How a plan is run."""

    budget_bytes: int | None = None
    """Memory of each device; None for no limit."""
    dtype: torch.dtype = torch.float32
    """float32, or float64 for references (its budget then counts float32 bytes; ``aten`` only)."""
    seed: int = 0
    device: Device = "cpu"
    precision: Precision = "fp32"
    """Of products, with backend ``triton``."""
    graph: bool = False
    """Capture a training step as a CUDA graph, and replay it."""
    replica: int = 0
    """Which of the plan's replicas this is, each with its share of the images."""
