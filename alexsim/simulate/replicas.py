"""Every replica of a plan apart, for a machine of unlike cards: each has a card of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from alexsim.plan.exchanges import Exchange
from alexsim.plan.plan import DevicePlan, Op, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class EveryReplica(Plan):
    """A plan with the devices of all its replicas, replica by replica."""

    @property
    def stands_for(self) -> int:
        """Each device stands for itself."""
        return 1


def every_replica(plan: Plan) -> Plan:
    """The plan with a device for each card; of a plan without replicas itself."""
    if plan.replicas == 1:
        return plan
    columns = len(plan.devices)
    copies = range(plan.replicas)
    known = {field.name: getattr(plan, field.name) for field in fields(Plan)}
    return EveryReplica(**known | {
        "devices": tuple(_device(d, copy, columns) for copy in copies for d in plan.devices),
        "posted": tuple(_exchange(e, copy, columns) for copy in copies for e in plan.posted),
    })  # fmt: skip


def _named(name: str, copy: int) -> str:
    return f"{name}@{copy}" if name else ""


def _device(device: DevicePlan, copy: int, columns: int) -> DevicePlan:
    index = copy * columns + device.index
    ops = tuple(_op(op, copy, index) for op in device.ops)
    return replace(device, name=f"gpu{index}", index=index, ops=ops)


def _op(op: Op, copy: int, index: int) -> Op:
    return replace(
        op,
        id=_named(op.id, copy),
        device=f"gpu{index}",
        device_index=index,
        depends_on=tuple(_named(need, copy) for need in op.depends_on),
        exchange=_named(op.exchange, copy),
    )


def _exchange(exchange: Exchange, copy: int, columns: int) -> Exchange:
    source = copy * columns + exchange.source_index
    target = copy * columns + exchange.target_index
    return replace(
        exchange,
        name=_named(exchange.name, copy),
        source=f"gpu{source}",
        target=f"gpu{target}",
        source_index=source,
        target_index=target,
    )
