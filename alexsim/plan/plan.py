"""The plan's records: ops, buffers, exchanges, and what each device holds and does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.layers import Shape
from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim.plan.choices import TransportName
from alexsim.plan.exchanges import Collective, Exchange
from alexsim.plan.spec import PlanSpec
from alexsim.trace import Activity, Span

Queue = Literal["compute", "copy_in", "copy_out"]
Operands = Mapping[str, tuple[str, ...]]
"""Role -> buffers."""
_NOTHING = Count()


class OpKind(StrEnum):
    """What an op does. An exchange is a post on its source and a wait on its target.

    An ``all_reduce`` begins to sum a layer's gradients over replicas, or over a hybrid plan's
    devices; the layer's ``update`` waits for the sum. ``all_gather`` and ``reduce_scatter`` are a
    device's part of a ``Collective``, which is over when they end.
    """

    _value_: str
    activity: Activity
    """What a device does in such an op."""

    def __new__(cls, value: str, activity: Activity = "computing") -> OpKind:
        kind = str.__new__(cls, value)
        kind._value_, kind.activity = value, activity
        return kind

    UPLOAD = "upload", "upload"
    DRAW = "draw"
    FORWARD = "forward"
    LOSS = "loss"
    GRAD_INPUT = "grad_input"
    GRAD_WEIGHT = "grad_weight"
    UPDATE = "update"
    POST = "exchange_post", "exchange"
    WAIT = "exchange_wait", "exchange"
    ACCUMULATE = "accumulate"
    CLEAR = "clear"
    ALL_REDUCE = "all_reduce", "all_reduce"
    ALL_GATHER = "all_gather", "all_reduce"
    REDUCE_SCATTER = "reduce_scatter", "all_reduce"
    BARRIER = "barrier", "barrier"


class Category(StrEnum):
    """What a buffer holds; the keys of every memory table."""

    INPUT = "input"
    ACTIVATION = "activation"
    ACTIVATION_GRAD = "activation_grad"
    NORM = "norm"
    MASK = "mask"
    REMOTE = "remote"
    REMOTE_GRAD = "remote_grad"
    WEIGHT = "weight"
    MOMENTUM = "momentum"
    WEIGHT_GRAD = "weight_grad"
    PARTIAL_SUM = "partial_sum"
    WORKSPACE = "workspace"
    CONTEXT = "context"
    PADDING = "padding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A named piece of one device's memory, for all or part of a step; ``label`` is its name there.

    ``block`` is the memory it lies in, ``channel`` its first channel there: the outputs that a
    layer reads from several columns are slices of one block. A buffer with ``shares`` overwrites
    that buffer and costs no bytes itself. ``first`` and ``last`` are positions in the device's
    op list; a buffer that lives across steps spans it all.
    """

    name: str
    label: str
    device: str
    category: Category
    layer: str
    column: int
    shape: Shape
    item_bytes: int = FLOAT_BYTES
    block: str
    channel: int = 0
    shares: str = ""
    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.item_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A contiguous piece of a device's arena; ``shape`` is that of all its channels."""

    name: str
    shape: Shape
    size_bytes: int
    offset_bytes: int
    first: int
    last: int
    joined: bool = False
    """Whether its buffers lie side by side in it; else each of them begins where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One unit of device work. ``reads``, ``writes``: buffers; ``depends_on``: op ids.

    ``id`` tells it from all others, ``label`` from those of its layer and column, or, if it has no
    layer, of its device.
    ``operands`` says what each buffer is to the op: ``x`` (``x0``, ``x1`` ... of a layer with
    several inputs), ``y``, a parameter's or an auxiliary buffer's name, and with a ``d`` before it
    a gradient. An operand of several buffers lies side by side in one block.
    """

    id: str
    label: str
    kind: OpKind
    device: str
    device_index: int
    """Place of the device among the plan's."""
    layer: str = ""
    column: int = 0
    queue: Queue = "compute"
    operands: Operands = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    count: Count = _NOTHING
    backend: str = ""
    """Whose kernel runs it: another backend's than the plan's, where that has none."""
    algorithm: str = ""
    """How a convolution is computed, in its backend's words; else empty."""
    scratch_bytes: int = 0
    chunk_images: int = 0
    """Images that the backend works on at a time, so that scratch stays small."""
    first_image: int = 0
    """Place in the minibatch of the first image that the op works on."""
    accumulate: bool = False
    """Add to what is written instead of overwriting it."""
    fused: bool = False
    """The weight gradient goes straight into the momentum."""
    epilogue: str = ""
    """The layer that the same kernel does too: it follows this one, in the same column."""
    exchange: str = ""
    collective: str = ""
    turn: int | None = None
    """Column whose images a layer works on that a hybrid plan splits."""
    barrier: str = ""
    """What a barrier is called on every device that meets there."""
    in_test: bool = False
    """Whether it runs without a backward pass too."""

    def span(
        self, *, step: int, start_s: float, end_s: float, source: str, queue: str = ""
    ) -> Span:
        """The span of one run; on the op's queue, unless ``queue`` is another."""
        return Span(
            op_id=self.id,
            activity=self.kind.activity,
            kind=self.kind,
            layer=self.layer,
            exchange=self.exchange,
            device=self.device,
            device_index=self.device_index,
            queue=queue or self.queue,
            step=step,
            start_s=start_s,
            end_s=end_s,
            source=source,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """What one device holds and does in a step, ops in issue order."""

    name: str
    index: int
    """Place among the plan's devices."""
    columns: tuple[int, ...]
    ops: tuple[Op, ...]
    buffers: tuple[Buffer, ...]
    blocks: tuple[Block, ...]
    arena_bytes: int
    live_peak_bytes: int
    """Largest sum of bytes alive at one op: no packing of this op order needs less."""
    resident: tuple[str, ...]
    """Buffers alive at that op; all of them where nothing is reused."""

    @property
    def kept_scratch_bytes(self) -> int:
        """Scratch that stays from op to op: that of backend ``native``."""
        return max((op.scratch_bytes for op in self.ops if op.backend == "native"), default=0)

    @property
    def scratch_bytes(self) -> int:
        """That, and the largest that an op of another backend takes and gives back."""
        others = (op.scratch_bytes for op in self.ops if op.backend != "native")
        return self.kept_scratch_bytes + max(others, default=0)

    @property
    def total_bytes(self) -> int:
        """Arena and scratch; the device's context is not in it."""
        return self.arena_bytes + self.scratch_bytes


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """A training step of ``network``, split over devices. Everything else only reads it.

    With ``columns`` every device works on the same images. With ``hybrid`` each device's copy of
    the convolutions has its share of the images, and the layers that are split take the shares in
    turns.
    """

    spec: PlanSpec
    network: Network
    """Written in as many columns as it is split into."""
    devices: tuple[DevicePlan, ...]
    """All; or, made by ``representative``, the first of those that are alike."""
    posted: tuple[Exchange, ...]
    """Exchanges that are a post and a wait each."""
    collectives: tuple[Collective, ...]
    """Exchanges of many devices at a time."""

    def __repr__(self) -> str:
        devices, ops = len(self.devices), sum(1 for _ in self.ops())
        of = f"{self.network.name}: {self.images:,} images of a step"
        return f"<Plan of {of}, {devices} device{'s' * (devices > 1)}, {ops:,} ops>"

    @property
    def batch_size(self) -> int:
        """Images that one op works on."""
        return self.spec.op_images

    @property
    def images(self) -> int:
        """Images of a step, those of all replicas."""
        return self.spec.batch_size

    @property
    def transport(self) -> TransportName:
        """How exchanges travel."""
        return self.spec.transport or "peer"

    @property
    def replicas(self) -> int:
        """Copies of all devices, each on its share of the images; their gradients are summed."""
        return self.spec.copies

    @property
    def turns(self) -> int:
        """How often the layers that a hybrid plan splits run in a step."""
        return self.spec.turns

    @property
    def stands_for(self) -> int:
        """Devices that each of ``devices`` stands for, itself included: all replicas do the same,
        and the first device of a hybrid plan does as much as any."""
        return self.replicas * self.alike

    @property
    def alike(self) -> int:
        """Devices of one replica that each of ``devices`` stands for."""
        return self.turns // len(self.devices) if self.spec.partition == "hybrid" else 1

    @property
    def transfers(self) -> tuple[Exchange | Collective, ...]:
        """Whatever brings values from device to device in one step, collectives as one each."""
        return (*self.posted, *self.collectives)

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Every transfer between two devices in one step."""
        of_many = (e for collective in self.collectives for e in collective.exchanges())
        return (*self.posted, *of_many)

    @property
    def exchanged_bytes(self) -> int:
        """Bytes that cross between devices in one step, all directions added."""
        return sum(transfer.exchanged_bytes for transfer in self.transfers)

    @property
    def reduced_bytes(self) -> int:
        """Bytes of gradients that are summed in one step, over all devices of a replica."""
        sums = (op.count.moved_bytes for op in self.ops() if op.kind == OpKind.ALL_REDUCE)
        return self.alike * sum(sums)

    def ops(self) -> Iterator[Op]:
        """Every op of every device."""
        for device in self.devices:
            yield from device.ops

    def part(self, op: Op) -> Part:
        """The network's part that an op belongs to."""
        return self.network.part_of(op.layer, op.column)

    def epilogue(self, op: Op) -> Part | None:
        """The part that an op's kernel does too."""
        return self.network.part_of(op.epilogue, op.column) if op.epilogue else None

    @property
    def lent(self) -> tuple[str, ...]:
        """Layers of which another backend runs an op, in order; of ``native``, a product."""
        others = (op for op in self.ops() if op.backend != self.spec.backend)
        every = self.spec.backend != "native"
        lent = {op.layer for op in others if op.kind in COMPUTED and (every or op.count.flop)}
        names = (parts[0].layer.name for parts in self.network.parts)
        return tuple(name for name in names if name in lent)


COMPUTED = frozenset(
    {OpKind.DRAW, OpKind.FORWARD, OpKind.LOSS, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT, OpKind.UPDATE}
)
"""Kinds that a backend has kernels for; copies and sums are the same for all."""
PASS_OF = {
    OpKind.FORWARD: "forward",
    OpKind.DRAW: "forward",
    OpKind.LOSS: "forward",
    OpKind.GRAD_INPUT: "grad_input",
    OpKind.ACCUMULATE: "grad_input",
    OpKind.GRAD_WEIGHT: "grad_weight",
    OpKind.UPDATE: "update",
}
"""The pass of a layer to which an op's time belongs."""


def waited_for(update: Op) -> Op:
    """The wait of an update for sums of gradients, which a trace tells from the update."""
    return replace(update, id=f"{update.id}.{OpKind.ALL_REDUCE}", kind=OpKind.ALL_REDUCE)
