"""Sums over a plan: FLOPs by layer, bytes by category and by layer."""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.network import counts
from alexsim.network.layers import Concat, MaxPool
from alexsim.network.layers.elementwise import Move
from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim.network.update_rules import RULES
from alexsim.plan.plan import Category, DevicePlan, Op, OpKind, Plan
from alexsim.plan.planner import plan, representative
from alexsim.plan.spec import PlanSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFlops:
    """One layer over all columns and one image; ``bytes`` as ``counts`` defines, whole batch."""

    name: str
    shape: tuple[int, ...]
    """Output of all columns together."""
    parameters: int
    mac: int
    flop: int
    grad_input_flop: int
    grad_weight_flop: int
    update_flop: int
    """Per step, not per image."""
    elementwise_flop: int
    """Forward and backward; the update is not in it."""
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopTable:
    """What one image costs, layer by layer."""

    network: Network
    batch_size: int
    layers: tuple[LayerFlops, ...]

    @property
    def mac(self) -> int:
        """Multiply-adds of one forward pass."""
        return sum(layer.mac for layer in self.layers)

    @property
    def flop(self) -> int:
        """FLOP of one forward pass: two per multiply-add."""
        return 2 * self.mac

    @property
    def training_flop(self) -> int:
        """FLOP of one image's forward and backward pass."""
        return sum(la.flop + la.grad_input_flop + la.grad_weight_flop for la in self.layers)


def flop_table(
    network: Network, batch_size: int = 128, *, trainable: frozenset[str] | None = None
) -> FlopTable:
    """Sum the ops of a plan of ``network`` by layer; ``trainable`` as in ``plan``."""
    planned = plan(network, gpus=1, batch_size=batch_size, trainable=trainable)
    spec, ops = planned.spec, list(planned.ops())
    work = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT)
    layers = []
    for parts in network.parts:
        name = parts[0].layer.name
        layer_ops = [op for op in ops if op.layer == name]
        mac = {
            kind: sum(op.count.mac for op in layer_ops if op.kind == kind) // batch_size
            for kind in work
        }
        layers.append(
            LayerFlops(
                name=name,
                shape=(sum(p.output_shape[0] for p in parts), *parts[0].output_shape[1:]),
                parameters=sum(part.parameters for part in parts),
                mac=mac[OpKind.FORWARD],
                flop=2 * mac[OpKind.FORWARD],
                grad_input_flop=2 * mac[OpKind.GRAD_INPUT],
                grad_weight_flop=2 * mac[OpKind.GRAD_WEIGHT],
                update_flop=sum(
                    counts.update(part, fused=False, optimizer=spec.optimizer).elementwise_flop
                    for part in parts
                )
                if name in spec.trained
                else 0,
                elementwise_flop=_elementwise(layer_ops, work, parts, batch_size),
                bytes=sum(op.count.moved_bytes for op in layer_ops if op.kind in work),
            )
        )
    return FlopTable(network=network, batch_size=batch_size, layers=tuple(layers))


def _elementwise(
    ops: list[Op], work: tuple[OpKind, ...], parts: tuple[Part, ...], batch_size: int
) -> int:
    total = sum(op.count.elementwise_flop for op in ops if op.kind in work)
    # A fused weight gradient carries FLOP per weight that belong to the update.
    fused = any(op.fused and op.kind == OpKind.GRAD_WEIGHT for op in ops)
    carried = RULES["sgd-2012"].fused_flop * sum(part.weight_count for part in parts)
    return (total - carried * fused) // batch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFlops:
    """FLOP of a step's multiply-adds, forward and backward, and how the GPUs share them."""

    batch_size: int
    gpus: int
    """Those of all replicas."""
    images_per_gpu: int
    flop: int
    """Of all images, on all GPUs."""
    flop_of_gpu: int
    """Of the GPU that has the most."""
    summed_bytes: int
    """Gradients of each GPU that are summed over the replicas; of the GPU that has the most."""


def step_flops(table: FlopTable, spec: PlanSpec) -> StepFlops:
    """A step of the table's network, shared as ``spec`` says."""
    # The first of devices that do alike has the most of them.
    devices = representative(spec).devices
    summed = (
        sum(op.count.moved_bytes for op in device.ops if op.kind == OpKind.ALL_REDUCE)
        for device in devices
    )
    return StepFlops(
        batch_size=spec.batch_size,
        gpus=spec.all_gpus,
        images_per_gpu=spec.op_images,
        flop=spec.batch_size * table.training_flop,
        flop_of_gpu=max(sum(op.count.flop for op in device.ops) for device in devices),
        summed_bytes=max(summed),
    )


def without_formula(network: Network) -> tuple[tuple[str, OpKind], ...]:
    """Layers and passes that a plan runs and for which ``counts`` gives no FLOP at all."""
    kinds = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT, OpKind.UPDATE)
    # A pool of single pixels compares nothing; what is put elsewhere or passed on is only copied.
    free = {
        (la.name, kind)
        for la in network.layers
        for kind, is_free in (
            (
                OpKind.FORWARD,
                isinstance(la, Concat | Move) or (isinstance(la, MaxPool) and la.size == 1),
            ),
            (OpKind.GRAD_INPUT, isinstance(la, Concat | Move) or la.passes_grad),
        )
        if is_free
    }
    uncounted = (
        (op.layer, op.kind)
        for op in plan(network, gpus=1, batch_size=1).ops()
        if op.kind in kinds and not op.count.mac and not op.count.elementwise_flop
    )
    return tuple(op for op in dict.fromkeys(uncounted) if op not in free)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes that one device holds at its fullest op, context included, summed two ways."""

    name: str
    by_category: dict[str, int]
    by_layer: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Everything, context included."""
        return sum(self.by_category.values())


def memory_table(planned: Plan, *, context_bytes: int = 0) -> tuple[DeviceMemory, ...]:
    """Bytes per device by category and by layer.

    Copies of another device's activations and their gradients stand under ``<layer>.remote``,
    what belongs to no layer under ``input``, ``workspace``, ``context`` and ``padding``
    (alignment, and gaps between packed blocks).
    """
    return tuple(_device_memory(device, context_bytes) for device in planned.devices)


def _device_memory(device: DevicePlan, context_bytes: int) -> DeviceMemory:
    by_category = dict.fromkeys((str(category) for category in Category), 0)
    by_layer: dict[str, int] = {}
    resident = set(device.resident)
    for buffer in device.buffers:
        if buffer.name not in resident:
            continue
        by_category[buffer.category] += buffer.size_bytes
        layer = buffer.layer
        if buffer.category in (Category.REMOTE, Category.REMOTE_GRAD):
            layer = f"{layer}.remote"
        elif buffer.category == Category.WORKSPACE:
            layer = "workspace"
        by_layer[layer] = by_layer.get(layer, 0) + buffer.size_bytes
    by_category[Category.WORKSPACE] += device.scratch_bytes
    by_layer["workspace"] = by_layer.get("workspace", 0) + device.scratch_bytes
    by_category[Category.PADDING] = device.arena_bytes - device.live_peak_bytes
    by_category[Category.CONTEXT] = context_bytes
    by_layer["padding"] = by_category[Category.PADDING]
    by_layer["context"] = context_bytes
    return DeviceMemory(name=device.name, by_category=by_category, by_layer=by_layer)
