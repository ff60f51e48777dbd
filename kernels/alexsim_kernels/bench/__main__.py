"""The bench for what is here: Triton's kernels where there is a card, else those for CPUs.

python -m alexsim_kernels.bench [options of alexsim_kernels.bench.layers or .cpu]
python -m alexsim_kernels.bench --conv 32,64,56,56,128,3,3,1,1,1
"""

from __future__ import annotations

import sys

from alexsim_kernels.bench.needs import has_card, has_triton


def main() -> None:
    """Say which it is, and run it."""
    card, triton = has_card(), has_triton()
    if card and triton:
        from alexsim_kernels.bench import layers as bench
    else:
        from alexsim_kernels.bench import cpu as bench  # type: ignore[no-redef]
    why = "" if card and triton else f" ({'Triton is not installed' if card else 'no CUDA card'})"
    print(f"python -m {bench.__name__}{why}", file=sys.stderr)
    bench.main()


if __name__ == "__main__":
    main()
