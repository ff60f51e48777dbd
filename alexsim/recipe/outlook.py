"""Which editions `alexsim train` can train here on the built-in images, and in about how long.

No torch in here, and nothing is run: memory and FLOPs are counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from alexsim.budget.fit import fit
from alexsim.network.network import Network
from alexsim.network.not_run import reads_photographs
from alexsim.plan.backends import BACKENDS
from alexsim.plan.choices import RUN_POLICIES
from alexsim.plan.plan import Op, Plan
from alexsim.plan.planner import plan
from alexsim.recipe.defaults import Defaults, training_defaults
from alexsim.recipe.file import load_recipe
from alexsim.recipe.recipe import Recipe
from alexsim.units import format_bytes

BATCH = 128
CORE_FLOP_PER_S = 65e9
"""Of one core, of the products that backend ``native`` does in docs/speed.md's step of AlexNet on
two cores of Zen 4; float32."""
CORE_BYTES_PER_S = 12e9
"""Of one of them: what is elementwise is bound by memory."""
CORE_IMAGES_PER_S = 1000.0
"""Textures that one core decodes and crops, about; for small inputs it does more."""
CORE_DIGITS_PER_S = 8000.0
"""Digits, which are what networks that read grey are trained on."""
_MOST_WORKERS = 4
_START_S = 15.0
"""Imports, the mean image, the test on held-out images, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A network's default run, `alexsim train --net NAME`, on the built-in images."""

    network: Network
    defaults: Defaults
    weight_rate: float
    refused: str
    """Why it cannot be trained on images, or not within the budget; empty if it can."""
    batch_size: int
    """0 if it cannot be trained."""
    options: str
    """What else must be given for it to fit into the default budget; empty where nothing."""
    seconds: float | None
    """With this machine's cores, about; None if it cannot be trained."""


def outlook(network: Network, *, budget_bytes: int, cores: int | None = None) -> Outlook:
    """What the default run of a network needs, and takes.

    Args:
        budget_bytes: of each virtual GPU.
        cores: of this machine; all of them by default.

    Raises:
        ProfileError: its recipe is damaged.
    """
    defaults = training_defaults(network.name)
    recipe = load_recipe(defaults.recipe)
    cores = cores or os.cpu_count() or 1
    batch, options, why = 0, "", "no square images of 1 or 3 channels"
    seconds = None
    if reads_photographs(network):
        made, batch, options = _fitting(network, recipe, budget_bytes, cores)
        why = "" if batch else f"one image does not fit into {format_bytes(budget_bytes)}"
        if batch:
            seconds = _seconds(made, defaults.steps * batch, cores)
    return Outlook(
        network=network,
        defaults=defaults,
        weight_rate=recipe.stages[0].weight_rate,
        refused=why,
        batch_size=batch,
        options=options,
        seconds=seconds,
    )


def _fitting(
    network: Network, recipe: Recipe, budget_bytes: int, cores: int
) -> tuple[Plan, int, str]:
    """A plan of the first policy that holds the default batch, or of the last; the batch, or the
    largest that the last holds; and the options that say so.

    A batch of 0 where no image fits.
    """
    for policy in RUN_POLICIES:
        planned = plan(
            network,
            batch_size=BATCH,
            policy=policy,
            backend="native",
            threads=cores,
            optimizer=recipe.optimizer,
        )
        if all(device.total_bytes <= budget_bytes for device in planned.devices):
            return planned, BATCH, "" if policy == RUN_POLICIES[0] else f"--policy {policy}"
    batch = fit(planned, budget_bytes).largest_batch_size
    return planned, batch, f"--policy {policy} --batch {batch}" if batch else ""


def _seconds(made: Plan, images: int, cores: int) -> float:
    step = sum(
        max(_done_flop(made, op) / CORE_FLOP_PER_S, op.count.moved_bytes / CORE_BYTES_PER_S)
        for op in made.ops()
    )
    computing = images * step / made.images / cores
    rate = CORE_DIGITS_PER_S if made.network.input_shape[0] == 1 else CORE_IMAGES_PER_S
    reading = images / (min(cores, _MOST_WORKERS) * rate)
    return _START_S + max(computing, reading)


def _done_flop(made: Plan, op: Op) -> int:
    return BACKENDS[op.backend].done_flop(op, made.part(op)) if op.count.flop else 0
