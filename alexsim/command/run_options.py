"""Options of what runs, and what is to be settled before it does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import typer

from alexsim.command.fields import AT_ONCE, Options, option
from alexsim.errors import AlexsimError
from alexsim.execute.choices import Backend, Device


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(Options):
    """Where something runs."""

    device: Device = option("DEVICE", "`cpu` or `cuda`: where it runs.", "cpu")
    threads: int | None = option("N", "CPU threads. Default: all cores.", rules=AT_ONCE)

    def cores(self, processes: int = 1) -> int:
        """Threads of each of these processes.

        Raises:
            AlexsimError: they were given, and are of no use.
        """
        if self.threads is None:
            return max(1, (os.cpu_count() or 1) // processes)
        if self.device == "cuda":
            raise AlexsimError("--threads are a CPU's; with --device cuda none computes")
        return self.threads


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(PlaceOptions):
    """Where something runs, and by whose kernels."""

    backend: Backend | None = option(
        "BACKEND",
        "Whose kernels: `native` (ours for CPUs), `aten` (PyTorch's, cuDNN on CUDA) or `triton`"
        " (ours). Default: native on a CPU where GCC can compile them, else aten.",
    )


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(f"alexsim: {text}", err=True)


def chosen_backend(given: Backend | None, device: Device, note: Callable[[str], None]) -> Backend:
    """Whose kernels run, ready to: those that were asked for, or the usual ones there.

    Raises:
        AlexsimError: they cannot run there.
    """
    if given == "triton":
        _ready_for_triton(device, note)
        return given
    if device == "cuda" or given == "aten":
        if given == "native":
            raise AlexsimError("--backend native is for CPUs; with --device cuda: aten or triton")
        return "aten"
    from alexsim_kernels.cpu.build import BuildError, library

    try:
        library("float", note)
    except BuildError as error:
        if given == "native":
            raise AlexsimError(f"--backend native: {error}") from error
        note(f"backend aten, about two times slower: {error}")
        return "aten"
    return "native"


def _ready_for_triton(device: Device, note: Callable[[str], None]) -> None:
    """Triton's kernels are interpreted on a CPU: that is decided before Triton is imported.

    Raises:
        AlexsimError: it is not installed.
    """
    if find_spec("triton") is None:
        raise AlexsimError(
            "--backend triton: Triton is not installed (pip install 'alexsim[triton]')"
        )
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        note(
            "on a CPU, Triton interprets its kernels: right, and very slow. A batch of 2 takes"
            " some ten seconds a step (--batch 2); --device cuda runs them"
        )
