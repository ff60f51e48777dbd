"""How rows of several GPUs ran: over which links, who summed, and what the framework did besides.

Who summed gradients follows from the framework and the row's notes; a measured value never counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from alexsim.fidelity.rows import Case
from alexsim.machine.collectives import broadcast_s
from alexsim.machine.device import load_device
from alexsim.machine.link import load_link
from alexsim.machine.machine import Collectives, Machine, load_machine
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import Role
from alexsim.network.network import Network

_SERVERS = {
    "gtx580": "gtx580x2",
    "k20": "k20x8",
    "k80": "k80x16",
    "p100": "dgx-1",
    "v100": "dgx-1v",
    "v100-sxm3": "dgx-1v",
    "a100": "dgx-a100",
    "a100-80gb": "dgx-a100",
    "h100": "hgx-h200",
    "h200": "hgx-h200",
}
"""Machines that the devices are sold in; another card stands in a slot of its own."""
_COLLECTIVES: dict[str, Collectives] = {
    "caffe": "tree",
    "torch7": "root",
    "mxnet": "root",
    "cuda-convnet": "copies",
}
"""By framework; all others sum by NCCL, unless their notes say more."""
_HIDDEN = {"tensorflow": 0.6, "pytorch": 0.6}
"""Of the sums, what is done while gradients are still computed: these frameworks sum a layer's
gradients as soon as they are there. Fitted to the steps of 2 and 4 RTX 2080 Ti in TensorFlow 1.15
(published.csv, lam-0113 to lam-0126). TensorFlow's XLA computes all gradients in one piece and
hides nothing, as its steps say (lam-0081 to lam-0112)."""

# ``torch.nn.DataParallel``: one process copies a module to all cards before every forward pass and
# launches each card's kernels from a thread of its own, one thread at a time (Python's lock).
# Fitted to 32 networks on 2 to 4 cards of three machines (ryujaehun/pytorch-gpu-benchmark), with
# the time of one card as published.
_LAUNCH_S = 25e-6
"""Per parameter or buffer and card: what Python takes to launch the layers of a forward pass."""
_THREAD_S = 3.3e-3
"""Per card: its thread, its share of the images, its outputs."""
_REPLICATE_S = 30e-6
"""Per parameter or buffer: its place in the copies of the module."""
_BACKWARD_S = 45e-6
"""Per parameter or buffer and card, of a forward and a backward pass: both of the above beside the
autograd engine's own threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The machine of a row, with the library that summed, and the share of sums that was hidden."""

    machine: Machine
    hidden: float


def setting_of(case: Case) -> Setting:
    """What a row of several GPUs ran on, by its device, its links, its framework and its notes."""
    row, text = case.row, case.row.interconnect.lower()
    machine = load_machine(_SERVERS.get(case.device, case.device))
    if machine.device_name != case.device:
        machine = replace(machine, device=load_device(case.device), device_name=case.device)
    collectives = _COLLECTIVES.get(case.family, "nccl")
    if served := "parameter_server" in row.notes:
        collectives = "host" if "parameter_server on cpu" in row.notes else "root"
    if "nvlink" in text and machine.peer_link is None and "pairs" not in text:
        machine = replace(machine, peer_link=load_link("nvlink2"))
    # Figures of cards that bridges join in pairs are those without: lam-0084 to lam-0102.
    peer = machine.peer and not any(words in text for words in ("no p2p", "pairs"))
    return Setting(
        machine=replace(machine, collectives=collectives, peer=peer),
        hidden=0.0 if served else _HIDDEN.get(case.family, 0.0),
    )


def in_one_process(case: Case) -> bool:
    """Whether a row's cards worked for ``torch.nn.DataParallel``: all images come to one card."""
    return case.family == "pytorch" and "upload of images inside" in case.row.notes


def replicated_s(case: Case, machine: Machine, alone_s: float) -> float:
    """Seconds of a pass by ``torch.nn.DataParallel``.

    Args:
        case: a row of several GPUs; ``fwd`` or ``fwd+bwd``.
        machine: its machine. Copies between cards go at the full rate also where the driver stages
            them.
        alone_s: seconds of the same pass of one card's share of the images, alone.
    """
    cards, network = case.row.n_gpus, case.network
    size = (2 if case.precision == "fp16" else FLOAT_BYTES) * network.parameters
    spread_s = broadcast_s(machine, cards, size, peer=True)
    tensors = held_tensors(network)
    if case.passes == "fwd":
        launched_s = cards * (tensors * _LAUNCH_S + _THREAD_S)
        return max(alone_s, launched_s) + tensors * _REPLICATE_S + spread_s
    return alone_s + cards * tensors * _BACKWARD_S + 2 * spread_s


def held_tensors(network: Network) -> int:
    """Parameters and buffers of a PyTorch module: a layer with running statistics counts batches
    too."""
    counts = 0
    for parts in network.parts:
        for part in parts:
            roles = [parameter.role for parameter in part.parameters_by_name.values()]
            counts += len(roles) + (Role.RUNNING in roles)
    return counts
