"""Where a step's values are, and its ops: the device of each column, and the names of buffers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alexsim.network.layers import Shape
from alexsim.network.network import Network
from alexsim.network.part import INPUT, Part, letter
from alexsim.network.update_rules import Optimizer
from alexsim.network.views import Read
from alexsim.plan.backends import Asked, Choice, Rows, backend_of, read_as_rows, rows_of
from alexsim.plan.plan import Op, OpKind
from alexsim.plan.precision import Types, types_of
from alexsim.plan.spec import PlanSpec

_IN_TEST = frozenset({OpKind.UPLOAD, OpKind.FORWARD, OpKind.LOSS, OpKind.ALL_GATHER})
"""Always part of a forward pass alone; of exchanges and barriers, some are."""


def activation(device: int, layer: str, column: int) -> str:
    """Name of a layer's output buffer."""
    return f"gpu{device}/{layer}.{letter(column)}.activation"


def parameter(device: int, part: Part, name: str) -> str:
    """Name of a buffer of a part: ``weight``, ``bias.momentum``, ``norm``, ``mask`` ..."""
    return f"gpu{device}/{part.layer.name}.{letter(part.column)}.{name}"


@dataclass(slots=True, kw_only=True)
class Placement:
    """A network's columns on devices, and the ops of each device so far."""

    spec: PlanSpec
    first_only: bool = False
    """Build the first device's ops only: the others do alike."""
    network: Network = field(init=False)
    device_of: tuple[int, ...] = field(init=False)
    """Device of each column."""
    types: Types = field(init=False)
    batch_size: int = field(init=False)
    """Images that one op works on."""
    ops: list[list[Op]] = field(init=False)
    turn: int | None = None
    """Column whose images the fully connected layers of a hybrid plan are working on now."""
    _rows: dict[Read, Rows] = field(init=False)
    """By output, which images of a part are read or written as rows."""
    _choose: Callable[[Asked], Choice] = field(init=False)
    _same_for_all: tuple[Optimizer, int] = field(init=False)
    """Optimizer and replicas, of every op that a backend chooses for."""
    _inputs: dict[tuple[str, int, int, str], tuple[tuple[str, ...], ...]] = field(
        default_factory=dict
    )
    _copiers: dict[tuple[str, int], Part] = field(default_factory=dict)
    """By layer and column, the first part that reads its parameters in half precision."""

    def __post_init__(self) -> None:
        self.network, self.device_of = self.spec.written, self.spec.device_of
        self.types = types_of(self.network, self.spec.precision, self.spec.half_layers)
        self.batch_size = self.spec.op_images
        self.ops = [[] for _ in range(1 if self.first_only else self.devices)]
        self._choose = backend_of(self.spec.backend, self.spec.triton_ops).choose
        self._same_for_all = (self.spec.optimizer, self.spec.copies)
        rows = read_as_rows(self.network, self.spec.policy)
        self._rows = {
            part.output: rows_of(part, rows) for parts in self.network.parts for part in parts
        }

    @property
    def devices(self) -> int:
        """Number of devices, built or not."""
        return max(self.device_of) + 1

    def add(
        self,
        kind: OpKind,
        label: str,
        device: int,
        part: Part | None = None,
        *,
        layer: str = "",
        column: int = 0,
        accumulate: bool = False,
        in_test: bool = False,
        **fields: Any,
    ) -> Op:
        """Append an op to a device's list; its dependencies are set when all ops are known.

        Args:
            kind: what it does.
            label: tells it from the other ops of its part, or of its device.
            device: where it runs.
            part: the part of the network that it belongs to.
            layer: its layer, where it belongs to no single part.
            column: its column, likewise.
            accumulate: see ``Op``.
            in_test: see ``Op``; some kinds imply it.
            fields: other fields of the op.
        """
        name, rows, end = f"gpu{device}", (False, False), None
        if part is not None:
            layer, column = part.output
            rows = self._rows[part.output]
            if epilogue := fields.get("epilogue"):
                end = self.network.part_of(epilogue, column)
            if end and kind == OpKind.FORWARD:
                # It writes what the layer at its end puts out.
                rows = rows[0], self._rows[end.output][1]
        images, same, spec = self.batch_size, self._same_for_all, self.spec
        choice = self._choose(
            Asked(kind, part, images, accumulate, *same, rows, spec.threads, spec.products, end)
        )
        op = Op(
            id=f"{layer}.{letter(column)}.{label}" if layer else f"{name}.{label}",
            label=label,
            kind=kind,
            device=name,
            device_index=device,
            layer=layer,
            column=column,
            accumulate=accumulate,
            in_test=in_test or kind in _IN_TEST,
            backend=choice.backend,
            algorithm=choice.algorithm,
            scratch_bytes=choice.scratch_bytes,
            chunk_images=choice.chunk_images,
            **fields,
        )
        self.ops[device].append(op)
        return op

    @property
    def turns(self) -> int:
        """How often the split layers run in a step: once for the images of each column."""
        return self.network.columns if self.network.copied else 1

    def inputs_now(self, part: Part) -> tuple[tuple[Read, ...], ...]:
        """Outputs that a part reads now, input by input."""
        if part.gathers:
            assert self.turn is not None
            return ((part.reads[0]._replace(column=self.turn),),)
        return part.inputs

    def reads(self, part: Part) -> tuple[Read, ...]:
        """Outputs that a part reads now."""
        return tuple(read for group in self.inputs_now(part) for read in group)

    def first_image(self, part: Part) -> int:
        """Place in the minibatch of the first image that a part works on now."""
        return self.batch_size * (part.column if part.copied else self.turn or 0)

    @property
    def tag(self) -> str:
        """What tells ids of one turn from those of another."""
        return "" if self.turn is None else f"turn{self.turn}."

    def inputs(self, part: Part, name: str = "activation") -> tuple[tuple[str, ...], ...]:
        """Buffers that a part reads, input by input, on its own device; or their gradients'."""
        # Of many columns, in many turns, the same names are asked for again and again.
        turn = self.turn or 0 if part.gathers else 0
        key = (part.layer.name, part.column, turn, name)
        if key not in self._inputs:
            device = self.device_of[part.column]
            self._inputs[key] = tuple(
                tuple(self.local(device, read, name) for read in group)
                for group in self.inputs_now(part)
            )
        return self._inputs[key]

    def _parameter(self, part: Part, name: str) -> str:
        """A parameter's buffer, or what belongs to it: its own, or of the layer that has it."""
        if part.layer.shares:
            part = self.network.part_of(part.layer.shares, part.column)
        return self._buffer(part, name)

    def _buffer(self, part: Part, name: str) -> str:
        return parameter(self.device_of[part.column], part, name)

    def _labels(self, part: Part) -> tuple[str, ...]:
        return (f"gpu{self.device_of[part.column]}/labels",)

    @staticmethod
    def _named(role: str, inputs: tuple[tuple[str, ...], ...]) -> dict[str, tuple[str, ...]]:
        if len(inputs) == 1:
            return {role: inputs[0]}
        return {f"{role}{index}": names for index, names in enumerate(inputs)}

    def copies(self, part: Part) -> dict[int, str]:
        """Inputs that a part reads as copies of another type, and the buffers of these copies."""
        widths = self.types.widths(part)
        device = self.device_of[part.column]
        return {
            index: parameter(device, part, f"x{index}.cast")
            for index in range(len(widths.read))
            if widths.cast(index)
        }

    def kept_inputs(self, part: Part) -> tuple[tuple[str, ...], ...]:
        """Buffers that a part's backward pass reads for its inputs: these, or their copies."""
        copies = self.copies(part)
        return tuple(
            (copies[index],) if index in copies else names
            for index, names in enumerate(self.inputs(part))
        )

    def grad_copy(self, part: Part, index: int) -> dict[str, tuple[str, ...]]:
        """The buffer of the gradient of an input's copy, in the copy's type; none of no copy."""
        copied = index in self.copies(part)
        return {"cast": (self._buffer(part, f"dx{index}.cast"),)} if copied else {}

    def half_copies(self, part: Part) -> dict[str, tuple[str, ...]]:
        """By parameter, the buffer of its copy in half precision; none where nothing reads such.

        Layers that share parameters share the copies of the first that needs them.
        """
        if not self.types.half(part):
            return {}
        first = self._copiers.setdefault((part.owner, part.column), part)
        return {name: (self._buffer(first, f"{name}.half"),) for name in part.read_by_name}

    def first_in_half(self, part: Part) -> bool:
        """Whether a part is the first to read its parameters in half precision, and copies them."""
        return self._copiers.get((part.owner, part.column)) is part

    def alike(self, first: str, second: str) -> bool:
        """Whether the outputs of two layers have one type."""
        return self.types.output_bytes[first] == self.types.output_bytes[second]

    def output_size(self, part: Part) -> int:
        """Bytes of a part's output, or of its gradient, over the images of one op."""
        item = self.types.output_bytes[part.layer.name]
        return item * self.batch_size * elements(part.output_shape)

    def local(self, device: int, read: Read, name: str) -> str:
        """Buffer of an output or its gradient on ``device``: itself, or its remote copy."""
        if read.layer == INPUT:
            return f"gpu{device}/input"
        if self.device_of[read.column] != device:
            name = {"activation": "remote", "activation_grad": "remote_grad"}[name]
        return f"gpu{device}/{read.layer}.{letter(read.column)}.{name}"


def elements(shape: Shape) -> int:
    """Values of one image of that shape."""
    return math.prod(shape)
