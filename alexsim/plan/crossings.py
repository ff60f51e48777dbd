"""Exchanges between devices, and the barriers around them, as they enter the op lists.

Columns exchange as in 2012: a post and a wait for every pair of devices, between barriers. Devices
of a hybrid plan exchange with all others at a time, in one op each: a collective.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from alexsim.network.counts import Count
from alexsim.network.part import INPUT, Part, letter
from alexsim.network.views import Read
from alexsim.plan.exchanges import Collective, Exchange
from alexsim.plan.placement import Placement, activation
from alexsim.plan.plan import OpKind, Queue


class _Crossing(NamedTuple):
    """Columns whose values cross, the bytes of each, and the devices that read them."""

    columns: tuple[int, ...]
    sizes: tuple[int, ...]
    readers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _End:
    """One device's part of a collective: the buffers that it touches, and what it does."""

    operands: dict[str, tuple[str, ...]]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    count: Count


@dataclass(slots=True, kw_only=True)
class Crossings(Placement):
    """Op lists of devices that read each other's activations and gradients."""

    layers: tuple[tuple[Part, ...], ...] = field(init=False)
    """The network's parts on the devices that are built."""
    exchanges: list[Exchange] = field(default_factory=list)
    posts: dict[str, str] = field(default_factory=dict)
    """By exchange, the op that posts it."""
    collectives: list[Collective] = field(default_factory=list)
    waits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By op, where this device stands for the others: its buffers like those that they send or
    receive there. The op waits until these are written; they are used when it has ended."""
    contributed: set[str] = field(default_factory=set)
    """Gradients of activations that have been written, if only in part."""
    fetched: set[tuple[int, Read]] = field(default_factory=set)
    """Remote outputs that a device has already, for the images that are worked on now."""
    _last: dict[tuple[int, Read], str] = field(init=False)
    """By device and remote output, the first layer there that reads it: the last to add to its
    gradient."""

    _crossing: dict[str, _Crossing | None] = field(default_factory=dict)
    """By layer, the columns that its parts read of each other's devices."""
    _ends: dict[tuple[object, ...], _End] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Placement.__post_init__(self)
        built = range(len(self.ops))
        self.layers = tuple(
            tuple(part for part in parts if self.device_of[part.column] in built)
            for parts in self.network.parts
        )
        self._last = {}
        for parts in () if self.network.copied else self.network.parts:
            for part in parts:
                for read in part.reads:
                    key = (self.device_of[part.column], read)
                    self._last.setdefault(key, part.layer.name)

    @property
    def staged(self) -> bool:
        """Gradients land in a buffer of the owner before they are added (2012 added over PCIe)."""
        return self.spec.backend != ""

    def offer_inputs(self, parts: tuple[Part, ...]) -> list[Exchange]:
        """Post the remote outputs that these parts read."""
        pulls = []
        for part in parts:
            target = self.device_of[part.column]
            for read in self.reads(part):
                source = self.device_of[read.column]
                if self._is_remote(read, target) and (target, read) not in self.fetched:
                    self.fetched.add((target, read))
                    sent = (source, activation(source, read.layer, read.column))
                    lands = (target, self.local(target, read, "activation"))
                    pulls.append(self._exchange("forward", read, sent, lands))
        for exchange in pulls:
            self._half(exchange, OpKind.POST)
        return pulls

    def fetch_inputs(self, pulls: list[Exchange]) -> None:
        """Wait for the exchanges that ``offer_inputs`` posted."""
        self._meet(pulls)
        for exchange in pulls:
            self._half(exchange, OpKind.WAIT)

    def push_grads(self, parts: tuple[Part, ...]) -> list[Exchange]:
        """Post each remote input's gradient to its owner."""
        pushes = []
        for part in parts:
            source = self.device_of[part.column]
            for read in self.reads(part):
                owner = self.device_of[read.column]
                if not self._is_remote(read, source):
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
        """Wait for what ``push_grads`` posted; the owner adds it to what it computed itself."""
        self._meet(pushes)
        for exchange in pushes:
            # One after another: there may be only one place for them to land.
            self._half(exchange, OpKind.WAIT)
            owner = self.device_of[exchange.column]
            read = Read(exchange.layer, exchange.column)
            grad = self.local(owner, read, "activation_grad")
            if exchange.target_buffer == grad:
                continue
            size = exchange.size_bytes
            self.add(
                OpKind.ACCUMULATE,
                f"{_route(exchange)}.accumulate",
                owner,
                self.network.part_of(exchange.layer, exchange.column),
                accumulate=True,
                operands={"x": (exchange.target_buffer,), "total": (grad,)},
                reads=(exchange.target_buffer, grad),
                writes=(grad,),
                count=Count(
                    elementwise_flop=size // self.types.output_bytes[read.layer],
                    moved_bytes=3 * size,
                ),
            )

    def _is_remote(self, read: Read, device: int) -> bool:
        return read.layer != INPUT and self.device_of[read.column] != device

    def _exchange(
        self,
        direction: Literal["forward", "backward"],
        read: Read,
        source: tuple[int, str],
        target: tuple[int, str],
    ) -> Exchange:
        layer, column = read
        size = self.output_size(self.network.part_of(layer, column))
        exchange = Exchange(
            name=f"{layer}.{letter(column)}.{direction}.gpu{source[0]}-gpu{target[0]}",
            layer=layer,
            column=column,
            direction=direction,
            source=f"gpu{source[0]}",
            target=f"gpu{target[0]}",
            source_index=source[0],
            target_index=target[0],
            source_buffer=source[1],
            target_buffer=target[1],
            size_bytes=size,
        )
        self.exchanges.append(exchange)
        return exchange

    def _meet(self, exchanges: list[Exchange]) -> None:
        """In 2012 all devices met before an exchange was pulled."""
        if exchanges and self.spec.schedule == "serial":
            direction = exchanges[0].direction
            self.barrier(f"{exchanges[0].layer}.{direction}", in_test=direction == "forward")

    def _half(self, exchange: Exchange, kind: OpKind) -> None:
        posts = kind == OpKind.POST
        device = exchange.source_index if posts else exchange.target_index
        half = self.add(
            kind,
            f"{_route(exchange)}.{'post' if posts else 'wait'}",
            device,
            self.network.part_of(exchange.layer, exchange.column),
            queue=self.queue("copy_out" if posts else "copy_in"),
            reads=(exchange.source_buffer,) if posts else (),
            writes=(exchange.target_buffer,) if not posts and exchange.lands else (),
            count=Count(moved_bytes=0 if posts else exchange.size_bytes),
            exchange=exchange.name,
            in_test=exchange.direction == "forward",
        )
        if posts:
            self.posts[exchange.name] = half.id

    def gather(self, parts: tuple[Part, ...]) -> None:
        """Bring what these parts of a split layer read to all devices that read it."""
        if crossing := self._crossing_of(parts):
            self._collective("forward", crossing, parts[0])

    def scatter(self, parts: tuple[Part, ...]) -> None:
        """Bring the gradients of what they read to the columns that they are of, and add them."""
        if crossing := self._crossing_of(parts):
            self._collective("backward", crossing, parts[0])

    def _crossing_of(self, parts: tuple[Part, ...]) -> _Crossing | None:
        """What all parts of a layer read, and their devices; None if each reads its column only."""
        first = parts[0]
        name = first.layer.name
        if name not in self._crossing:
            columns = tuple(read.column for read in first.reads)
            readers = tuple(self.device_of[part.column] for part in parts)
            alone = len(columns) == 1 and readers == columns
            differ = parts[-1].reads != first.reads
            sizes = map(self.output_size, self.network.parts_of(first.reads[0].layer))
            self._crossing[name] = (
                None if differ or alone else _Crossing(columns, tuple(sizes), readers)
            )
        crossing = self._crossing[name]
        if crossing is not None and first.gathers:
            assert self.turn is not None
            return _Crossing((self.turn,), (crossing.sizes[self.turn],), crossing.readers)
        return crossing

    def _collective(
        self, direction: Literal["forward", "backward"], crossing: _Crossing, part: Part
    ) -> None:
        assert self.turn is not None
        layer = part.reads[0].layer
        forward = direction == "forward"
        kind = OpKind.ALL_GATHER if forward else OpKind.REDUCE_SCATTER
        collective = Collective(
            name=f"{layer}.{self.tag}{direction}",
            layer=layer,
            turn=self.turn,
            direction=direction,
            columns=crossing.columns,
            column_bytes=crossing.sizes,
            readers=crossing.readers,
        )
        self.collectives.append(collective)
        for device in range(len(self.ops)):
            key = (layer, direction, device, self.turn if part.gathers else 0)
            if key not in self._ends:
                self._ends[key] = self._end(collective, device)
            end = self._ends[key]
            if not end.operands:
                continue
            if total := end.operands.get("total"):
                self.contributed.update(total)
            op = self.add(
                kind,
                f"{self.tag}{kind}",
                device,
                layer=layer,
                column=device,
                operands=end.operands,
                reads=end.reads,
                writes=end.writes,
                count=end.count,
                collective=collective.name,
                turn=self.turn,
            )
            self.waits[op.id] = self._alike(collective, device)

    def _alike(self, collective: Collective, device: int) -> tuple[str, ...]:
        """Buffers that other devices receive, and the device that stands for them has already."""
        if not self.first_only:
            return ()
        backward = collective.direction == "backward"
        # Gradients of outputs that came from device after device are whole after the last turn.
        if device not in collective.columns and not (backward and len(collective.columns) == 1):
            return ()
        name = "activation_grad" if backward else "activation"
        return (self.local(device, Read(collective.layer, device), name),)

    def _end(self, collective: Collective, device: int) -> _End:
        """A device's part of a collective; empty if it takes none."""
        sent = tuple({exchange.source_buffer: None for exchange in collective.sent_by(device)})
        received = collective.received_by(device)
        size = sum(exchange.size_bytes for exchange in received)
        operands = {"sent": sent} if sent else {}
        if not received:
            return _End(operands, sent, (), Count())
        if collective.direction == "forward":
            targets = tuple(exchange.target_buffer for exchange in received)
            return _End(operands | {"received": targets}, sent, targets, Count(moved_bytes=size))
        total = (received[0].target_buffer,)
        operands["total"] = total
        # A sum that the device has no part of itself begins with the first part that comes.
        begun = device in collective.readers
        added = received if begun else received[1:]
        landing: tuple[str, ...] = ()
        if added and self.staged:
            landing = operands["landing"] = (
                f"gpu{device}/{collective.layer}.{letter(device)}.landing",
            )
        sums = sum(exchange.size_bytes for exchange in added)
        item = self.types.output_bytes[collective.layer]
        count = Count(elementwise_flop=sums // item, moved_bytes=size + 3 * sums)
        return _End(operands, (*sent, *total) if begun else sent, (*total, *landing), count)

    def barrier(self, name: str, *, in_test: bool = False) -> None:
        """All devices wait for each other; in the overlap schedule only where they must."""
        if self.devices == 1 or (self.spec.schedule == "overlap" and name not in ("end", "next")):
            return
        name = f"{self.tag}{name}"
        for device in range(len(self.ops)):
            self.add(OpKind.BARRIER, f"barrier.{name}", device, barrier=name, in_test=in_test)

    def queue(self, queue: Queue) -> Queue:
        """The copy engine's queue, where there is more than one."""
        return queue if self.spec.schedule == "overlap" else "compute"


def _route(exchange: Exchange) -> str:
    return f"{exchange.direction}.{exchange.source}-{exchange.target}"
