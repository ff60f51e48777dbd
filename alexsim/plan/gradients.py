"""The backward pass: which gradients there are, in which order, and where they are added up."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.detached import learning, without_cost
from alexsim.network.layers import FullyConnected, Role, SoftmaxCrossEntropy
from alexsim.network.part import INPUT, Part, letter
from alexsim.network.update_rules import RULES
from alexsim.network.views import Read
from alexsim.plan.crossings import Crossings
from alexsim.plan.exchanges import Exchange
from alexsim.plan.fusion import Fusion, fusions
from alexsim.plan.placement import elements
from alexsim.plan.plan import Operands, OpKind

_OF_BOTH = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT)
"""Ops that one kernel may do for two layers."""


@dataclass(slots=True, kw_only=True)
class Gradients(Crossings):
    """What learns, what is one op with what follows it, and the ops of the backward pass."""

    trainable: frozenset[str] = field(init=False)
    shared_owners: frozenset[str] = field(init=False)
    """Layers whose parameters others share."""
    begun: set[str] = field(default_factory=set)
    """Gradients of shared parameters that hold a part of their sum."""
    fusions: dict[str, Fusion] = field(init=False)
    """Layers that are one op with what follows them."""
    ends: dict[str, Fusion] = field(init=False)
    """The same by the layer that follows."""
    learning: frozenset[str] = field(init=False)
    """Layers whose outputs depend on what is trained."""
    beside: frozenset[str] = field(init=False)
    """Layers whose outputs lie in one block with those of layers that learn."""
    joining: tuple[Part, ...] = field(init=False)
    """Parts that read outputs which lie side by side."""
    joined: frozenset[Read] = field(init=False)
    """Outputs that lie side by side with others."""
    shared: dict[str, str] = field(default_factory=dict)
    """Gradients that are another gradient's buffer: a sum passes them on."""

    def __post_init__(self) -> None:
        Crossings.__post_init__(self)
        self.trainable = learning(self.network, self.spec.trained)
        self.fusions = fusions(self.spec) if self.spec.fusion == "kernels" else {}
        self.ends = {fusion.second: fusion for fusion in self.fusions.values()}
        using = self.network.using(self.trainable)
        self.shared_owners = frozenset(la.shares for la in self.network.layers if la.shares)
        self.learning = self.network.reaches(using) - without_cost(self.network)
        self.joining = tuple(
            part
            for parts in self.layers
            for part in parts
            if len(part.reads) > len(part.inputs) and not part.gathers
        )
        groups = {group for part in self.joining for group in part.inputs if len(group) > 1}
        self.joined = frozenset(read for group in groups for read in group)
        self.beside = frozenset(
            read.layer
            for group in groups
            if any(read.layer in self.learning for read in group)
            for read in group
        )

    def fuses(self, part: Part) -> bool:
        """Whether a weight gradient goes straight into the momentum, as 2012's fc layers' did.

        Gradients of replicas, and those that layers share, are summed first: then each has a
        buffer. So it has where a rule needs the gradient itself, in half precision and in PyTorch.
        """
        spec, shared = self.spec, part.owner in self.shared_owners
        if spec.copies > 1 or spec.precision == "amp" or spec.policy == "pytorch" or shared:
            return False
        return RULES[spec.optimizer].fused_flop > 0 and isinstance(part.layer, FullyConnected)

    def end_of(self, part: Part, *, backward: bool = False) -> Part | None:
        """The part that the kernel of a part does too, in the forward or in the backward pass."""
        fusion = self.fusions.get(part.layer.name)
        if fusion is None or (backward and not fusion.backward):
            return None
        return self.network.part_of(fusion.second, part.column)

    def _trains(self, part: Part) -> bool:
        return bool(part.learning) and part.owner in self.trainable

    def has_grad(self, layer: str) -> bool:
        """Whether a layer's output has a gradient: it needs one, or lies beside one that does."""
        return layer in self.learning or layer in self.beside

    def _add(
        self,
        kind: OpKind,
        part: Part,
        *,
        reads: Operands = MappingProxyType({}),
        writes: Operands = MappingProxyType({}),
        count: Count,
        accumulate: bool = False,
        fused: bool = False,
        suffix: str = "",
    ) -> None:
        end = None
        if self.fusions and kind in _OF_BOTH:
            end = self.end_of(part, backward=kind != OpKind.FORWARD)
        self.add(
            kind,
            f"{self.tag}{kind}{suffix}",
            self.device_of[part.column],
            part,
            accumulate=accumulate,
            operands={**reads, **writes} if writes else reads,
            reads=tuple(chain.from_iterable(reads.values())),
            writes=tuple(chain.from_iterable(writes.values())),
            count=count,
            first_image=self.first_image(part),
            fused=fused,
            epilogue=end.layer.name if end else "",
            turn=None if part.copied else self.turn,
        )

    def _kept_by(self, end: Part) -> dict[str, tuple[str, ...]]:
        """What the last part of a fused op leaves for the backward pass beside its output."""
        kept = end.layer.kept_fused(end.output_shape)
        return {auxiliary.name: (self._buffer(end, auxiliary.name),) for auxiliary in kept}

    def _grads_after(self, part: Part, end: Part | None) -> dict[str, tuple[str, ...]]:
        """The gradient that a backward op begins with; of a fused op, with what masks it."""
        if end is None:
            return {"dy": (self._buffer(part, "activation_grad"),)}
        mask = self._kept_by(end) or {"y": (self._buffer(end, "activation"),)}
        return {"dy": (self._buffer(end, "activation_grad"),)} | mask

    def _backward(self, index: int) -> None:
        parts = self.layers[index]
        fusion = self.ends.get(parts[0].layer.name)
        if parts[0].view or (fusion and fusion.backward):
            return
        sums_first = parts[0].layer.sums_for_grad
        serial = self.spec.schedule == "serial"
        if serial or sums_first:
            self._grad_weights(parts)
        pushes: list[Exchange] = []
        passes_on = parts[0].layer.name in self.learning and any(
            self.has_grad(read.layer) for read in parts[0].reads
        )
        if passes_on:
            for part in parts:
                self._grad_inputs(part)
        if parts[0].gathers:
            # The next turn overwrites what others may still read; this turn's gradients do not.
            self.barrier("next", in_test=True)
        if passes_on and self.turn is not None:
            self.scatter(self.network.parts[index])
        elif passes_on:
            pushes = self.push_grads(parts)
        if not (serial or sums_first):
            self._grad_weights(parts)
        if sums_first:
            # Replicas' sums would overwrite what the input's gradient is computed from.
            self._all_reduce(parts)
        self.pull_grads(pushes)

    def _grad_weights(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            if not self._trains(part):
                continue
            fused = self.fuses(part)
            # Turns of one update add up.
            later = bool(self.turn) and not self.spec.variable_batch
            end = self.end_of(part, backward=True)
            reads = self._grads_after(part, end)
            reads |= self._named("x", self.kept_inputs(part)) | self.half_copies(part)
            for kept in () if end else part.auxiliary:
                reads[kept.name] = (self._buffer(part, kept.name),)
            writes = {
                f"d{p.name}": (self._parameter(part, f"{p.name}.grad"),)
                for p in part.learning
                if not (fused and p.role == Role.WEIGHT)
            }
            if part.owner in self.shared_owners:
                later = part.owner in self.begun
                self.begun.add(part.owner)
            if later:
                reads |= writes
            if self.types.half(part):
                writes["half"] = (self._buffer(part, "grads.half"),)
            if fused:
                reads["weight"] = (self._parameter(part, "weight"),)
                writes["momentum"] = (self._parameter(part, "weight.momentum"),)
                reads["momentum"] = writes["momentum"]
            if end:
                count = counts.grad_weight_of_both(
                    part, end, self.batch_size, self.types.both(part, end), fused=fused, later=later
                )
            else:
                widths = self.types.widths(part)
                count = counts.grad_weight(part, self.batch_size, widths, fused=fused, later=later)
            self._add(
                OpKind.GRAD_WEIGHT,
                part,
                reads=reads,
                writes=writes,
                count=count,
                accumulate=later,
                fused=fused,
            )
        if not parts[0].layer.sums_for_grad:
            self._all_reduce(parts)

    def _all_reduce(self, parts: tuple[Part, ...]) -> None:
        for part in parts:
            summed = self.spec.copies > 1 or (part.copied and self.turns > 1)
            # What layers share is whole when the first of them has added to it.
            if summed and self._trains(part) and not part.layer.shares:
                grads = {
                    f"d{p.name}": (self._buffer(part, f"{p.name}.grad"),) for p in part.trained
                }
                size = FLOAT_BYTES * part.parameters
                self._add(
                    OpKind.ALL_REDUCE,
                    part,
                    reads=grads,
                    writes=grads,
                    count=Count(moved_bytes=size),
                )

    def _grad_inputs(self, part: Part) -> None:
        """The gradient of what a part reads, input by input."""
        inputs = self.inputs_now(part)
        grads = self.inputs(part, "activation_grad")
        passed = self._passed(part) if part.layer.passes_grad else set()
        for index, (group, names) in enumerate(zip(inputs, grads, strict=True)):
            if not any(self.has_grad(read.layer) for read in group):
                continue
            if index in passed:
                # A sum of sums: all their gradients are the last sum's.
                grad = self._buffer(part, "activation_grad")
                self.shared[names[0]] = self.shared.get(grad, grad)
                self.contributed.add(names[0])
            else:
                self._grad_input(part, names, index if part.layer.several else None)

    def _grad_input(self, part: Part, grads: tuple[str, ...], index: int | None) -> None:
        reads: dict[str, tuple[str, ...]] = {}
        end = self.end_of(part, backward=True)
        if isinstance(part.layer, SoftmaxCrossEntropy):
            reads["y"], reads["labels"] = (self._buffer(part, "activation"),), self._labels(part)
        else:
            reads = self._grads_after(part, end)
        inputs = self.kept_inputs(part)
        if "output" in part.layer.backward_reads:
            reads["y"] = (self._buffer(part, "activation"),)
        if "input" in part.layer.backward_reads:
            reads |= self._named("x", inputs)
            if index is not None:
                del reads[f"x{index}"]
        for kept in () if end else part.auxiliary:
            reads[kept.name] = (self._buffer(part, kept.name),)
        if "weight" in part.read_by_name:
            reads |= self.half_copies(part) or {"weight": (self._parameter(part, "weight"),)}
        if part.layer.sums_for_grad and self._trains(part):
            reads |= {
                f"d{p.name}": (self._parameter(part, f"{p.name}.grad"),) for p in part.learning
            }
        before = {name for name in grads if name in self.contributed}
        for name in grads if before else ():
            if name not in before:
                self._clear(part, name)
        accumulate = bool(before)
        self.contributed.update(grads)
        writes = {"dx" if index is None else f"dx{index}": grads}
        if end:
            # Both gradients pass through the layer that follows; its arithmetic is counted once.
            counted = self._trains(part)
            count = counts.grad_input_of_both(
                part, end, self.batch_size, self.types.both(part, end), counted=counted
            )
        else:
            count = counts.grad_input(part, self.batch_size, index, self.types.widths(part))
        self._add(
            OpKind.GRAD_INPUT,
            part,
            reads=reads | (writes if accumulate else {}),
            writes=writes | self.grad_copy(part, index or 0),
            count=count,
            accumulate=accumulate,
            suffix="" if index is None else str(index),
        )

    def _clear(self, part: Part, grad: str) -> None:
        """Set a gradient to zero that lies beside one which has been begun."""
        read = next(
            read
            for group, names in zip(
                self.inputs_now(part), self.inputs(part, "activation_grad"), strict=True
            )
            for read, name in zip(group, names, strict=True)
            if name == grad
        )
        size = self.output_size(self.network.part_of(*read))
        self._add(
            OpKind.CLEAR,
            part,
            writes={"dx": (grad,)},
            count=Count(moved_bytes=size),
            suffix=f".{read.layer}.{letter(read.column)}",
        )

    def _passed(self, part: Part) -> set[int]:
        """Inputs whose gradient is the very buffer of the output's, without a copy.

        It may be added to, or overwritten, only when all that share it have been read: by the
        layers that produced the inputs, in backward order.
        """
        place = {layer.name: index for index, layer in enumerate(self.network.layers)}
        position = place[part.layer.name]
        passed: dict[int, tuple[int, int]] = {}
        for index, group in enumerate(self.inputs_now(part)):
            name = self.inputs(part, "activation_grad")[index][0]
            if len(group) > 1 or name in self.contributed or group[0] in self.joined:
                continue
            if not self.alike(group[0].layer, part.layer.name):
                continue
            read = self.network.part_of(*group[0]) if group[0].layer != INPUT else part
            if elements(read.output_shape) != elements(part.output_shape):
                continue  # a slice of it
            if group[0].layer == INPUT or self._is_remote(group[0], self.device_of[part.column]):
                continue
            # Where the input's layer ends a fused op, the op's first layer reads the gradient.
            fusion = self.ends.get(group[0].layer)
            producer = place[fusion.first if fusion and fusion.backward else group[0].layer]
            writers = [place[reader] for reader in self.network.readers[group[0].layer]]
            changed = [writer for writer in writers if writer < position]
            layer = self.network.layers[producer]
            if layer.overwrites_grad or layer.passes_grad:
                changed.append(producer)
            first_write = max(changed, default=-1)
            if all(first_write < other and write < producer for other, write in passed.values()):
                passed[index] = (producer, first_write)
        return set(passed)
