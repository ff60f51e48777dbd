"""From the options of ``alexsim train`` to the settings of a run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from platformdirs import user_cache_path

from alexsim.cli.memory import DEVICE
from alexsim.cli.parse import as_augmentation, as_normalisation, as_policy, as_schedule, positive
from alexsim.errors import AlexsimError, RunError
from alexsim.machine.device import load_device
from alexsim.network.editions import load_network
from alexsim.plan.fit import fit
from alexsim.plan.planner import plan
from alexsim.train import builtin
from alexsim.train.config import steps_of, stored_settings
from alexsim.train.dataset import discover
from alexsim.train.recipe import recipe_of
from alexsim.train.records import TrainSettings, Watcher
from alexsim.units import parse_bytes


def begin(
    watch: Watcher,
    *,
    net: str,
    batch: int,
    gpus: int | None,
    mem_cap: str | None,
    policy: str,
    schedule: str,
    data: Path | None,
    steps: int | None,
    epochs: float | None,
    default_steps: int,
    seed: int,
    learning_rate: float | None,
    bias_rate: float | None,
    augment: str | None,
    normalise: str | None,
    colour_noise: bool | None,
    threads: int,
    workers: int,
    checkpoint_every: int,
    output: Path | None,
) -> tuple[TrainSettings, Path]:
    """Settings and directory of a new run; everything that can be wrong is wrong here.

    Raises:
        AlexsimError: an option is out of range.
        MemoryBudgetError: the plan does not fit, before any data is drawn.
    """
    network = load_network(net)
    budget = (
        parse_bytes(mem_cap) if mem_cap is not None else int(load_device(DEVICE).memory_bytes.value)
    )
    made = plan(
        network,
        gpus=gpus,
        batch_size=batch,
        policy=as_policy(policy),
        schedule=as_schedule(schedule),
        backend="aten",
    )
    verdict = fit(made, budget)
    if not verdict.fits:
        raise verdict.error()
    for option, value in (
        ("--threads", threads),
        ("--workers", workers),
        ("--checkpoint-every", checkpoint_every),
    ):
        positive(option, value)
    recipe = recipe_of(net)
    rate = recipe.weight_rate if learning_rate is None else learning_rate
    # One rate for both is what --learning-rate alone means; 2012's biases keep their factor.
    factor = recipe.bias_rate / recipe.weight_rate
    chosen = TrainSettings(
        network=net,
        batch_size=batch,
        gpus=len(made.devices),
        policy=made.policy,
        schedule=made.schedule,
        budget_bytes=budget,
        data=str((data or _builtin(watch)).absolute()),
        steps=default_steps,
        seed=seed,
        threads=threads,
        workers=workers,
        checkpoint_every=checkpoint_every,
        weight_rate=_rate("--learning-rate", rate),
        bias_rate=_rate("--bias-rate", rate * factor if bias_rate is None else bias_rate),
        augmentation=as_augmentation(augment) if augment is not None else recipe.augmentation,
        normalisation=as_normalisation(normalise)
        if normalise is not None
        else recipe.normalisation,
        colour_noise=recipe.colour_noise if colour_noise is None else colour_noise,
    )
    images = discover(Path(chosen.data), most_classes=network.classes)
    chosen = replace(chosen, steps=_steps(steps, epochs, chosen, len(images.train)))
    return chosen, output or Path("runs") / time.strftime("%Y%m%d-%H%M%S")


def resumed(
    run_dir: Path, steps: int | None, epochs: float | None, threads: int | None, watch: Watcher
) -> TrainSettings:
    """Settings of a stopped run, with more steps if asked for."""
    stored = stored_settings(run_dir)
    if not Path(stored.data).is_dir():
        if Path(stored.data).parent != _cache():
            raise RunError(f"{run_dir}: its data folder {stored.data} is gone")
        _builtin(watch)
    if threads is not None and threads != stored.threads:
        positive("--threads", threads)
        watch.note(
            f"{threads} threads instead of {stored.threads}: weights may differ in the last bits"
        )
        stored = replace(stored, threads=threads)
    if steps is None and epochs is None:
        return stored
    network = load_network(stored.network)
    images = discover(Path(stored.data), most_classes=network.classes)
    return replace(stored, steps=_steps(steps, epochs, stored, len(images.train)))


def _steps(steps: int | None, epochs: float | None, settings: TrainSettings, images: int) -> int:
    if steps is not None and epochs is not None:
        raise AlexsimError("give --steps or --epochs, not both")
    if epochs is not None:
        if not epochs > 0:
            raise AlexsimError(f"--epochs must be positive, got {epochs:g}")
        return steps_of(epochs, images, settings.batch_size)
    if steps is not None:
        positive("--steps", steps)
        return steps
    return settings.steps


def _rate(option: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise AlexsimError(f"{option} must be a number >= 0, got {value:g}")
    return value


def _cache() -> Path:
    return user_cache_path("alexsim")


def _builtin(watch: Watcher) -> Path:
    def progress(done: int, total: int) -> None:
        watch.preparing("Drawing the built-in images", done, total)

    try:
        return builtin.ensure(_cache(), progress)
    except OSError as error:
        raise AlexsimError(f"cannot write the built-in images: {error}") from error
