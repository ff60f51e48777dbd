"""The ops of a step in issue order, with the buffers that each touches.

The serial schedule is that of 2012: one queue per device, weight gradients before input gradients,
every device at a barrier before an exchange is pulled. In the overlap schedule input gradients
come first, exchanges run on copy queues and nothing waits before it must.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.layers import Role
from alexsim.network.part import Part
from alexsim.network.update_rules import RULES, UPDATES
from alexsim.plan.gradients import Gradients
from alexsim.plan.placement import elements
from alexsim.plan.plan import OpKind


@dataclass(slots=True, kw_only=True)
class StepList(Gradients):
    """Builds the step: per device its ops, and the exchanges between devices."""

    def build(self) -> None:
        """Emit forward, loss, backward and update."""
        for device in range(len(self.ops)):
            self._upload(device)
        copied, layers = self.network.copied, self.layers
        for parts in layers[:copied]:
            for part in parts:
                self._forward(part)
        for turn in range(self.turns):
            self.turn = turn if copied else None
            self.contributed.clear()
            self.fetched.clear()
            for index in range(copied, len(layers)):
                self._bring_inputs(index)
                for part in layers[index]:
                    self._forward(part)
            for head in self.network.heads:
                self._loss(self.network.part_of(head.name, 0))
            if not copied:
                self.barrier("cost")
            for index in range(len(layers) - 1, copied - 1, -1):
                self._backward(index)
            if copied and self.spec.variable_batch:
                self._updates(layers[copied:])
        self.turn = None
        for index in range(copied - 1, -1, -1):
            self._backward(index)
        self.barrier("update")
        self._updates(layers[:copied] if self.spec.variable_batch else layers)
        self.barrier("end")

    def _bring_inputs(self, index: int) -> None:
        """Bring what a layer reads of other devices."""
        parts = self.network.parts[index]
        if self.turn is None:
            self.fetch_inputs(self.offer_inputs(parts))
        elif not parts[0].gathers or self.spec.schedule == "serial":
            self.gather(parts)
        else:
            # One device's activations travel while those of another are worked on (Krizhevsky
            # 2014, section 4, scheme b).
            now = self.turn
            for turn in range(now + 1 if now else 0, min(now + 2, self.turns)):
                self.turn = turn
                self.gather(parts)
            self.turn = now

    def _updates(self, layers: tuple[tuple[Part, ...], ...]) -> None:
        for parts in layers:
            for part in parts:
                if part.trained and self._trains(part):
                    self._update(part)

    def _upload(self, device: int) -> None:
        operands = {"images": (f"gpu{device}/input",)}
        if self.device_of[0] == device:
            operands["labels"] = (f"gpu{device}/labels",)
        pixels = self.batch_size * elements(self.network.input_shape)
        self.add(
            OpKind.UPLOAD,
            "upload",
            device,
            queue=self.queue("copy_in"),
            operands=operands,
            writes=tuple(name for names in operands.values() for name in names),
            count=Count(moved_bytes=FLOAT_BYTES * pixels),
            first_image=device * self.batch_size if self.network.copied else 0,
        )

    def _forward(self, part: Part) -> None:
        if part.view or part.layer.name in self.ends:
            return
        end = self.end_of(part)
        reads = self._named("x", self.inputs(part))
        writes: dict[str, tuple[str, ...]] = {"y": (self._buffer(end or part, "activation"),)}
        if end:
            writes |= self._kept_by(end)
        for kept in () if end else part.auxiliary:
            buffer = (self._buffer(part, kept.name),)
            if kept.category == "mask":
                size = FLOAT_BYTES * self.batch_size * elements(kept.shape)
                self._add(
                    OpKind.DRAW, part, writes={kept.name: buffer}, count=Count(moved_bytes=size)
                )
            (reads if kept.category == "mask" else writes)[kept.name] = buffer
        for name, parameter in part.read_by_name.items():
            reads[name] = (self._parameter(part, name),)
            if not parameter.trained:
                writes[name] = reads[name]
        halves = self.half_copies(part)
        # Copies of the first turn serve the others, unless there is an update between them.
        again = self.turn and not self.spec.variable_batch
        cast = self.first_in_half(part) and not again
        (writes if cast else reads).update({f"{name}.half": at for name, at in halves.items()})
        for index, copy in self.copies(part).items():
            writes[f"x{index}.cast"] = (copy,)
        if end:
            widths = self.types.both(part, end)
            count = counts.forward_of_both(part, end, self.batch_size, widths, cast=cast)
        else:
            count = counts.forward(part, self.batch_size, self.types.widths(part), cast=cast)
        self._add(OpKind.FORWARD, part, reads=reads, writes=writes, count=count)

    def _loss(self, part: Part) -> None:
        size = self.output_size(part)
        reads = {"y": (self._buffer(part, "activation"),), "labels": self._labels(part)}
        self._add(OpKind.LOSS, part, reads=reads, count=Count(moved_bytes=size))

    def _update(self, part: Part) -> None:
        fused, rule = self.fuses(part), RULES[self.spec.optimizer]
        reads: dict[str, tuple[str, ...]] = {}
        writes: dict[str, tuple[str, ...]] = {}
        for parameter in part.trained:
            name, in_momentum = parameter.name, fused and parameter.role == Role.WEIGHT
            if not in_momentum:
                reads[f"d{name}"] = (self._buffer(part, f"{name}.grad"),)
                if rule.uses_up_gradient:
                    writes[f"d{name}"] = reads[f"d{name}"]
            for role in (name, *(f"{name}.{kept}" for kept in rule.state)):
                reads[role] = (self._buffer(part, role),)
                if role == name or not in_momentum:
                    writes[role] = reads[role]
        if rule.counts_updates:
            reads[UPDATES] = writes[UPDATES] = (self._buffer(part, UPDATES),)
        self._add(
            OpKind.UPDATE,
            part,
            reads=reads,
            writes=writes,
            count=counts.update(part, fused=fused, optimizer=self.spec.optimizer),
            fused=fused,
        )
