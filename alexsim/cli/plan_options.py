"""Options of commands that plan a training step, and the plan's specification that they make."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from alexsim.cli import complete
from alexsim.cli.fields import Options, flag, option
from alexsim.cli.options import BatchOptions, NetOptions
from alexsim.cli.run_options import DeviceOptions
from alexsim.errors import AlexsimError, known_as, unknown
from alexsim.network.update_rules import Optimizer
from alexsim.plan.choices import Partition, Policy, Schedule
from alexsim.units import parse_bytes

if TYPE_CHECKING:
    from alexsim.network.network import Network
    from alexsim.plan.spec import PlanSpec


@dataclass(frozen=True, kw_only=True)
class ColumnOptions(Options):
    """How columns share devices, and a device's memory."""

    gpus: int | None = option("N", "Virtual GPUs: one per column (the default), or 1 for all.")
    policy: Policy = option(
        "POLICY",
        "Memory: `as-released` keeps every buffer of 2012, `in-place` lets ReLU overwrite, `reuse`"
        " shares by lifetime; `pytorch` is what eager PyTorch would hold: it is not run.",
        "as-released",
    )


@dataclass(frozen=True, kw_only=True)
class StepOptions(BatchOptions, ColumnOptions):
    """A training step of any network."""

    schedule: Schedule = option("SCHEDULE", "`serial` as in 2012, or `overlap`.", "serial")


@dataclass(frozen=True, kw_only=True)
class LayerOptions(NetOptions, BatchOptions):
    """A minibatch of a network of which some layers learn."""

    train_only: str = option(
        "LAYERS",
        "Only these layers learn, as in fc8 or fc7,fc8; no gradient that none of them needs is"
        " computed or kept.",
        "",
        autocompletion=complete.weighted_layers,
    )

    def trainable(self, network: Network) -> frozenset[str] | None:
        """Layers that learn; None, which is all, where nothing was said.

        Raises:
            AlexsimError: no layer with weights is named so.
        """
        if not self.train_only:
            return None
        return frozenset(
            layer_of("--train-only", name, network.weighted_layers)
            for name in self.train_only.split(",")
        )


@dataclass(frozen=True, kw_only=True)
class PlanOptions(LayerOptions, StepOptions):
    """A training step of a network."""

    def plan_spec(self, **others: Any) -> PlanSpec:
        """Every choice of the plan that is an option here, and ``others``.

        Raises:
            AlexsimError: a choice is not allowed, or changes nothing.
        """
        from alexsim.network.editions import load_network
        from alexsim.plan.spec import PlanChoices, PlanSpec

        network = load_network(self.net)
        words = [each.name for each in fields(PlanChoices)] + ["optimizer"]
        given = {name: getattr(self, name, None) for name in words}
        chosen: dict[str, Any] = {name: word for name, word in given.items() if word is not None}
        chosen |= {"batch_size": self.batch, "trainable": self.trainable(network)}
        spec = PlanSpec(network=network, **chosen | others)
        return fused(getattr(self, "fuse", None), spec)


@dataclass(frozen=True, kw_only=True)
class SplitOptions(PlanOptions):
    """A training step of a network that is split over devices."""

    partition: Partition | None = option(
        "PARTITION",
        "`columns`; `replicas`: a copy per GPU; `hybrid`: fc layers split over GPUs.",
        "columns",
    )
    variable_batch: bool = flag(
        "With --partition hybrid: update fully connected layers after each GPU's images."
    )


@dataclass(frozen=True, kw_only=True)
class SplitRunOptions(SplitOptions):
    """One that can run: replicas have an option of their own."""

    gpus: int | None = option(
        "N", "Virtual GPUs: one per column (the default), or 1 for all; `hybrid`: any number."
    )
    partition: Literal["columns", "hybrid"] | None = option(
        "PARTITION",
        "`columns`, as the network is written; `hybrid`: a copy of the convolutions on every GPU,"
        " and a share of each fully connected layer, as in 2014 (networks of one column).",
        "columns",
    )


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Options):
    """How much memory a device has."""

    mem_cap: str | None = option(
        "SIZE",
        "Memory budget of each GPU, as in 3GB (= 3 x 1024^3 bytes). Default: the usable memory of a"
        " GTX 580 with 3 GB.",
    )

    def budget(self, usable: float) -> int:
        """Bytes of a GPU's memory: those given, or what is usable of the device.

        Raises:
            AlexsimError: it is no size.
        """
        if self.mem_cap is None:
            return int(usable)
        try:
            return parse_bytes(self.mem_cap)
        except AlexsimError as error:
            raise AlexsimError(f"--mem-cap: {error}") from error


@dataclass(frozen=True, kw_only=True)
class WhatIfOptions(Options):
    """Kernels that 2012 did not have."""

    fuse: bool | None = flag(
        "As if one kernel did two layers: a product and its ReLU, a response norm and its max-pool."
        " 2012's kernels did not.",
        None,
        names="--fuse",
    )


@dataclass(frozen=True, kw_only=True)
class KernelOptions(DeviceOptions):
    """Where a step runs, and by which kernels."""

    fuse: bool | None = flag(
        "One kernel for two layers, where --backend has one: a product and its ReLU; with `triton`"
        " also a response norm and its max-pool. Default: with --backend triton --policy reuse.",
        None,
        names="--fuse/--no-fuse",
    )


@dataclass(frozen=True, kw_only=True)
class RuleOptions(Options):
    """An update rule."""

    optimizer: Optimizer = option(
        "RULE",
        "By which weights are updated: `sgd-2012`, or `sgd` or `adamw` as PyTorch has them.",
        "sgd-2012",
    )


@dataclass(frozen=True, kw_only=True)
class RecipeRuleOptions(Options):
    """One that a recipe may have."""

    optimizer: Optimizer | None = option(
        "RULE",
        "By which weights are updated: `sgd-2012`, or `sgd` or `adamw` as PyTorch has them."
        " Default: sgd-2012, or that of --recipe.",
    )


def layer_of(option: str, given: str, names: tuple[str, ...]) -> str:
    """The layer of that name, in whatever case it was given.

    Raises:
        AlexsimError: there is none.
    """
    if (written := known_as(given, names)) is None:
        raise AlexsimError(f"{option}: {unknown('layer', given, names)}")
    return written


def fused(given: bool | None, spec: PlanSpec) -> PlanSpec:
    """The spec with its layers fused, if that was asked for, or is usual with its other choices.

    Raises:
        AlexsimError: it was asked for, and there is nothing to fuse; or not to, and nothing is.
    """
    from alexsim.plan.planner import plan

    usual = spec.backend == "triton" and spec.policy == "reuse"
    if given is False and not usual:
        raise AlexsimError(
            "--no-fuse is for --backend triton with --policy reuse: elsewhere no layers are fused"
        )
    if given and not any(op.epilogue for op in plan(replace(spec, fusion="kernels")).ops()):
        kernels = f"of backend {spec.backend} " if spec.backend else ""
        raise AlexsimError(f"--fuse: no kernel {kernels}does two layers of {spec.network.name}")
    return replace(spec, fusion="kernels") if given or (usual and given is None) else spec


def undone(spec: PlanSpec, *names: str, **usual: str) -> dict[str, PlanSpec]:
    """By option, the spec without each of these choices that was made.

    Args:
        spec: what was asked for.
        names: the choices.
        usual: what is used unless an option says so, where that is not the spec's default.
    """
    defaults = {field.name: field.default for field in fields(spec)} | usual
    others = {}
    for name in names:
        given = getattr(spec, name)
        if given != defaults[name]:
            option = "--fuse" if name == "fusion" else f"--{name.replace('_', '-')}"
            value = f" {given}" if isinstance(given, str) and name != "fusion" else ""
            others[option + value] = replace(spec, **{name: defaults[name]})  # type: ignore[arg-type]
    return others
