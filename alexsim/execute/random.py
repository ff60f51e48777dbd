"""Counter-based random bits: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers").

Element ``i`` of a draw depends on its key and counter only, never on who draws it or when. So a
resumed run, one device or two, and a GPU kernel that implements the same ten rounds agree.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Ten rounds of Philox: ``[4, n]`` counter words to ``[4, n]`` random words of 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3)).astype(np.uint32)


def key_of(seed: int, *purpose: str | int) -> tuple[int, int]:
    """The two key words of a purpose, such as ``(seed, "dropout", "dropout6")``."""
    text = "/".join(str(part) for part in (seed, *purpose))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def dropout_keep(
    *, seed: int, layer: str, step: int, images: range, units: range, rate: float
) -> NDArray[np.bool_]:
    """Which units stay: ``[images, units]``, each True with probability ``1 - rate``.

    ``images`` and ``units`` are global: positions in the whole minibatch and over all columns.
    """
    first, last = units.start // 4, -(-units.stop // 4)
    blocks = np.arange(first, last, dtype=np.uint64)
    rows = np.arange(images.start, images.stop, dtype=np.uint64)
    counter = np.zeros((4, len(rows), len(blocks)), dtype=np.uint64)
    counter[0], counter[1], counter[2] = blocks[None, :], rows[:, None], np.uint64(step)
    words = philox4x32(counter.reshape(4, -1), key_of(seed, "dropout", layer))
    # Word w of block b is unit 4 b + w.
    bits = words.reshape(4, len(rows), len(blocks)).transpose(1, 2, 0).reshape(len(rows), -1)
    start = units.start - 4 * first
    kept: NDArray[np.bool_] = bits[:, start : start + len(units)] >= np.uint32(rate * 2**32)
    return kept


def normal(*, seed: int, layer: str, column: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal values for the first weights of one layer in one column."""
    k0, k1 = key_of(seed, "init", layer, column)
    generator = np.random.Generator(np.random.Philox(key=k0 | k1 << 32))
    return generator.standard_normal(shape, dtype=np.float32)
