"""Where and how networks answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from alexsim.execute.choices import Backend, Device
from alexsim.execute.here import faster_text, name_of
from alexsim.network.network import Network
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Where and how networks answer."""

    batch_size: int
    workers: int
    device: Device = "cpu"
    backend: Backend = "aten"
    triton_ops: tuple[str, ...] = ()
    """Of backend aten: those that Triton's kernels run."""


def setup_text(setup: Setup, networks: Iterable[Network]) -> str:
    """Where networks answer, and by whose kernels."""
    plans = [forward_plan(network, setup) for network in networks if setup.triton_ops]
    where = f"on {name_of(setup.device)}, backend {setup.backend}"
    return "; ".join([where, *dict.fromkeys(map(faster_text, plans))])


def forward_plan(network: Network, setup: Setup) -> Plan:
    """A plan that only goes forward."""
    return plan(
        network,
        gpus=1,
        batch_size=setup.batch_size,
        trainable=frozenset(),
        backend=setup.backend,
        triton_ops=setup.triton_ops,
        threads=torch.get_num_threads(),
    )
