"""Options of ``alexsim simulate``."""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.command import complete
from alexsim.command.fields import Options, flag, option
from alexsim.command.options import TraceOptions
from alexsim.command.plan_options import (
    GpuOptions,
    HybridOptions,
    LibraryOptions,
    PlanOptions,
    RecipeRuleOptions,
    WhatIfOptions,
)
from alexsim.costs.precision import StepPrecision
from alexsim.plan.choices import TransportName
from alexsim.simulate.simulation import ILSVRC_IMAGES
from alexsim.simulate.timer import DataPath


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """A whole training run."""

    images: int = option("N", "Images in an epoch.", ILSVRC_IMAGES)


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(
    GpuOptions,
    LibraryOptions,
    PlanOptions,
    HybridOptions,
    WhatIfOptions,
    RecipeRuleOptions,
    ImageOptions,
    TraceOptions,
):
    """What is predicted, and on which machine."""

    link: str = option(
        "LINK",
        "Link of every device to its host, as in pcie3-x16, or a TOML file.",
        "",
        autocompletion=complete.links,
    )
    precision: StepPrecision = option(
        "PRECISION",
        "`fp32`, `tf32`, `fp16` (all of it); `amp`: each op as PyTorch's autocast has it;"
        " `pytorch`: as PyTorch unasked, convolutions in TF32 where the card can.",
        "fp32",
    )
    transport: TransportName | None = option(
        "TRANSPORT", "`peer` or `host`. Default: the machine's."
    )
    data_path: DataPath = option(
        "PATH", "`jpeg` reads, decodes and crops beside the step; `none`: images are ready.", "jpeg"
    )
    epochs: int | None = option("N", "Passes over the images. Default: 90.")
    settings: list[str] | None = option(
        "KEY=NUMBER", "Change one number, as in device.clock_mhz=1700.", names="--set"
    )
    recipe: str = option(
        "RECIPE",
        "A whole training run, stage by stage: `2012`, `paper`, `modern` or a TOML file. --epochs"
        " defaults to its own.",
        "",
        autocompletion=complete.recipes,
    )
    given: str = option(
        "FILE",
        "CSV file of measured rows of one's own, of the kinds that `alexsim check validate` takes,"
        " or `fermi` (shipped figures of other networks on cards of 2010 and 2011): they condition"
        " the shipped fit, and the step without them is shown beside.",
        "",
    )
    layers: bool = flag("Also show where the step goes, by kind of layer and layer.")
    ops: bool = flag("Also show the critical path and the longest ops.")
    transfers: bool = flag("Also show a timeline, each GPU, and what goes between them.")
    articles: bool = flag("Also show rates of cards at their peak, and what articles made of them.")
    sensitivity: bool = flag("Also show which assumptions matter most.")
    elasticities: bool = flag(
        "Also show what each layer's pass, transfers and the data path are worth: how much shorter"
        " the step is where it takes 1 % less time."
    )
    what_if: list[str] | None = option(
        "CHANGE",
        "The step with one change beside it, each time the option is given: `conv2.forward=2x` or"
        " `conv*=1.5x` (kernels so many times as fast), `fuse`, `overlap`, `precision=amp`,"
        " `precision=fp16:conv*` (the products of these layers), `link=pcie3-x16`, `batch=256` or"
        " another option here, `device.clock_mhz=1700` or another number of the machine.",
        autocompletion=complete.changes,
    )
