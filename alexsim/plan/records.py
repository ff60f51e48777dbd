"""The plan's records: ops, buffers, exchanges, and what each device holds and does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Literal

from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.layers import Shape
from alexsim.network.network import Network, Part
from alexsim.plan.spec import Partition, PlanSpec, Policy, Schedule, TransportName

Queue = Literal["compute", "copy_in", "copy_out"]
Algorithm = Literal["", "direct", "winograd", "product"]
"""How a convolution is computed: by the library's own choice, Winograd's method, or as one product
of matrices; empty where there is nothing to choose."""
Operands = Mapping[str, tuple[str, ...]]
"""Role -> buffers."""


class OpKind(StrEnum):
    """What an op does. An exchange is a post on its source and a wait on its target.

    An ``all_reduce`` begins to sum a layer's gradients over replicas, or over a hybrid plan's
    devices; the layer's ``update`` waits for the sum.
    """

    UPLOAD = "upload"
    DRAW = "draw"
    FORWARD = "forward"
    LOSS = "loss"
    GRAD_INPUT = "grad_input"
    GRAD_WEIGHT = "grad_weight"
    UPDATE = "update"
    POST = "exchange_post"
    WAIT = "exchange_wait"
    ACCUMULATE = "accumulate"
    CLEAR = "clear"
    ALL_REDUCE = "all_reduce"
    BARRIER = "barrier"


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
    """A named piece of one device's memory, for all or part of a step.

    ``block`` is the memory it lies in, ``channel`` its first channel there: the outputs that a
    layer reads from several columns are slices of one block. A buffer with ``shares`` overwrites
    that buffer and costs no bytes of its own. ``first`` and ``last`` are positions in the device's
    op list; a buffer that lives across steps spans it all.
    """

    name: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One unit of device work. ``reads``, ``writes``: buffers; ``depends_on``: op ids.

    ``operands`` says what each buffer is to the op: ``x`` (``x0``, ``x1`` ... of a layer with
    several inputs), ``y``, a parameter's or an auxiliary buffer's name, and with a ``d`` before it
    a gradient. An operand of several buffers lies side by side in one block.
    """

    id: str
    kind: OpKind
    device: str
    layer: str
    column: int
    queue: Queue
    operands: Operands
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    depends_on: tuple[str, ...]
    count: Count
    backend: str = ""
    """Whose kernel runs it: another's, where the plan's backend has none."""
    algorithm: Algorithm = ""
    scratch_bytes: int = 0
    chunk_images: int = 0
    """Images that the backend works on at a time, so that scratch stays small."""
    first_image: int = 0
    """Place in the minibatch of the first image that the op works on."""
    accumulate: bool = False
    """Add to what is written instead of overwriting it."""
    fused: bool = False
    """The weight gradient goes straight into the momentum."""
    exchange: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One transfer of an activation or its gradient between two devices."""

    name: str
    layer: str
    column: int
    direction: Literal["forward", "backward"]
    source: str
    target: str
    source_buffer: str
    target_buffer: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """What one device holds and does in a step, ops in issue order."""

    name: str
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
    def scratch_bytes(self) -> int:
        """Largest scratch that one op declares."""
        return max((op.scratch_bytes for op in self.ops), default=0)

    @property
    def total_bytes(self) -> int:
        """Arena and scratch; the device's context is not in it."""
        return self.arena_bytes + self.scratch_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training step of ``network``, split over devices. Everything else only reads it.

    With ``columns`` every device works on the same images. With ``hybrid`` each device's copy of
    the convolutions has images of its own, and the layers that are split take them in turns, one
    device's after another's.
    """

    spec: PlanSpec
    network: Network
    """Written in as many columns as it is split into."""
    devices: tuple[DevicePlan, ...]
    exchanges: tuple[Exchange, ...]

    @property
    def batch_size(self) -> int:
        """Images that one op works on."""
        return self.spec.op_images

    @property
    def images(self) -> int:
        """Images of a step, those of all replicas."""
        return self.spec.batch_size

    @property
    def policy(self) -> Policy:
        """Of memory."""
        return self.spec.policy

    @property
    def schedule(self) -> Schedule:
        """Order of the ops, and what waits for what."""
        return self.spec.schedule

    @property
    def transport(self) -> TransportName:
        """How exchanges travel."""
        return self.spec.transport or "peer"

    @property
    def trainable(self) -> frozenset[str]:
        """Layers that learn."""
        return self.spec.trained

    @property
    def backend(self) -> str:
        """Who runs it."""
        return self.spec.backend

    @property
    def replicas(self) -> int:
        """Copies of all devices, each on its own images; their gradients are summed."""
        return self.spec.copies

    @property
    def partition(self) -> Partition:
        """How it is split over devices."""
        return self.spec.partition

    @property
    def variable_batch(self) -> bool:
        """Whether the layers that a hybrid plan splits are updated after each turn, on
        ``batch_size`` images, and the others once a step, on all of them."""
        return self.spec.variable_batch

    @property
    def turns(self) -> int:
        """How often the layers that a hybrid plan splits run in a step."""
        return self.spec.turns

    @property
    def exchanged_bytes(self) -> int:
        """Bytes that cross between devices in one step, all directions added."""
        return sum(exchange.size_bytes for exchange in self.exchanges)

    @property
    def reduced_bytes(self) -> int:
        """Bytes of gradients that are summed in one step, over all devices of a replica."""
        return sum(op.count.moved_bytes for op in self.ops() if op.kind == OpKind.ALL_REDUCE)

    def ops(self) -> Iterator[Op]:
        """Every op of every device."""
        for device in self.devices:
            yield from device.ops

    def part(self, op: Op) -> Part:
        """The network's part that an op belongs to."""
        return self.network.part_of(op.layer, op.column)


def waited_for(update: Op) -> str:
    """What the wait of an update for sums of gradients is called in a trace."""
    return f"{update.id}.{OpKind.ALL_REDUCE}"


@cache
def letter(column: int) -> str:
    """Name of a column: a, b, ... z, aa, ab ..."""
    before, last = divmod(column, 26)
    return (letter(before - 1) if before else "") + chr(ord("a") + last)
