"""From the options of ``alexsim train`` to the settings of a run."""

from __future__ import annotations

import os
import time
from dataclasses import fields, replace
from pathlib import Path

from alexsim.builtin.sets import set_for
from alexsim.cli.train_options import TrainOptions
from alexsim.command.run_options import chosen_backend
from alexsim.data.dataset import Dataset
from alexsim.data.discover import discover
from alexsim.data.order import refuse_order
from alexsim.editions.load import load_network
from alexsim.editions.variants import without_head
from alexsim.errors import AlexsimError
from alexsim.machine.defaults import DEVICE
from alexsim.machine.device import load_device
from alexsim.names import name_text
from alexsim.network.network import Network
from alexsim.plan.choices import TransportName
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.processes.world import Place
from alexsim.recipe.adjusted import adjusted
from alexsim.recipe.defaults import training_defaults
from alexsim.recipe.file import load_recipe, recipe_name
from alexsim.recipe.recipe import Recipe
from alexsim.train.built_in import drawn
from alexsim.train.config import steps_of
from alexsim.train.copies import data_parallel, replicas_of
from alexsim.train.engine import refuse_what_does_not_fit
from alexsim.train.initial import refuse_not_finite, refuse_other_layers
from alexsim.train.settings import TrainSettings, Watcher
from alexsim.train.weights import Weights, load_weights

_NET = "alexnet-2012"
_MOST_CLASSES = 999_999


def begin(
    options: TrainOptions, watch: Watcher, place: Place | None
) -> tuple[TrainSettings, Path, Dataset]:
    """Settings, directory and images of a new run; everything that can be wrong is wrong here.

    Raises:
        AlexsimError: an option is out of range.
        MemoryBudgetError: the plan does not fit, before any data is drawn.
    """
    options = replace(options, device=options.device_here())
    initial = load_weights(options.init_from) if options.init_from else None
    options = replace(options, net=options.net or (initial.network if initial else _NET))
    recipe = _recipe(options, initial)
    images = None
    if options.new_head:
        if initial is None:
            raise AlexsimError("--new-head goes with --init-from: without it every layer is new")
        root = _root(options, load_network(options.net), watch)
        images = discover(root, most_classes=_MOST_CLASSES)
        net = f"{without_head(options.net)}+{len(images.classes)}-classes"
        options = replace(options, net=net)
    network = load_network(options.net)
    if initial is not None:
        refuse_other_layers(initial, network, new_head=options.new_head)
        refuse_not_finite(initial, network, new_head=options.new_head)
    recipe = _frozen(options, recipe, network)
    settings = _settings(options, recipe, watch, place)
    refuse_what_does_not_fit(settings)
    root = _root(options, network, watch)
    images = images or discover(root, most_classes=network.classes)
    refuse_order(settings.order, images)
    if options.recipe and options.steps is None and options.epochs is None:
        options = replace(options, epochs=recipe.epochs)
    steps = steps_wanted(options, settings, len(images.train))
    return replace(settings, data=str(root), steps=steps), _run_directory(options.output), images


def _settings(
    options: TrainOptions, recipe: Recipe, watch: Watcher, place: Place | None
) -> TrainSettings:
    """Settings of a run, but for its images and their number of steps."""
    budget = options.budget(load_device(DEVICE).memory_bytes.value)
    network, device = load_network(options.net), options.device_here()
    faster: tuple[str, ...] = ()
    if options.partition != "hybrid":
        images = options.batch // (options.replicas or 1)
        faster = options.faster_by_triton([network], images)
    options = replace(options, backend=chosen_backend(options.backend, device, watch.note))
    options = replicated(options, network, place)
    apart = apart_anyway(options, place)
    _refuse_together(options, apart=apart)
    if options.partition == "hybrid" and options.gpus is None and place:
        options = replace(options, gpus=place.size)
    alone = {"trainable": None, "transport": "", "replicas": 1}
    made = plan(options.plan_spec(optimizer=recipe.optimizer, triton_ops=faster, **alone))
    copies = replicas_of(options.replicas, made, place, processes=options.processes)
    on_host = copies * len(made.devices) if options.processes else 1
    on_host = place.on_host if place else on_host
    # To the bits of one process, each of a strict run has as many threads as that would.
    threads = options.cores(1 if options.strict else on_host)
    transport = _transport(options, len(made.devices), apart=apart)
    workers = min(4, os.cpu_count() or 1) if options.workers is None else options.workers
    same = {each.name for each in fields(TrainSettings)} & {each.name for each in fields(options)}
    chosen = {name: getattr(options, name) for name in same} | {
        "network": options.net,
        "batch_size": options.batch,
        "gpus": len(made.devices),
        "replicas": copies,
        "partition": made.spec.partition,
        "fusion": made.spec.fusion,
        "triton_ops": faster,
        "budget_bytes": budget,
        "data": "",
        "steps": training_defaults(options.net).steps,
        "threads": threads,
        "workers": workers,
        "recipe": recipe,
        "transport": transport,
        "graph": _captured(options, made, place),
        "init_from": str(options.init_from.absolute()) if options.init_from else "",
    }
    return TrainSettings(**chosen)


def _recipe(options: TrainOptions, initial: Weights | None) -> Recipe:
    """What is followed, with what was given on the command line."""
    recipe = load_recipe(options.recipe or recipe_name(options.net))
    return adjusted(
        recipe if options.recipe else recipe.only_first_stage,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        bias_rate=options.bias_rate,
        augmentation=options.augment,
        # The layers of a trained network have learnt from images normalised as they were.
        normalisation=options.normalise or (initial.normalisation if initial else None),
        colour_noise=options.colour_noise,
    )


def _frozen(options: TrainOptions, recipe: Recipe, network: Network) -> Recipe:
    """The recipe in which only the layers that were asked for learn."""
    if learns := options.trainable(network):
        recipe = recipe.freezing(tuple(n for n in network.weighted_layers if n not in learns))
    recipe.refuse_strange_layers(network.weighted_layers)
    return recipe


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


def _refuse_together(options: TrainOptions, *, apart: bool) -> None:
    """Refuse options that do not go together."""
    graph, strict = options.graph, options.strict
    if options.precision != "fp32" and options.backend != "triton":
        _refuse_precision(options)
    if graph and (options.device, options.backend) != ("cuda", "triton"):
        raise AlexsimError("--graph needs --device cuda and --backend triton")
    if graph and strict:
        raise AlexsimError("--graph cannot hold the exchanges between processes of --strict")
    if apart and strict:
        raise AlexsimError(
            "--strict goes without --processes and torchrun: they begin a process per GPU as well"
        )
    if apart and graph:
        raise AlexsimError("--graph is for one process that has all devices")
    if strict and options.partition == "hybrid":
        raise AlexsimError("--strict runs --partition columns only; --processes runs hybrid")


def _refuse_precision(options: TrainOptions) -> None:
    """Refuse what our kernels for CPUs, or this CPU, do not multiply."""
    if (options.backend, options.precision) != ("native", "bf16"):
        also = " (or, on a CPU, bf16 with --backend native)"
        raise AlexsimError(f"--precision {options.precision} needs --backend triton{also}")
    from alexsim_kernels.cpu.build import bf16_available

    if why_not := bf16_available():
        raise AlexsimError(f"--precision bf16: {why_not}")


def _captured(options: TrainOptions, made: Plan, place: Place | None) -> bool:
    """Whether steps are replayed as a graph, which keeps the rates that it was captured with where
    no kernel of ours updates weights."""
    left = any(op.kind == OpKind.UPDATE and op.backend != "triton" for op in made.ops())
    if options.graph and left:
        raise AlexsimError(
            f"--graph: {made.network.name} has updates by {made.spec.optimizer} that no Triton"
            " kernel does"
        )
    if options.graph is None:
        apart = options.strict or bool(place) or options.processes
        return (options.device, options.backend) == ("cuda", "triton") and not (apart or left)
    return options.graph


def apart_anyway(options: TrainOptions, place: Place | None) -> bool:
    """Whether every GPU has a process of its own for another reason than ``--strict``."""
    return options.processes or (place is not None and not place.launcher)


def replicated(options: TrainOptions, network: Network, place: Place | None) -> TrainOptions:
    """The options with --replicas for --gpus, where several GPUs are meant to have a copy each."""
    together = place is None and not options.processes
    if options.gpus is None or options.partition is not None:
        return options
    gpus, replicas = data_parallel(network, options.gpus, options.replicas, together=together)
    return replace(options, gpus=gpus, replicas=replicas)


def _transport(options: TrainOptions, devices: int, *, apart: bool) -> TransportName:
    """How exchanges travel: over PCIe where virtual GPUs share a card, as between two."""
    given, apart = options.transport, apart or options.strict
    if given and options.device == "cpu":
        raise AlexsimError(f"--transport {given} needs --device cuda: a CPU's memory is the host's")
    if given and (devices == 1 or apart):
        why = "processes exchange over gloo" if apart else "one GPU exchanges nothing"
        raise AlexsimError(f"--transport {given} changes nothing: {why}")
    if options.device == "cpu":
        return "peer"
    from alexsim.execute.cards import places

    shared = len(set(places(options.device, devices))) < devices
    return given or ("host" if shared else "peer")


def steps_wanted(options: TrainOptions, settings: TrainSettings, images: int) -> int:
    """Steps that were asked for, or those of the settings.

    Raises:
        AlexsimError: they were asked for twice.
    """
    if options.steps is not None and options.epochs is not None:
        raise AlexsimError("give --steps or --epochs, not both")
    if options.epochs is not None:
        return steps_of(options.epochs, images, settings.batch_size)
    return settings.steps if options.steps is None else options.steps


def _root(options: TrainOptions, network: Network, watch: Watcher) -> Path:
    """The folder of the images."""
    return (options.data or drawn(set_for(network.input_shape[0]), watch)).absolute()
