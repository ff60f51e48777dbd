"""Tasks of devices that are processes on the cores of this machine, or of machines like it: what
``alexsim train --device cpu`` does, by a calibration.

On one machine all devices share the cores, and columns take turns. Replicas are processes that do
the same at the same time, each with its part of the threads; one stands for all. Beyond a network
every device is a machine of its own.
"""

from __future__ import annotations

from alexsim.machine import collectives
from alexsim.machine.link import Link
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.part import Part
from alexsim.plan.plan import Op, OpKind
from alexsim.simulate.host import Auxiliary
from alexsim.simulate.tasks import TaskList

_CORES = ("cores",)


class CoresTaskList(TaskList):
    """Tasks of some steps on the cores of this machine, or of a machine for each device."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._network: Link | None = self.timer.machine.network
        self._waits = {op.exchange: op for op in self.plan.ops() if op.kind == OpKind.WAIT}

    def _host(self, step: int) -> tuple[int, ...]:
        """Decoding takes the cores that compute: those that all devices share or, where each device
        is a machine, that machine's."""
        if self.data == "none":
            return ()
        uploads = [op.id for op in self.plan.ops() if op.kind == OpKind.UPLOAD]
        if self._network is None:
            return self._stages(step, "", uploads, _CORES)
        for device, upload in zip(self.plan.devices, uploads, strict=True):
            self._stages(step, f"{device.name}.", [upload], (f"{device.name}.cores",))
        return ()

    def _barrier_s(self, barrier: Op) -> float:
        """Seconds in which a barrier's messages reach other machines; 0 among threads of a process.

        Receives are posted when the step begins, so a barrier takes one journey.
        """
        if self._network is None:
            return 0.0
        end = self._end_s if barrier.barrier == "end" else 0.0
        return self._network.latency_s.value + end

    @property
    def _end_s(self) -> float:
        """At the end of a step processes also exchange the loss, whether files were broken, and
        whether to stop: gloo sends these only when it has heard that they are awaited, two journeys
        each."""
        return 6 * self._network.latency_s.value if self._network else 0.0

    def _op(self, step: int, device: int, op: Op, crop: tuple[int, ...]) -> None:
        del device, crop  # who uploads takes the cores that have decoded
        known = self.of_step[step]
        after = tuple([known[need] for need in self._needs(op)])
        if op.kind == OpKind.ALL_REDUCE:
            # Sums are begun, and the device goes on; gloo's threads take the same cores.
            seconds = self._all_reduce_s(self._parts[op.layer, op.column], self.plan.replicas)
            self._add(step, op, "network", seconds, after, () if self._network else _CORES)
        elif self._network is None:
            # One thread runs a device's whole list, copies too.
            self._add(step, op, "compute", self._measured_s(op), after, _CORES)
        else:
            self._op_over_network(step, op, after, self._network)

    def _op_over_network(self, step: int, op: Op, after: tuple[int, ...], link: Link) -> None:
        """An op of a device that is a machine of this kind, with the others beyond a network.

        A post copies its values, which cross while both machines go on; the wait copies them again.
        """
        # One thread of the host runs a device's whole list, copies too.
        cores = (f"{op.device}.cores",)
        if op.kind == OpKind.POST:
            exchange = self._exchanges[op.exchange]
            copied = self._measured_s(self._waits[op.exchange])
            done = self._add(step, op, "compute", copied, after, cores)
            rate = link.bytes_per_s.value * link.efficiency.value
            stages = {"wire": exchange.size_bytes / rate, "hop": link.latency_s.value}
            for queue, taken_s in stages.items():
                message = Auxiliary(
                    id=f"{exchange.name}.{queue}",
                    device=f"{exchange.source}>{exchange.target}",
                    activity="exchange",
                    exchange=exchange.name,
                )
                done = self._add(step, message, queue, taken_s, (done,))
            return
        seconds = self._measured_s(op)
        if op.kind == OpKind.WAIT:
            after = (*after, self.of_step[step][f"{op.exchange}.hop"])
        if op.id == self.plan.devices[0].ops[-1].id:
            # A device alone has no barrier at which its replicas would meet.
            seconds += self._end_s
        self._add(step, op, "compute", seconds, after, cores)

    def _all_reduce_s(self, part: Part, devices: int) -> float:
        """Processes of one machine sum through its memory."""
        size = FLOAT_BYTES * part.parameters
        return collectives.all_reduce_s(self.timer.machine, devices, size, peer=bool(self._network))
