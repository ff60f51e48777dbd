"""Where a step's values are: the device of each column, and the names of buffers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from alexsim.network.counts import Count
from alexsim.network.layers import Shape
from alexsim.network.network import INPUT, Network, Part
from alexsim.network.views import Read
from alexsim.plan.records import Operands, OpKind, Queue, letter


@dataclass(slots=True, kw_only=True)
class Step:
    """One op before its dependencies and scratch are known."""

    id: str = field(init=False)
    label: str
    kind: OpKind
    device: int
    part: Part | None = None
    queue: Queue = "compute"
    operands: Operands = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    count: Count = field(default_factory=Count)
    first_image: int = 0
    accumulate: bool = False
    fused: bool = False
    epilogue: str = ""
    exchange: str = ""
    collective: str = ""
    layer: str = ""
    """As ``part`` says, if there is one."""
    column: int = 0
    turn: int | None = None
    barrier: str = ""
    waits: tuple[str, ...] = ()
    """Buffers like those that other devices send or receive here, where this one stands for them:
    it sends when it has them, and uses them no sooner than they do."""
    in_test: bool = False

    def __post_init__(self) -> None:
        if self.part is not None:
            self.layer, self.column = self.part.layer.name, self.part.column
        owner = f"{self.layer}.{letter(self.column)}" if self.layer else f"gpu{self.device}"
        self.id = f"{owner}.{self.label}"


def activation(device: int, layer: str, column: int) -> str:
    """Name of a layer's output buffer."""
    return f"gpu{device}/{layer}.{letter(column)}.activation"


def parameter(device: int, part: Part, name: str) -> str:
    """Name of a buffer of a part: ``weight``, ``bias.momentum``, ``norm``, ``mask`` ..."""
    return f"gpu{device}/{part.layer.name}.{letter(part.column)}.{name}"


@dataclass(slots=True, kw_only=True)
class Placement:
    """A network's columns on devices."""

    network: Network
    device_of: tuple[int, ...]
    """Device of each column."""
    batch_size: int
    turn: int | None = None
    """Whose images the fully connected layers of a hybrid plan are working on now."""
    _inputs: dict[tuple[str, int, int, str], tuple[tuple[str, ...], ...]] = field(
        default_factory=dict
    )

    @property
    def turns(self) -> int:
        """How often those layers run in a step: once for the images of each column."""
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

    def local(self, device: int, read: Read, name: str) -> str:
        """Buffer of an output or its gradient on ``device``: its own, or a remote copy."""
        if read.layer == INPUT:
            return f"gpu{device}/input"
        if self.device_of[read.column] != device:
            name = {"activation": "remote", "activation_grad": "remote_grad"}[name]
        return f"gpu{device}/{read.layer}.{letter(read.column)}.{name}"


def elements(shape: Shape) -> int:
    """Values of one image of that shape."""
    return math.prod(shape)
