"""Which layers one kernel does together: a decision of the plan.

A layer says which kind of kernel runs it (``kernel``), or at the end of which it can be done
(``epilogue_of``); a backend says which of its kernels do so, and in which passes. What lies between
the two layers is then never in memory, so nothing else may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim.network.views import Read
from alexsim.plan.backends import Asked, backend_of, read_as_rows, rows_of
from alexsim.plan.plan import OpKind
from alexsim.plan.spec import PlanSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """Two layers whose forward pass is one op, named after the first."""

    first: str
    second: str
    backward: bool
    """Whether the first's gradients are computed from that of the second's output: then the second
    has no backward op, and what lies between them no gradient in memory."""


def fusions(spec: PlanSpec) -> dict[str, Fusion]:
    """What the backend fuses in a network, by the first layer's name."""
    network, backend = spec.written, backend_of(spec.backend, spec.triton_ops)
    beside, rows = _side_by_side(network), read_as_rows(network, spec.policy)
    shared = {layer.shares for layer in network.layers}
    fused = {}
    for firsts in network.parts:
        name = firsts[0].layer.name
        if not firsts[0].layer.kernel or len(network.readers[name]) != 1:
            continue
        seconds = network.parts_of(network.readers[name][0])
        if len(firsts) != len(seconds):
            continue
        # One rule for all columns, so that a layer is the same thing in each of them.
        passes = {
            backend.fuses(
                Asked(
                    OpKind.FORWARD,
                    first,
                    spec.op_images,
                    accumulate=first.owner in shared,
                    rows=rows_of(first, rows),
                ),
                second,
                rows=second.output in rows,
                adds=any(len(network.readers[read.layer]) > 1 for read in first.reads),
            )
            if _follows(first, second) and first.output not in beside
            else "none"
            for first, second in zip(firsts, seconds, strict=True)
        }
        if "none" in passes:
            continue
        fused[name] = Fusion(
            first=name, second=seconds[0].layer.name, backward=passes == {"forward and backward"}
        )
    return fused


def _follows(first: Part, second: Part) -> bool:
    """Whether the second can be done at the end of the first's kernel: it reads that output only,
    in the same column, hence on the same device."""
    output_alone = ((first.output,),)
    alike = (second.copied, second.gathers) == (first.copied, False)
    return (
        second.layer.epilogue_of == first.layer.kernel and alike and second.inputs == output_alone
    )


def _side_by_side(network: Network) -> frozenset[Read]:
    """Outputs that lie in one block with others, as a part reads them together."""
    return frozenset(
        read
        for parts in network.parts
        for part in parts
        for group in part.inputs
        if len(group) > 1
        for read in group
    )
