"""A virtual device's memory: a ledger that keeps its budget, and one arena with the plan's views.

The ledger refuses a reservation before any byte is allocated. The arena is allocated once; every
buffer of the plan is a view of it. Images lie channels-last (``[N, H, W, C]`` in memory, seen as
``[N, C, H, W]``), because windows then slide over contiguous rows; what a fully connected layer
reads lies channels-first, so that it is a matrix as it stands.
"""

from __future__ import annotations

import torch

from alexsim.budget.fit import fit
from alexsim.errors import MemoryBudgetError
from alexsim.plan.plan import Block, Buffer, Category, DevicePlan, Op, Plan
from alexsim.units import format_bytes

CPU = torch.device("cpu")
_INTEGERS = {2: torch.int16, 8: torch.int64}
"""By item size, what holds no floats: bits of pooling windows, and labels."""


class Ledger:
    """Counts what a device holds against its budget."""

    def __init__(self, device: str, budget_bytes: int | None) -> None:
        self.device = device
        self.budget_bytes = budget_bytes
        self.peak_bytes = 0

    def reserve(self, name: str, end_bytes: int, advice: str = "") -> None:
        """Take memory up to ``end_bytes`` of the device for ``name``.

        Raises:
            MemoryBudgetError: that is beyond the budget; nothing was taken.
        """
        if self.budget_bytes is not None and end_bytes > self.budget_bytes:
            raise MemoryBudgetError(
                f"{self.device}: {name} would take the device to {format_bytes(end_bytes)},"
                f" its budget is {format_bytes(self.budget_bytes)}"
                + (f"; what would fit: {advice}" if advice else "")
            )
        self.peak_bytes = max(self.peak_bytes, end_bytes)


class Memory:
    """The buffers of one device as tensors.

    Raises:
        MemoryBudgetError: a block or the scratch does not fit; names it and what would fit.
    """

    def __init__(
        self,
        plan: Plan,
        device: DevicePlan,
        budget_bytes: int | None,
        dtype: torch.dtype,
        place: torch.device = CPU,
    ) -> None:
        self.device = device
        self.place = place
        self.dtype = dtype
        self.ledger = Ledger(device.name, budget_bytes)
        self._scale = dtype.itemsize // torch.float32.itemsize
        self._reserve(plan, budget_bytes)
        size = device.arena_bytes * self._scale
        try:
            self.arena = torch.empty(size, dtype=torch.uint8, device=place)
        except (RuntimeError, TypeError) as error:
            # Torch has no error class for memory of the host, nor for sizes beyond 64 bits.
            raise MemoryBudgetError(
                f"{device.name} needs {format_bytes(size)}, more than can be had here on {place}"
            ) from error
        self._blocks = {block.name: block for block in device.blocks}
        self._buffers = {buffer.name: buffer for buffer in device.buffers}
        self._channels_first = _matrix_blocks(plan, self._buffers)
        self._views: dict[str, torch.Tensor] = {}

    def _reserve(self, plan: Plan, budget_bytes: int | None) -> None:
        requests = [
            (f"block {block.name}", block.offset_bytes + block.size_bytes)
            for block in sorted(self.device.blocks, key=lambda block: block.offset_bytes)
        ]
        requests.append(("scratch", self.device.total_bytes))
        for name, end in requests:
            # What would fit is a search over plans: only worth it for the message.
            over = budget_bytes is not None and end > budget_bytes
            advice = "; ".join(fit(plan, budget_bytes or 0).suggestions) if over else ""
            self.ledger.reserve(name, end, advice)

    def has(self, name: str) -> bool:
        """Whether the plan has this buffer on this device."""
        return name in self._buffers

    def buffer(self, name: str) -> torch.Tensor:
        """The buffer as a tensor of its shape; images as ``[N, C, H, W]``."""
        if name not in self._views:
            self._views[name] = self._view(self._buffers[name])
        return self._views[name]

    def block_of(self, names: tuple[str, ...]) -> torch.Tensor:
        """Buffers that lie side by side, as one tensor; a single buffer as itself."""
        if len(names) == 1:
            return self.buffer(names[0])
        first, *_, last = (self._buffers[name] for name in names)
        block = self._blocks[first.block]
        whole = self._tensor(block, block.shape)
        channels = last.channel + last.shape[1] - first.channel
        return whole if channels == block.shape[1] else whole.narrow(1, first.channel, channels)

    def operand(self, op: Op, role: str) -> torch.Tensor:
        """What an op calls ``x``, ``dy``, ``weight`` ..., as one tensor."""
        return self.block_of(op.operands[role])

    def _view(self, buffer: Buffer) -> torch.Tensor:
        block = self._blocks[buffer.block]
        if buffer.item_bytes != torch.float32.itemsize:
            return self._tensor(block, buffer.shape, _INTEGERS[buffer.item_bytes])
        if not block.joined or buffer.shape[1:2] == block.shape[1:2]:
            return self._tensor(block, buffer.shape)
        return self._tensor(block, block.shape).narrow(1, buffer.channel, buffer.shape[1])

    def _tensor(
        self, block: Block, shape: tuple[int, ...], dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        dtype = dtype or self.dtype
        start = block.offset_bytes * self._scale
        elements = 1
        for extent in shape:
            elements *= extent
        flat = self.arena[start : start + elements * dtype.itemsize].view(dtype)
        if len(shape) == 4 and block.name not in self._channels_first:
            images, channels, height, width = shape
            return flat.view(images, height, width, channels).permute(0, 3, 1, 2)
        return flat.view(shape)


_READ = (
    Category.INPUT, Category.ACTIVATION, Category.REMOTE, Category.ACTIVATION_GRAD,
    Category.REMOTE_GRAD,
)  # fmt: skip


def _matrix_blocks(plan: Plan, buffers: dict[str, Buffer]) -> set[str]:
    """Blocks that layers read as rows of values, or write the gradient of."""
    read = {
        output
        for parts in plan.network.parts
        for part in parts
        if part.layer.flattens
        for output in part.reads
    }
    return {
        buffer.block
        for buffer in buffers.values()
        if (buffer.layer, buffer.column) in read and buffer.category in _READ
    }
