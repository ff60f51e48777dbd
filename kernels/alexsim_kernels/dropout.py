"""Which units stay: Philox4x32-10 bits, the same on every device and in every order.

Unit ``u`` of image ``n`` in step ``t`` has word ``u % 4`` of block ``(u // 4, n, t, 0)`` under a
key; it stays if that is at least ``rate * 2^32`` (Salmon et al. 2011, "Parallel random numbers").
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, block_of


@triton.jit(do_not_specialize=["key_low", "key_high"])
def _keep(
    mask, step, key_low, key_high, count, units, first_unit, mask_row,
    LEAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    image, unit = index // units, index % units + first_unit
    c2 = (unit * 0).to(tl.uint32) + tl.load(step).to(tl.uint32)
    seed = (tl.cast(key_high, tl.uint64) << 32) | tl.cast(key_low, tl.uint64)
    w0, w1, w2, w3 = tl.philox(
        seed, (unit // 4).to(tl.uint32), image.to(tl.uint32), c2, (unit * 0).to(tl.uint32)
    )
    lane = unit % 4
    word = tl.where(lane == 0, w0, tl.where(lane == 1, w1, tl.where(lane == 2, w2, w3)))
    stays = word >= LEAST
    tl.store(mask + image * mask_row + index % units, stays.to(tl.float32), mask=inside)


def keep(mask: Tensor, step: Tensor, key: tuple[int, int], *, first_unit: int, rate: float) -> None:
    """Write 1 for every unit that stays and 0 for the others.

    Args:
        mask: ``[N, units]``, float32.
        step: ``[1]``, int64, on the device.
        key: two words of 32 bits.
        first_unit: position of the first column among the units of all columns.
        rate: share that goes.
    """
    block = block_of(mask.numel())
    _keep[(triton.cdiv(mask.numel(), block),)](
        mask, step, key[0], key[1], mask.numel(), mask.shape[1], first_unit, mask.stride(0),
        LEAST=int(rate * 2**32), BLOCK=block,
    )  # fmt: skip
