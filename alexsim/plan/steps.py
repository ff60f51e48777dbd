"""The ops of a step in issue order, with the buffers that each touches.

The serial schedule is that of 2012: one queue per device, weight gradients before input gradients,
every device at a barrier before an exchange is pulled. In the overlap schedule input gradients
come first, exchanges run on copy queues and nothing waits before it must.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy
from alexsim.network.network import Part
from alexsim.plan.crossings import Crossings
from alexsim.plan.placement import Step, activation, elements, parameter
from alexsim.plan.records import Exchange, OpKind, letter


@dataclass(slots=True, kw_only=True)
class StepList(Crossings):
    """Builds the step: per device its ops, and the exchanges between devices."""

    trainable: frozenset[str]
    replicas: int = 1
    """Copies of these devices, whose gradients are summed before the update."""
    variable_batch: bool = False
    """Layers that a hybrid plan splits are updated after every turn."""

    def build(self) -> None:
        """Emit forward, loss, backward and update."""
        for device in range(len(self.steps)):
            self._upload(device)
        copied, layers = self.network.copied, self.network.parts
        for parts in layers[:copied]:
            for part in parts:
                self._forward(part)
        early = self._gathered_early()
        for turn in range(self.turns):
            self.turn = turn if copied else None
            self.contributed.clear()
            for parts in layers[copied:]:
                self.fetch_inputs(early.pop(turn, []) or self.offer_inputs(parts))
                for part in parts:
                    self._forward(part)
            self._loss(layers[-1][0])
            for index in range(len(layers) - 1, copied - 1, -1):
                self._backward(index)
            if copied and self.variable_batch:
                self._updates(layers[copied:])
            if copied:
                # The next turn overwrites what others may still read.
                self.barrier("next")
        self.turn = None
        for index in range(copied - 1, -1, -1):
            self._backward(index)
        self.barrier("update")
        self._updates(layers[:copied] if self.variable_batch else layers)
        self.barrier("end")

    def _gathered_early(self) -> dict[int, list[Exchange]]:
        """By turn, what the overlap schedule sends before the first of them.

        One device's activations travel while those of another are worked on (Krizhevsky 2014,
        section 4, scheme b).
        """
        found: dict[int, list[Exchange]] = {}
        if self.network.copied and self.schedule == "overlap":
            for turn in range(self.turns):
                self.turn = turn
                found[turn] = self.offer_inputs(self.network.parts[self.network.copied])
        return found

    def _updates(self, layers: tuple[tuple[Part, ...], ...]) -> None:
        for parts in layers:
            for part in parts:
                if self._trains(part):
                    self._update(part)

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
                id=f"{part.layer.name}.{letter(part.column)}.{self.tag}{kind}",
                kind=kind,
                device=device,
                part=part,
                reads=reads,
                writes=writes,
                count=count,
                first_image=self.first_image(part),
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
                queue=self.queue("copy_in"),
                writes=tuple(writes),
                count=Count(moved_bytes=FLOAT_BYTES * pixels),
                first_image=device * self.batch_size if self.network.copied else 0,
            )
        )

    def _forward(self, part: Part) -> None:
        device = self.device_of[part.column]
        own = activation(device, part.layer.name, part.column)
        reads, writes = list(self.inputs(part)), [own]
        for kept in part.layer.auxiliary:
            buffer = parameter(device, part, kept)
            if kept == "mask":
                size = FLOAT_BYTES * self.batch_size * elements(part.output_shape)
                self._add(OpKind.DRAW, part, writes=(buffer,), count=Count(moved_bytes=size))
            (reads if kept == "mask" else writes).append(buffer)
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
        self.barrier("cost")

    def _backward(self, index: int) -> None:
        parts = self.network.parts[index]
        serial = self.schedule == "serial"
        if serial:
            self._grad_weights(parts)
        pushes: list[Exchange] = []
        if index > 0 and self.needs_output_grad(index - 1):
            for part in parts:
                self._grad_input(part)
            pushes = self.push_grads(parts)
        if not serial:
            self._grad_weights(parts)
        self.pull_grads(pushes)

    def _grad_weights(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if not self._trains(part):
                continue
            device = self.device_of[part.column]
            fused = self.fuses(part)
            # Turns of one update add up.
            later = bool(self.turn) and not self.variable_batch
            reads = [self._own_grad(part), *self.inputs(part)]
            momentum = parameter(device, part, "weight.momentum")
            if later:
                reads.append(parameter(device, part, "bias.grad"))
            if fused:
                reads += [parameter(device, part, "weight"), momentum]
            target = momentum if fused else parameter(device, part, "weight.grad")
            self._add(
                OpKind.GRAD_WEIGHT,
                part,
                reads=tuple(reads),
                writes=(target, parameter(device, part, "bias.grad")),
                count=counts.grad_weight(part, self.batch_size, fused=fused, later=later),
                accumulate=later,
                fused=fused,
            )
            if self.replicas > 1 or (part.copied and self.turns > 1):
                self._all_reduce(part)

    def _all_reduce(self, part: Part) -> None:
        device = self.device_of[part.column]
        grads = tuple(parameter(device, part, name) for name in ("weight.grad", "bias.grad"))
        size = FLOAT_BYTES * part.parameters
        self._add(OpKind.ALL_REDUCE, part, reads=grads, writes=grads, count=Count(moved_bytes=size))

    def _grad_input(self, part: Part) -> None:
        device = self.device_of[part.column]
        own = activation(device, part.layer.name, part.column)
        if isinstance(part.layer, SoftmaxCrossEntropy):
            reads = [own, f"gpu{device}/labels"]
        else:
            reads = [self._own_grad(part)]
        for kept in part.layer.backward_reads:
            match kept:
                case "output":
                    reads.append(own)
                case "input":
                    reads += self.inputs(part)
                case _:
                    reads.append(parameter(device, part, kept))
        if part.weight_shape:
            reads.append(parameter(device, part, "weight"))
        writes = self.input_grads(part)
        before = {name in self.contributed for name in writes}
        assert len(before) == 1, f"{part.layer.name}: mixed first and later contributions"
        accumulate = before == {True}
        self.contributed.update(writes)
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
