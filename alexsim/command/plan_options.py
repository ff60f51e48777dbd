"""Options of commands that plan a training step, and the plan's specification that they make."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from alexsim.command import complete
from alexsim.command.fields import Options, flag, option
from alexsim.command.options import BatchOptions, NetOptions, machine_as_written
from alexsim.command.run_options import DeviceOptions
from alexsim.errors import AlexsimError, known_as, unknown
from alexsim.network.update_rules import Optimizer
from alexsim.plan.choices import Partition, Policy, Schedule
from alexsim.units import parse_bytes

if TYPE_CHECKING:
    from alexsim.machine.machine import Machine
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
        from alexsim.command.asked import fused
        from alexsim.editions.load import load_network
        from alexsim.plan.spec import PlanChoices, PlanSpec

        network = load_network(self.net)
        words = [each.name for each in fields(PlanChoices)] + ["optimizer"]
        given = {name: getattr(self, name, None) for name in words}
        given["gpus"], given["partition"] = self.split(network)
        chosen: dict[str, Any] = {name: word for name, word in given.items() if word is not None}
        chosen |= {"batch_size": self.batch, "trainable": self.trainable(network)}
        return fused(getattr(self, "fuse", None), PlanSpec(network=network, **chosen | others))

    def split(self, network: Network) -> tuple[int | None, Partition | None]:
        """GPUs and partition: those of one replica, which is all that is measured.

        Raises:
            AlexsimError: it is on one GPU, and several were asked for.
        """
        if network.columns == 1 < (self.gpus or 1):
            raise AlexsimError(
                f"--gpus {self.gpus}: {network.name} is written in one column, so several GPUs have"
                " replicas of it, and one is measured; leave --gpus out, or `alexsim simulate"
                f" --gpus {self.gpus}`"
            )
        return self.gpus, None


@dataclass(frozen=True, kw_only=True)
class HybridOptions(Options):
    """A step of a hybrid plan."""

    variable_batch: bool = flag(
        "With --partition hybrid: update fully connected layers after each GPU's images."
    )


@dataclass(frozen=True, kw_only=True)
class GpuOptions(Options):
    """Several GPUs, how they share a step, and the machine that they are in."""

    gpus: int | None = option(
        "N",
        "GPUs. Default: one per column of the network, or all that --machine names, as in a100x4."
        " Several of a network of one column are `replicas`.",
    )
    partition: Partition | None = option(
        "PARTITION",
        "`columns`, as the network is written; `replicas`: data parallel, a copy per GPU; `hybrid`:"
        " copies whose fc layers are split over all GPUs. Default: columns, or replicas for several"
        " GPUs and one column.",
    )
    replicas: int = option("N", "With `columns`: copies of all columns, which share the batch.", 1)
    machine: str = option(
        "NAME",
        "Machine, device, device and count as in a100x4 (see `alexsim hardware list`), TOML file;"
        " to simulate also the .json file of `alexsim check calibrate`. Default: gtx580x2.",
        "",
        callback=machine_as_written,
        autocompletion=complete.machines,
    )
    network: str = option(
        "LINK",
        "Link between machines, as in 10gbe, or a TOML file: then any number of GPUs may be asked"
        " for. A bare device, or --library measured, is then a machine of one GPU each; without, a"
        " bare device's GPUs share one host.",
        "",
        autocompletion=complete.links,
    )

    def split(self, network: Network) -> tuple[int | None, Partition]:
        """GPUs and partition, where one of them was not said."""
        from alexsim.plan.asked import gpus_and_partition

        return gpus_and_partition(
            network,
            gpus=self.gpus,
            partition=self.partition,
            replicas=self.replicas,
            machine=self.machine,
        )

    def there(self, spec: PlanSpec) -> Machine | None:
        """The machine, with room for all of the spec's GPUs; None where none was named.

        Raises:
            AlexsimError: it has too few; or --network joins nothing.
        """
        from alexsim.machine.machine import machine_for

        if self.machine:
            return machine_for(self.machine, spec.all_gpus, self.network)
        if self.network:
            raise AlexsimError(f"--network {self.network} joins machines: name one by --machine")
        return None


@dataclass(frozen=True, kw_only=True)
class LibraryOptions(Options):
    """A library of kernels."""

    library: str = option(
        "LIBRARY",
        "Whose kernels' speed is modelled: cuda-convnet (as of 2012; its releases -2011-06 and"
        " -2011-09), cuda-convnet2, im2col-gemm, cudnn-v1 to cudnn-v8, cudnn-v7-heuristic (no trial"
        " of algorithms), nervana, fbfft, libdnn; miopen on AMD's cards, onednn on CPUs; roofline;"
        " measured (this machine). Default: that of the card's time.",
        "",
        autocompletion=complete.libraries,
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
        " also a response norm and its max-pool. Default: with --policy reuse, where any op is by"
        " triton.",
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
