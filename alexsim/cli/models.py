"""What commands share that ask trained networks something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alexsim.train.evaluate import Setup

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run directory, or a .safetensors file of `alexsim export` or `alexsim import`.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Crops at a time.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="`cpu` or `cuda`: where they run.")
]
Backend = Annotated[
    str, typer.Option("--backend", metavar="BACKEND", help="Whose kernels: `aten` or `triton`.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="CPU threads. Default: all cores.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Decoding processes. Default: cores, up to 4."),
]


def setup(batch: int, device: str, backend: str, threads: int | None, workers: int | None) -> Setup:
    """Where and how networks answer.

    Raises:
        AlexsimError: an option is out of range.
    """
    import torch

    from alexsim.cli.parse import choice, positive
    from alexsim.cli.train_settings import ready_for_triton
    from alexsim.execute.choices import BACKENDS, DEVICES
    from alexsim.train.evaluate import Setup
    from alexsim.train.records import Watcher

    cores = os.cpu_count() or 1
    given = {
        "--batch": batch,
        "--threads": cores if threads is None else threads,
        "--workers": min(4, cores) if workers is None else workers,
    }
    for option, value in given.items():
        positive(option, value)
    torch.set_num_threads(given["--threads"])
    where, by = choice("--device", device, DEVICES), choice("--backend", backend, BACKENDS)
    if by == "triton":
        ready_for_triton(where, Watcher(note=lambda text: typer.echo(f"alexsim: {text}", err=True)))
    return Setup(batch_size=batch, workers=given["--workers"], device=where, backend=by)
