"""Options of what runs, and what is to be settled before it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from alexsim.command.fields import AT_ONCE, Options, option
from alexsim.errors import AlexsimError
from alexsim.execute.choices import AskedDevice, Backend, Device

if TYPE_CHECKING:
    from alexsim.network.network import Network
    from alexsim.plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(Options):
    """Where something runs."""

    device: AskedDevice = option(
        "DEVICE", "`cpu`, `cuda`, or `auto`: a card where there is one, else the CPU.", "auto"
    )
    threads: int | None = option("N", "CPU threads. Default: all cores.", rules=AT_ONCE)

    def device_here(self) -> Device:
        """The device that is meant, where there may be a card."""
        from alexsim.execute.here import device_here

        return device_here(self.device)

    def cores(self, processes: int = 1) -> int:
        """Threads of each of these processes.

        Raises:
            AlexsimError: they were given, and are of no use.
        """
        if self.threads is None:
            return max(1, (os.cpu_count() or 1) // processes)
        if self.device_here() == "cuda":
            raise AlexsimError("--threads are a CPU's (--device cpu): on a card none computes")
        return self.threads


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(PlaceOptions):
    """Where something runs, and by whose kernels."""

    backend: Backend | None = option(
        "BACKEND",
        "Whose kernels: `native` (ours for CPUs), `aten` (PyTorch's, cuDNN on CUDA) or `triton`"
        " (ours). Default: on a CPU native where GCC can compile them, else aten; on a card aten,"
        " and triton for ops that were measured to be faster by it.",
    )

    def faster_by_triton(self, networks: Iterable[Network], images: int) -> tuple[str, ...]:
        """Ops of backend aten that Triton's kernels run: none where a backend was asked for."""
        if self.backend is not None or self.device_here() == "cpu":
            return ()
        from alexsim.execute.here import faster_by_triton

        return faster_by_triton(networks, images)


def say(text: str) -> None:
    """One line on stderr."""
    typer.echo(f"alexsim: {text}", err=True)


def kernels_text(plan: Plan) -> str:
    """Which ops or layers another backend than the plan's runs; empty where it runs all."""
    if plan.spec.triton_ops:
        from alexsim.execute.here import faster_text

        return faster_text(plan)
    from alexsim.report.tables import lent_text

    return lent_text(plan) if plan.lent else ""


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
            raise AlexsimError(
                "--backend native is for CPUs (--device cpu); on a card: aten or triton"
            )
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
