"""The ops of a step in issue order, with the buffers that each touches.

The serial schedule is that of 2012: one queue per device, weight gradients before input gradients,
every device at a barrier before an exchange is pulled. In the overlap schedule input gradients
come first, exchanges run on copy queues and nothing waits before it must.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.layers import (
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    Tanh,
)
from alexsim.network.network import Part
from alexsim.plan.placement import Placement, Step, activation, elements, parameter
from alexsim.plan.records import Exchange, OpKind, Queue, Schedule, letter


@dataclass(slots=True, kw_only=True)
class StepList(Placement):
    """Builds the step: per device its ops, and the exchanges between devices."""

    schedule: Schedule
    trainable: frozenset[str]
    replicas: int = 1
    """Copies of these devices, whose gradients are summed before the update."""
    staged: bool
    """Gradients land in a buffer of the owner before they are added (2012 added over PCIe)."""
    steps: list[list[Step]] = field(init=False)
    exchanges: list[Exchange] = field(default_factory=list)
    _contributed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.steps = [[] for _ in range(max(self.device_of) + 1)]

    def build(self) -> None:
        """Emit forward, loss, backward and update."""
        for device in range(len(self.steps)):
            self._upload(device)
        for parts in self.network.parts:
            self._pull_inputs(parts)
            for part in parts:
                self._forward(part)
        self._loss(self.network.parts[-1][0])
        for index in range(len(self.network.parts) - 1, -1, -1):
            self._backward(index)
        self._barrier("update")
        for parts in self.network.parts:
            for part in parts:
                if self._trains(part):
                    self._update(part)
        self._barrier("end")

    def fuses(self, part: Part) -> bool:
        """Whether a weight gradient goes straight into the momentum, as 2012's fc layers' did.

        Gradients of replicas are summed first: then each has a buffer.
        """
        return isinstance(part.layer, FullyConnected) and self.replicas == 1

    def _trains(self, part: Part) -> bool:
        return bool(part.weight_shape) and part.layer.name in self.trainable

    def needs_output_grad(self, index: int) -> bool:
        """Whether a trained layer stands at or before layer ``index`` of the chain."""
        return any(self._trains(parts[0]) for parts in self.network.parts[: index + 1])

    # -- ops -----------------------------------------------------------------

    def _add(
        self,
        kind: OpKind,
        part: Part,
        *,
        reads: tuple[str, ...] = (),
        writes: tuple[str, ...] = (),
        count: Count,
        accumulate: bool = False,
        fused: bool = False,
    ) -> None:
        device = self.device_of[part.column]
        self.steps[device].append(
            Step(
                id=f"{part.layer.name}.{letter(part.column)}.{kind}",
                kind=kind,
                device=device,
                part=part,
                reads=reads,
                writes=writes,
                count=count,
                accumulate=accumulate,
                fused=fused,
            )
        )

    def _upload(self, device: int) -> None:
        writes = [f"gpu{device}/input"]
        if self.device_of[0] == device:
            writes.append(f"gpu{device}/labels")
        pixels = self.batch_size * elements(self.network.input_shape)
        self.steps[device].append(
            Step(
                id=f"gpu{device}.upload",
                kind=OpKind.UPLOAD,
                device=device,
                queue=self._queue("copy_in"),
                writes=tuple(writes),
                count=Count(moved_bytes=FLOAT_BYTES * pixels),
            )
        )

    def _forward(self, part: Part) -> None:
        device = self.device_of[part.column]
        own = activation(device, part.layer.name, part.column)
        reads, writes = list(self.inputs(part)), [own]
        match part.layer:
            case LocalResponseNorm() | SpatialResponseNorm():
                writes.append(parameter(device, part, "norm"))
            case Dropout():
                mask = parameter(device, part, "mask")
                size = FLOAT_BYTES * self.batch_size * elements(part.output_shape)
                self._add(OpKind.DRAW, part, writes=(mask,), count=Count(moved_bytes=size))
                reads.append(mask)
        if part.weight_shape:
            reads += [parameter(device, part, "weight"), parameter(device, part, "bias")]
        count = counts.forward(part, self.batch_size)
        self._add(OpKind.FORWARD, part, reads=tuple(reads), writes=tuple(writes), count=count)

    def _loss(self, part: Part) -> None:
        device = self.device_of[part.column]
        own = activation(device, part.layer.name, part.column)
        size = FLOAT_BYTES * self.batch_size * elements(part.output_shape)
        self._add(
            OpKind.LOSS, part, reads=(own, f"gpu{device}/labels"), count=Count(moved_bytes=size)
        )
        self._barrier("cost")

    def _backward(self, index: int) -> None:
        parts = self.network.parts[index]
        serial = self.schedule == "serial"
        if serial:
            self._grad_weights(parts)
        pushes: list[Exchange] = []
        if index > 0 and self.needs_output_grad(index - 1):
            for part in parts:
                self._grad_input(part)
            pushes = self._push_grads(parts)
        if not serial:
            self._grad_weights(parts)
        self._pull_grads(pushes)

    def _grad_weights(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if not self._trains(part):
                continue
            device = self.device_of[part.column]
            fused = self.fuses(part)
            reads = [self._own_grad(part), *self.inputs(part)]
            momentum = parameter(device, part, "weight.momentum")
            if fused:
                reads += [parameter(device, part, "weight"), momentum]
            target = momentum if fused else parameter(device, part, "weight.grad")
            self._add(
                OpKind.GRAD_WEIGHT,
                part,
                reads=tuple(reads),
                writes=(target, parameter(device, part, "bias.grad")),
                count=counts.grad_weight(part, self.batch_size, fused=fused),
                fused=fused,
            )
            if self.replicas > 1:
                self._all_reduce(part)

    def _all_reduce(self, part: Part) -> None:
        device = self.device_of[part.column]
        grads = tuple(parameter(device, part, name) for name in ("weight.grad", "bias.grad"))
        size = FLOAT_BYTES * part.parameters
        self._add(OpKind.ALL_REDUCE, part, reads=grads, writes=grads, count=Count(moved_bytes=size))

    def _grad_input(self, part: Part) -> None:
        device = self.device_of[part.column]
        own = activation(device, part.layer.name, part.column)
        grad = self._own_grad(part)
        match part.layer:
            case SoftmaxCrossEntropy():
                reads: tuple[str, ...] = (own, f"gpu{device}/labels")
            case ReLU() | Sigmoid() | Tanh():
                reads = (grad, own)
            case Dropout():
                reads = (grad, parameter(device, part, "mask"))
            case MaxPool():
                reads = (grad, own, *self.inputs(part))
            case LocalResponseNorm() | SpatialResponseNorm():
                reads = (grad, *self.inputs(part), parameter(device, part, "norm"))
            case _ if part.weight_shape:
                reads = (grad, parameter(device, part, "weight"))
            case _:
                reads = (grad,)
        writes = self.input_grads(part)
        before = {name in self._contributed for name in writes}
        assert len(before) == 1, f"{part.layer.name}: mixed first and later contributions"
        accumulate = before == {True}
        self._contributed.update(writes)
        self._add(
            OpKind.GRAD_INPUT,
            part,
            reads=(*reads, *(writes if accumulate else ())),
            writes=writes,
            count=counts.grad_input(part, self.batch_size),
            accumulate=accumulate,
        )

    def _update(self, part: Part) -> None:
        device = self.device_of[part.column]
        fused = self.fuses(part)
        names = ["weight", "weight.momentum", "bias", "bias.momentum", "bias.grad"]
        if not fused:
            names.append("weight.grad")
        written = ["weight", "bias", "bias.momentum"] + ["weight.momentum"] * (not fused)
        self._add(
            OpKind.UPDATE,
            part,
            reads=tuple(parameter(device, part, name) for name in names),
            writes=tuple(parameter(device, part, name) for name in written),
            count=counts.update(part, fused=fused),
            fused=fused,
        )

    def _own_grad(self, part: Part) -> str:
        device = self.device_of[part.column]
        return parameter(device, part, "activation_grad")

    # -- exchanges -----------------------------------------------------------

    def _pull_inputs(self, parts: tuple[Part, ...]) -> None:
        pulls = []
        for part in parts:
            target = self.device_of[part.column]
            for column in part.sources:
                source = self.device_of[column]
                if source != target:
                    pulls.append(
                        self._exchange(
                            "forward",
                            part.source,
                            column,
                            (source, activation(source, part.source, column)),
                            (target, self.local(target, part.source, column, "activation")),
                        )
                    )
        self._post(pulls)
        self._fetch(pulls)

    def _push_grads(self, parts: tuple[Part, ...]) -> list[Exchange]:
        """Offer each remote input's gradient to its owner."""
        pushes = []
        for part in parts:
            source = self.device_of[part.column]
            for column in part.sources:
                owner = self.device_of[column]
                if owner == source:
                    continue
                grad = self.local(owner, part.source, column, "activation_grad")
                remote = self.local(source, part.source, column, "activation_grad")
                target = grad
                if grad in self._contributed:
                    landing = f"gpu{owner}/{part.source}.{letter(column)}.from_gpu{source}"
                    target = landing if self.staged else remote
                pushes.append(
                    self._exchange(
                        "backward", part.source, column, (source, remote), (owner, target)
                    )
                )
                self._contributed.add(grad)
        self._post(pushes)
        return pushes

    def _pull_grads(self, pushes: list[Exchange]) -> None:
        """Fetch what was offered; the owner adds it to what it computed itself."""
        self._fetch(pushes)
        for exchange in pushes:
            owner = int(exchange.target.removeprefix("gpu"))
            grad = self.local(owner, exchange.layer, exchange.column, "activation_grad")
            if exchange.target_buffer == grad:
                continue
            size = exchange.size_bytes
            self.steps[owner].append(
                Step(
                    id=f"{exchange.name}.accumulate",
                    kind=OpKind.ACCUMULATE,
                    device=owner,
                    part=self.part_of(exchange.layer, exchange.column),
                    reads=(exchange.target_buffer, grad),
                    writes=(grad,),
                    count=Count(elementwise_flop=size // FLOAT_BYTES, moved_bytes=3 * size),
                    accumulate=True,
                )
            )

    def _exchange(
        self,
        direction: Literal["forward", "backward"],
        layer: str,
        column: int,
        source: tuple[int, str],
        target: tuple[int, str],
    ) -> Exchange:
        part = self.part_of(layer, column)
        size = FLOAT_BYTES * self.batch_size * elements(part.output_shape)
        exchange = Exchange(
            name=f"{layer}.{letter(column)}.{direction}.gpu{source[0]}-gpu{target[0]}",
            layer=layer,
            column=column,
            direction=direction,
            source=f"gpu{source[0]}",
            target=f"gpu{target[0]}",
            source_buffer=source[1],
            target_buffer=target[1],
            size_bytes=size,
        )
        self.exchanges.append(exchange)
        return exchange

    def _post(self, exchanges: list[Exchange]) -> None:
        for exchange in exchanges:
            self._half(exchange, OpKind.POST)

    def _fetch(self, exchanges: list[Exchange]) -> None:
        if exchanges and self.schedule == "serial":
            self._barrier(f"{exchanges[0].layer}.{exchanges[0].direction}")
        for exchange in exchanges:
            self._half(exchange, OpKind.WAIT)

    def _half(self, exchange: Exchange, kind: OpKind) -> None:
        posts = kind == OpKind.POST
        device = int((exchange.source if posts else exchange.target).removeprefix("gpu"))
        # A gradient that is added straight from the other device's memory has no target here.
        lands = exchange.target_buffer.startswith(f"gpu{device}/")
        self.steps[device].append(
            Step(
                id=f"{exchange.name}.{'post' if posts else 'wait'}",
                kind=kind,
                device=device,
                part=self.part_of(exchange.layer, exchange.column),
                queue=self._queue("copy_out" if posts else "copy_in"),
                reads=(exchange.source_buffer,) if posts else (),
                writes=(exchange.target_buffer,) if not posts and lands else (),
                count=Count(moved_bytes=0 if posts else exchange.size_bytes),
                exchange=exchange.name,
            )
        )

    def _barrier(self, name: str) -> None:
        if len(self.steps) == 1 or (self.schedule == "overlap" and name != "end"):
            return
        for device, steps in enumerate(self.steps):
            steps.append(Step(id=f"gpu{device}.barrier.{name}", kind=OpKind.BARRIER, device=device))

    def _queue(self, queue: Queue) -> Queue:
        return queue if self.schedule == "overlap" else "compute"
