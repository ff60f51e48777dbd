"""Plans whose ops PyTorch's functions and Triton's kernels share."""

from __future__ import annotations

import random

from alexsim.network.kernel_names import kernel_names
from alexsim.network.network import Network


def some_ops(network: Network, seed: int = 0) -> tuple[str, ...]:
    """Names of about half of what kernels could do for a network, drawn."""
    drawn = random.Random(seed)
    return tuple(name for name in sorted(kernel_names(network)) if drawn.random() < 0.5)
