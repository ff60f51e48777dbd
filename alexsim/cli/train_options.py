"""Options of ``alexsim train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alexsim.command import complete
from alexsim.command.fields import AT_ONCE, NOT_NEGATIVE, flag, listed, option
from alexsim.command.options import MachineOptions, edition
from alexsim.command.plan_options import (
    BudgetOptions,
    HybridOptions,
    KernelOptions,
    PlanOptions,
    RecipeRuleOptions,
)
from alexsim.data.augmentation import Augmentation, Normalisation
from alexsim.data.choices import Order
from alexsim.execute.choices import AskedDevice, Precision
from alexsim.plan.choices import Partition, TransportName

if TYPE_CHECKING:
    from alexsim.network.network import Network

CHANGEABLE = ("steps", "epochs", "threads", "gpus", "partition", "replicas", "processes")
"""What a run which goes on may have anew."""
BESIDE = ("resume", "machine", "timeout", "json")
"""What is no setting of a run."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(
    PlanOptions, HybridOptions, KernelOptions, RecipeRuleOptions, BudgetOptions, MachineOptions
):
    """What is trained, on what, and how; ``None`` where a recipe or a stored run may say."""

    net: str = option(
        "EDITION",
        "Network: see `alexsim network list`; or FILE.py:NAME; variants with +. Default:"
        " alexnet-2012, or that of --init-from.",
        "",
        callback=edition,
        autocompletion=complete.networks,
    )
    gpus: int | None = option(
        "N",
        "Virtual GPUs: one per column (the default), or 1 for all; `hybrid`: any number; so, with"
        " processes, for a network of one column, where they are --replicas.",
    )
    partition: Literal["columns", "hybrid"] | None = option(
        "PARTITION",
        "`columns`, the default: as the network is written; `hybrid`: a copy of the convolutions on"
        " every GPU, and a share of each fully connected layer, as in 2014 (networks of one"
        " column).",
    )
    data: Path | None = option(
        "DIR",
        "Images as DIR/<class>/*.JPEG, or with train/ and val/ as ILSVRC has them, or as `alexsim"
        " data pack` wrote them. Default: a small built-in set, drawn once: digits"
        " for networks that read grey, else textures.",
    )
    order: Order = option(
        "ORDER",
        "Of training images: `shuffled` anew every epoch; of a packed set also `shards`, eight"
        " mixed at a time, for slow disks, or `file`, as they lie, as in 2012.",
        "shuffled",
    )
    steps: int | None = option(
        "N", "Steps to train. Default: the edition's, as `alexsim network list` has it."
    )
    epochs: float | None = option("N", "Passes over the training images, instead.")
    recipe: str = option(
        "RECIPE",
        "Follow a recipe to its end, stage by stage: one of `alexsim recipe list`, or your own TOML"
        " file. Default: the edition's first stage.",
        "",
        autocompletion=complete.recipes,
    )
    init_from: Path | None = option(
        "MODEL", "Begin with the weights of a run, or of a .safetensors file."
    )
    new_head: bool = flag(
        "Replace the last projection by a new one, with as many outputs as there are classes."
    )
    seed: int = option("N", "Of everything random.", 0, rules=())
    learning_rate: float | None = option(
        "RATE", "Of weights; default: the edition's.", rules=NOT_NEGATIVE
    )
    bias_rate: float | None = option(
        "RATE", "Of biases; default: the edition's.", rules=NOT_NEGATIVE
    )
    augment: Augmentation | None = option(
        "WAY",
        "`2012`: one crop and mirror per 32 images; `paper`: per image; `crops`: without mirrors.",
    )
    normalise: Normalisation | None = option(
        "WAY",
        "`mean-image`: subtract it, as in 2012; `channels`: mean and deviation per channel, as"
        " articles say.",
    )
    colour_noise: bool | None = flag(
        "Along the principal colours.", None, names="--colour-noise/--no-colour-noise"
    )
    threads: int | None = option("N", "CPU threads per device. Default: all cores.", rules=AT_ONCE)
    workers: int | None = option("N", "Decoding processes. Default: cores, up to 4.", rules=AT_ONCE)
    checkpoint_every: int = option("N", "Steps between checkpoints.", 50)
    output: Path | None = option(
        "DIR", "Run directory. Default: runs/<date>-<time>.", names="-o --output"
    )
    resume: Path | None = option(
        "DIR",
        "Go on with a stopped run; only"
        f" {listed(f'--{name}' for name in CHANGEABLE)} may be changed.",
    )
    device: AskedDevice = option(
        "DEVICE",
        "`cpu`, `cuda` (a card per virtual GPU, or all on one where there are fewer), or `auto`:"
        " `cuda` where there is a card, else `cpu`.",
        "auto",
    )
    transport: TransportName | None = option(
        "TRANSPORT",
        "Exchanges on CUDA: `peer`, or `host` through pinned memory. Default: `host` where virtual"
        " GPUs share a card.",
    )
    precision: Precision = option(
        "PRECISION",
        "Of products: with --backend triton fp32, fp32x3, tf32, bf16 or fp16; with `native` fp32 or"
        " bf16, of fully connected layers.",
        "fp32",
    )
    graph: bool | None = flag(
        "Replay steps as a CUDA graph; the default on CUDA with --backend triton.",
        None,
        names="--graph/--no-graph",
    )
    strict: bool = flag("A process per virtual GPU; on CUDA its allocator enforces the budget too.")
    processes: bool = flag(
        "A process per GPU on this machine, as torchrun begins them on several; they exchange over"
        " gloo."
    )
    replicas: int | None = option(
        "N",
        "Copies of all GPUs, each on its share of the batch, in processes. Default: 1, or as many"
        " as torchrun began.",
    )
    timeout: float = option("SECONDS", "How long another process may be silent.", 120)

    def split(self, network: Network) -> tuple[int | None, Partition | None]:
        """GPUs of one replica and partition, as they were said."""
        del network
        return self.gpus, self.partition
