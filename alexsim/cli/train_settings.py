"""From the options of ``alexsim train`` to the settings of a run."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from alexsim.cli.memory import DEVICE
from alexsim.cli.parse import (
    MOST_AT_ONCE,
    above_zero,
    as_augmentation,
    as_normalisation,
    as_optimizer,
    as_partition,
    as_policy,
    as_schedule,
    budget_of,
    choice,
    fused,
    positive,
    trainable,
)
from alexsim.data import builtin
from alexsim.data.dataset import Dataset
from alexsim.data.discover import discover
from alexsim.data.loader import ORDERS, refuse_order
from alexsim.errors import AlexsimError
from alexsim.execute.choices import BACKENDS, DEVICES, PRECISIONS, Backend, Device
from alexsim.execute.world import Place
from alexsim.machine.device import load_device
from alexsim.names import name_text
from alexsim.network.editions import load_network
from alexsim.network.variants import without_head
from alexsim.plan.planner import plan
from alexsim.plan.records import OpKind, Plan
from alexsim.plan.spec import TRANSPORTS, Partition, TransportName
from alexsim.recipe.defaults import training_defaults
from alexsim.recipe.file import load_recipe, recipe_name
from alexsim.recipe.recipe import Recipe
from alexsim.train.config import steps_of
from alexsim.train.engine import refuse_what_does_not_fit
from alexsim.train.initial import refuse_not_finite, refuse_other_layers
from alexsim.train.records import TrainSettings, Watcher
from alexsim.train.weights import load_weights

_NET = "alexnet-2012"
_MOST_CLASSES = 999_999


def begin(
    watch: Watcher,
    *,
    net: str,
    batch: int,
    gpus: int | None,
    mem_cap: str | None,
    policy: str,
    schedule: str,
    partition: str,
    variable_batch: bool,
    fuse: bool | None,
    data: Path | None,
    order: str,
    steps: int | None,
    epochs: float | None,
    recipe: str,
    seed: int,
    learning_rate: float | None,
    bias_rate: float | None,
    augment: str | None,
    normalise: str | None,
    colour_noise: bool | None,
    threads: int | None,
    workers: int,
    checkpoint_every: int,
    output: Path | None,
    device: str,
    backend: str,
    transport: str,
    precision: str,
    graph: bool | None,
    strict: bool,
    processes: bool,
    replicas: int | None,
    place: Place | None,
    init_from: Path | None,
    new_head: bool,
    train_only: str,
    optimizer: str,
) -> tuple[TrainSettings, Path, Dataset]:
    """Settings, directory and images of a new run; everything that can be wrong is wrong here.

    Raises:
        AlexsimError: an option is out of range.
        MemoryBudgetError: the plan does not fit, before any data is drawn.
    """
    initial = load_weights(init_from) if init_from else None
    net = net or (initial.network if initial else _NET)
    followed = load_recipe(recipe or recipe_name(net))
    if not recipe:
        followed = followed.only_first_stage
    if initial is not None and normalise is None:
        # Its layers have learnt from images like that.
        normalise = initial.normalisation
    if optimizer:
        followed = followed.updated_by(as_optimizer(optimizer))
    followed = _changed(followed, learning_rate, bias_rate, augment, normalise, colour_noise)
    images = None
    if new_head:
        if initial is None:
            raise AlexsimError("--new-head goes with --init-from: without it every layer is new")
        data = data or builtin_images(watch)
        images = discover(data.absolute(), most_classes=_MOST_CLASSES)
        net = f"{without_head(net)}+{len(images.classes)}-classes"
    network = load_network(net)
    if initial is not None:
        refuse_other_layers(initial, network, new_head=new_head)
        refuse_not_finite(initial, network, new_head=new_head)
    if learns := trainable(train_only, network):
        followed = followed.freezing(tuple(n for n in network.weighted_layers if n not in learns))
    followed.refuse_strange_layers(network.weighted_layers)
    budget = budget_of(mem_cap, load_device(DEVICE).memory_bytes.value)
    where, by = choice("--device", device, DEVICES), choice("--backend", backend, BACKENDS)
    split = as_partition(partition or "columns")
    apart = apart_anyway(place, processes=processes)
    _refuse_together(precision, where, by, split, graph=graph, strict=strict, apart=apart)
    if split == "hybrid" and gpus is None and place:
        gpus = place.size
    made = plan(
        network,
        gpus=gpus,
        partition=split,
        variable_batch=variable_batch,
        batch_size=batch,
        policy=as_policy(policy),
        backend=by,
        optimizer=followed.optimizer,
    )
    copies = replicas_of(replicas, made, batch, processes=processes, place=place)
    on_host = place.on_host if place else copies * len(made.devices) if processes else 1
    # To the bits of one process, each of a strict run has as many threads as that would.
    threads = _threads(threads, where, 1 if strict else on_host)
    way = _transport(transport, where, len(made.devices), apart=apart or strict)
    if by == "triton":
        ready_for_triton(where, watch)
    positive("--threads", threads, most=MOST_AT_ONCE)
    positive("--workers", workers, most=MOST_AT_ONCE)
    positive("--checkpoint-every", checkpoint_every)
    chosen = TrainSettings(
        network=net,
        batch_size=batch,
        gpus=len(made.devices),
        policy=as_policy(policy),
        schedule=as_schedule(schedule),
        partition=split,
        variable_batch=variable_batch,
        fusion=fused(fuse, made.spec).fusion,
        budget_bytes=budget,
        data="",
        steps=training_defaults(net).steps,
        seed=seed,
        threads=threads,
        workers=workers,
        checkpoint_every=checkpoint_every,
        recipe=followed,
        device=where,
        backend=by,
        transport=way,
        precision=choice("--precision", precision, PRECISIONS),
        graph=_captured(graph, made, where, apart=strict or bool(place) or processes),
        strict=strict,
        order=choice("--order", order, ORDERS),
        init_from=str(init_from.absolute()) if init_from else "",
        new_head=new_head,
        replicas=copies,
    )
    refuse_what_does_not_fit(chosen)
    root = (data or builtin_images(watch)).absolute()
    images = images or discover(root, most_classes=network.classes)
    refuse_order(chosen.order, images)
    if recipe and steps is None and epochs is None:
        epochs = followed.epochs
    chosen = replace(
        chosen, data=str(root), steps=steps_wanted(steps, epochs, chosen, len(images.train))
    )
    return chosen, _run_directory(output), images


def _run_directory(output: Path | None) -> Path:
    """Where a run goes."""
    run_dir = output or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    try:
        str(run_dir).encode()
    except UnicodeEncodeError:
        raise AlexsimError(
            f"-o {name_text(str(run_dir))}: safetensors reads UTF-8 paths only"
        ) from None
    return run_dir


def _refuse_together(
    precision: str,
    device: Device,
    backend: Backend,
    partition: Partition,
    *,
    graph: bool | None,
    strict: bool,
    apart: bool,
) -> None:
    """Refuse options that do not go together."""
    if precision != "fp32" and backend != "triton":
        raise AlexsimError(f"--precision {precision} needs --backend triton")
    if graph and (device, backend) != ("cuda", "triton"):
        raise AlexsimError("--graph needs --device cuda and --backend triton")
    if graph and strict:
        raise AlexsimError("--graph cannot hold the exchanges between processes of --strict")
    if apart and strict:
        raise AlexsimError(
            "--strict goes without --processes and torchrun: they begin a process per GPU as well"
        )
    if apart and graph:
        raise AlexsimError("--graph is for one process that has all devices")
    if strict and partition == "hybrid":
        raise AlexsimError("--strict runs --partition columns only; --processes runs hybrid")


def _captured(given: bool | None, made: Plan, device: Device, *, apart: bool) -> bool:
    """Whether steps are replayed as a graph, which keeps the rates that it was captured with where
    no kernel of ours updates weights."""
    left = any(op.kind == OpKind.UPDATE and op.backend != "triton" for op in made.ops())
    if given and left:
        raise AlexsimError(
            f"--graph: {made.network.name} has updates by {made.spec.optimizer} that no Triton"
            " kernel does"
        )
    if given is None:
        return (device, made.spec.backend) == ("cuda", "triton") and not (apart or left)
    return given


def apart_anyway(place: Place | None, *, processes: bool) -> bool:
    """Whether every GPU has a process of its own for another reason than ``--strict``."""
    return processes or (place is not None and not place.launcher)


def _threads(given: int | None, device: Device, processes: int) -> int:
    """Threads of each process."""
    if given is None:
        return max(1, (os.cpu_count() or 1) // processes)
    if device == "cuda":
        raise AlexsimError("--threads are a CPU's; with --device cuda none computes")
    return given


def replicas_of(
    given: int | None, made: Plan, batch: int, *, processes: bool, place: Place | None
) -> int:
    """Copies of all columns: as many as the processes make, or as were asked for."""
    columns = len(made.devices)
    if given is not None:
        positive("--replicas", given)
    if place is None:
        if given not in (None, 1) and not processes:
            raise AlexsimError(
                f"--replicas {given} needs a process per GPU: --processes, or torchrun"
            )
        copies = given or 1
    else:
        copies, left = divmod(place.size, columns)
        if left or not copies or given not in (None, copies):
            asked = f"{given} replicas" if given else "whole replicas"
            raise AlexsimError(f"{place.size} processes do not make {asked} of {columns} GPU(s)")
    if copies > 1 and made.spec.partition == "hybrid":
        raise AlexsimError(
            f"--partition hybrid has as many --gpus as processes, not {copies} replicas"
        )
    if batch % copies:
        raise AlexsimError(f"--batch {batch} does not divide over {copies} replicas")
    return copies


def _transport(given: str, device: Device, devices: int, *, apart: bool) -> TransportName:
    """How exchanges travel: over PCIe where virtual GPUs share a card, as between two."""
    if given:
        choice("--transport", given, TRANSPORTS)
        if device == "cpu":
            raise AlexsimError(
                f"--transport {given} needs --device cuda: a CPU's memory is the host's"
            )
        if devices == 1 or apart:
            why = "processes exchange over gloo" if apart else "one GPU exchanges nothing"
            raise AlexsimError(f"--transport {given} changes nothing: {why}")
    if device == "cpu":
        return "peer"
    from alexsim.execute.cards import places

    shared = len(set(places(device, devices))) < devices
    return choice("--transport", given or ("host" if shared else "peer"), TRANSPORTS)


def ready_for_triton(device: str, watch: Watcher) -> None:
    """Triton's kernels are interpreted on a CPU: that is decided before Triton is imported."""
    if find_spec("triton") is None:
        raise AlexsimError(
            "--backend triton: Triton is not installed (pip install 'alexsim[triton]')"
        )
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        watch.note(
            "on a CPU, Triton interprets its kernels: right, and very slow. A batch of 2 takes"
            " some ten seconds a step (--batch 2); --device cuda runs them"
        )


def steps_wanted(
    steps: int | None, epochs: float | None, settings: TrainSettings, images: int
) -> int:
    if steps is not None and epochs is not None:
        raise AlexsimError("give --steps or --epochs, not both")
    if epochs is not None:
        above_zero("--epochs", epochs)
        return steps_of(epochs, images, settings.batch_size)
    if steps is not None:
        positive("--steps", steps)
        return steps
    return settings.steps


def _changed(
    recipe: Recipe,
    learning_rate: float | None,
    bias_rate: float | None,
    augment: str | None,
    normalise: str | None,
    colour_noise: bool | None,
) -> Recipe:
    """A recipe with what was given on the command line; rates scale all of its stages."""
    if bias_rate is not None and recipe.optimizer != "sgd-2012":
        raise AlexsimError(
            f"--bias-rate is for --optimizer sgd-2012; {recipe.optimizer} has one rate for"
            " everything, --learning-rate"
        )
    first = recipe.stages[0]
    weights = 1.0
    if learning_rate is not None:
        weights = _factor("--learning-rate", learning_rate, first.weight_rate)
    # One rate for both is what --learning-rate alone means; 2012's biases keep their factor.
    biases = weights if bias_rate is None else _factor("--bias-rate", bias_rate, first.bias_rate)
    recipe = recipe.scaled(weights, biases)
    if augment is not None:
        recipe = replace(recipe, augmentation=as_augmentation(augment))
    if normalise is not None:
        recipe = replace(recipe, normalisation=as_normalisation(normalise))
    if colour_noise is not None:
        stages = tuple(replace(stage, colour_noise=colour_noise) for stage in recipe.stages)
        recipe = replace(recipe, stages=stages)
    return recipe


def _factor(option: str, value: float, of: float) -> float:
    """What makes ``of`` the rate that was given."""
    if not of:
        raise AlexsimError(f"{option}: the recipe's first rate is 0, and cannot be scaled")
    return _rate(option, value) / of


def _rate(option: str, value: float) -> float:
    if not 0 <= value < float("inf"):
        raise AlexsimError(f"{option} must be a number >= 0, got {value:g}")
    return value


def cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("alexsim")


def builtin_images(watch: Watcher) -> Path:
    def progress(done: int, total: int) -> None:
        watch.preparing("Drawing the built-in images", done, total)

    try:
        return builtin.ensure(cache(), progress)
    except OSError as error:
        raise AlexsimError(f"cannot write the built-in images: {error}") from error
