"""What runs where no option says so: on a card where there is one, and there each op by whoever was
measured to be faster."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

import torch

from alexsim.execute import cards
from alexsim.execute.choices import AskedDevice, Device
from alexsim.network.kernel_names import kernel_name, kernel_names
from alexsim.network.network import Network
from alexsim.plan.plan import COMPUTED, Plan
from alexsim_kernels import op_names, tables


def device_here(asked: AskedDevice) -> Device:
    """What ``auto`` is on this machine, as PyTorch sees it; else what was asked for."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def name_of(device: Device) -> str:
    """``cpu``, or what the first card is called.

    Raises:
        AlexsimError: there is none.
    """
    if device == "cpu":
        return device
    cards.places(device, 1)
    return torch.cuda.get_device_name()


def faster_by_triton(networks: Iterable[Network], images: int) -> tuple[str, ...]:
    """Ops of these networks that Triton's kernels run faster than ATen's functions, with so many
    images, by the tables of this card: none where nothing was measured."""
    if find_spec("triton") is None or not torch.cuda.is_available():
        return ()
    times = tables.ops(_card())
    faster = []
    for name in sorted(frozenset[str]().union(*map(kernel_names, networks)) if times else ()):
        row = op_names.nearest(times, name, images)
        if row and times[row]["triton_ms"] < times[row]["aten_ms"]:
            faster.append(name)
    return tuple(faster)


def faster_text(plan: Plan) -> str:
    """How many ops of a plan Triton's kernels run, and whose table says so, if it still does."""
    ops = [op for op in plan.ops() if op.kind in COMPUTED]
    ours = [op for op in ops if op.backend == "triton"]
    names = {kernel_name(op.kind, plan.part(op), plan.epilogue(op)) for op in ours}
    times, users = tables.ops(_card()), tables.own_ops(_card())
    rows = {op_names.nearest(times, name, plan.batch_size) for name in names} - {None}
    whose = sorted({"own" if row in users else "shipped" for row in rows})
    table = f" ({' and '.join(whose)} table{'s' * (len(whose) > 1)})" if whose else ""
    return f"{len(ours)} of {len(ops)} ops by Triton's kernels, faster on this card{table}"


def _card() -> str:
    """The first card in its tables; they hold no other machine's."""
    import triton

    name = torch.cuda.get_device_name()
    return tables.card_name(name, triton.__version__)
