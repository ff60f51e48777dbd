"""Exchanges between devices, and the barriers around them, as they enter the op lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from alexsim.network.counts import FLOAT_BYTES, Count
from alexsim.network.network import INPUT, Part
from alexsim.network.views import Read
from alexsim.plan.placement import Placement, Step, activation, elements
from alexsim.plan.records import Exchange, OpKind, Queue, letter
from alexsim.plan.spec import Schedule


@dataclass(slots=True, kw_only=True)
class Crossings(Placement):
    """Op lists of devices that read each other's activations and gradients."""

    schedule: Schedule
    staged: bool
    """Gradients land in a buffer of the owner before they are added (2012 added over PCIe)."""
    steps: list[list[Step]] = field(init=False)
    exchanges: list[Exchange] = field(default_factory=list)
    contributed: set[str] = field(default_factory=set)
    """Gradients of activations that have been written, if only in part."""
    fetched: set[tuple[int, Read]] = field(default_factory=set)
    """What a device has of another's outputs, for the images that are worked on now."""
    _last: dict[tuple[int, Read], str] = field(init=False)
    """Of another device's output, the first layer here that reads it: the last to add to its
    gradient."""

    def __post_init__(self) -> None:
        self.steps = [[] for _ in range(max(self.device_of) + 1)]
        self._last = {}
        for parts in self.network.parts:
            for part in parts:
                for read in part.reads:
                    key = (self.device_of[part.column], read)
                    self._last.setdefault(key, part.layer.name)

    def offer_inputs(self, parts: tuple[Part, ...]) -> list[Exchange]:
        """Offer what these parts read of other devices."""
        pulls = []
        for part in parts:
            target = self.device_of[part.column]
            for read in self.reads(part):
                source = self.device_of[read.column]
                if self._comes_from_afar(read, target) and (target, read) not in self.fetched:
                    self.fetched.add((target, read))
                    sent = (source, activation(source, read.layer, read.column))
                    lands = (target, self.local(target, read, "activation"))
                    pulls.append(self._exchange("forward", read, sent, lands))
        for exchange in pulls:
            self._half(exchange, OpKind.POST)
        return pulls

    def fetch_inputs(self, pulls: list[Exchange]) -> None:
        """Fetch what was offered."""
        self._meet(pulls)
        for exchange in pulls:
            self._half(exchange, OpKind.WAIT)

    def push_grads(self, parts: tuple[Part, ...]) -> list[Exchange]:
        """Offer each remote input's gradient to its owner."""
        pushes = []
        for part in parts:
            source = self.device_of[part.column]
            for read in self.reads(part):
                owner = self.device_of[read.column]
                if not self._comes_from_afar(read, source):
                    continue
                if not part.gathers and self._last[source, read] != part.layer.name:
                    continue
                grad = self.local(owner, read, "activation_grad")
                remote = self.local(source, read, "activation_grad")
                target = grad
                if grad in self.contributed:
                    landing = f"gpu{owner}/{read.layer}.{letter(read.column)}.from_gpu{source}"
                    target = landing if self.staged else remote
                pushes.append(self._exchange("backward", read, (source, remote), (owner, target)))
                self.contributed.add(grad)
        for exchange in pushes:
            self._half(exchange, OpKind.POST)
        return pushes

    def pull_grads(self, pushes: list[Exchange]) -> None:
        """Fetch what was offered; the owner adds it to what it computed itself."""
        self._meet(pushes)
        for exchange in pushes:
            # One after another: there may be only one place for them to land.
            self._half(exchange, OpKind.WAIT)
            owner = int(exchange.target.removeprefix("gpu"))
            read = Read(exchange.layer, exchange.column)
            grad = self.local(owner, read, "activation_grad")
            if exchange.target_buffer == grad:
                continue
            size = exchange.size_bytes
            self.steps[owner].append(
                Step(
                    id=f"{exchange.name}.accumulate",
                    kind=OpKind.ACCUMULATE,
                    device=owner,
                    part=self.network.part_of(exchange.layer, exchange.column),
                    operands={"x": (exchange.target_buffer,), "total": (grad,)},
                    reads=(exchange.target_buffer, grad),
                    writes=(grad,),
                    count=Count(elementwise_flop=size // FLOAT_BYTES, moved_bytes=3 * size),
                    accumulate=True,
                )
            )

    def _comes_from_afar(self, read: Read, device: int) -> bool:
        return read.layer != INPUT and self.device_of[read.column] != device

    def _exchange(
        self,
        direction: Literal["forward", "backward"],
        read: Read,
        source: tuple[int, str],
        target: tuple[int, str],
    ) -> Exchange:
        layer, column = read
        part = self.network.part_of(layer, column)
        size = FLOAT_BYTES * self.batch_size * elements(part.output_shape)
        exchange = Exchange(
            name=f"{layer}.{letter(column)}.{self.tag}{direction}.gpu{source[0]}-gpu{target[0]}",
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

    def _meet(self, exchanges: list[Exchange]) -> None:
        """In 2012 all devices met before an exchange was pulled."""
        if exchanges and self.schedule == "serial":
            self.barrier(f"{exchanges[0].layer}.{exchanges[0].direction}")

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
                part=self.network.part_of(exchange.layer, exchange.column),
                queue=self.queue("copy_out" if posts else "copy_in"),
                reads=(exchange.source_buffer,) if posts else (),
                writes=(exchange.target_buffer,) if not posts and lands else (),
                count=Count(moved_bytes=0 if posts else exchange.size_bytes),
                exchange=exchange.name,
            )
        )

    def barrier(self, name: str) -> None:
        """All devices wait for each other; in the overlap schedule only where they must."""
        if len(self.steps) == 1 or (self.schedule == "overlap" and name not in ("end", "next")):
            return
        for device, steps in enumerate(self.steps):
            name_here = f"gpu{device}.barrier.{self.tag}{name}"
            steps.append(Step(id=name_here, kind=OpKind.BARRIER, device=device))

    def queue(self, queue: Queue) -> Queue:
        """That of a copy engine, where there is more than one queue."""
        return queue if self.schedule == "overlap" else "compute"
