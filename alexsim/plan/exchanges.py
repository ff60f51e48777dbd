"""What crosses between devices: transfers from one to another, and collectives of many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alexsim.network.part import letter


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One transfer of an activation or its gradient between two devices.

    Of a gradient that a collective brings, ``target_buffer`` is the sum that it is added to; of a
    gradient that is added straight from the source's memory, it is the source's buffer.
    """

    name: str
    layer: str
    column: int
    direction: Literal["forward", "backward"]
    source: str
    target: str
    source_index: int
    target_index: int
    """Places of these devices among the plan's."""
    source_buffer: str
    target_buffer: str
    size_bytes: int
    turn: int | None = None

    @property
    def exchanged_bytes(self) -> int:
        """Bytes that cross between devices."""
        return self.size_bytes

    @property
    def label(self) -> str:
        """Layer, column and direction."""
        return f"{self.layer}.{letter(self.column)}.{self.direction}"

    @property
    def lands(self) -> bool:
        """Whether it has a place in the target's memory."""
        return self.target_buffer != self.source_buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """What devices exchange of one layer in one turn of a hybrid plan.

    Forward, a device with one of ``columns`` sends its output to all ``readers``. Backward, every
    reader sends its part of the output's gradient to the column that it is of, where the parts are
    added in order of devices, after the device's part. Column ``i`` of such a plan is on device
    ``i``.
    """

    name: str
    layer: str
    turn: int
    direction: Literal["forward", "backward"]
    columns: tuple[int, ...]
    """Columns whose values travel."""
    column_bytes: tuple[int, ...]
    """Bytes of each."""
    readers: tuple[int, ...]
    """Devices that read them, or have a part of their gradients."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all columns together."""
        return sum(self.column_bytes)

    @property
    def exchanged_bytes(self) -> int:
        """Bytes that cross between devices, every pair of them counted."""
        readers = frozenset(self.readers)
        return sum(
            size * (len(readers) - (column in readers))
            for column, size in zip(self.columns, self.column_bytes, strict=True)
        )

    @property
    def label(self) -> str:
        """Its name: it has many sources and targets."""
        return self.name

    @property
    def senders(self) -> tuple[int, ...]:
        """Devices that have something for others, or for themselves."""
        return self.columns if self.direction == "forward" else self.readers

    @property
    def receivers(self) -> tuple[int, ...]:
        """Devices that need what is sent."""
        return self.readers if self.direction == "forward" else self.columns

    @property
    def source(self) -> str:
        """The senders, in words."""
        return _in_words(self.senders)

    @property
    def target(self) -> str:
        """The receivers, in words."""
        return _in_words(self.receivers)

    def exchanges(self) -> Iterator[Exchange]:
        """All transfers between two devices that it is made of."""
        for column, size in zip(self.columns, self.column_bytes, strict=True):
            for reader in self.readers:
                if reader != column:
                    yield self._exchange(column, reader, size)

    def sent_by(self, device: int) -> tuple[Exchange, ...]:
        """Transfers from one device, by target."""
        forward = self.direction == "forward"
        return self._to_readers(device) if forward else self._of_columns(device)

    def received_by(self, device: int) -> tuple[Exchange, ...]:
        """Transfers to one device, by source."""
        forward = self.direction == "forward"
        return self._of_columns(device) if forward else self._to_readers(device)

    def _to_readers(self, column: int) -> tuple[Exchange, ...]:
        if column not in self.columns:
            return ()
        size = self.column_bytes[self.columns.index(column)]
        return tuple(
            self._exchange(column, reader, size) for reader in self.readers if reader != column
        )

    def _of_columns(self, reader: int) -> tuple[Exchange, ...]:
        if reader not in self.readers:
            return ()
        return tuple(
            self._exchange(column, reader, size)
            for column, size in zip(self.columns, self.column_bytes, strict=True)
            if column != reader
        )

    def _exchange(self, column: int, reader: int, size_bytes: int) -> Exchange:
        forward = self.direction == "forward"
        output = f"{self.layer}.{letter(column)}"
        sends, receives = (column, reader) if forward else (reader, column)
        names = ("activation", "remote") if forward else ("remote_grad", "activation_grad")
        return Exchange(
            name=f"{output}.turn{self.turn}.{self.direction}.gpu{sends}-gpu{receives}",
            layer=self.layer,
            column=column,
            direction=self.direction,
            source=f"gpu{sends}",
            target=f"gpu{receives}",
            source_index=sends,
            target_index=receives,
            source_buffer=f"gpu{sends}/{output}.{names[0]}",
            target_buffer=f"gpu{receives}/{output}.{names[1]}",
            size_bytes=size_bytes,
            turn=self.turn,
        )


def _in_words(devices: tuple[int, ...]) -> str:
    return f"gpu{devices[0]}" if len(devices) == 1 else "all"
