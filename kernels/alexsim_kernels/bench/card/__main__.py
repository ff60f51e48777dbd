"""``python -m alexsim_kernels.bench.card --minutes 8 --out DIR``; see ``docs/gpu.md``."""

from __future__ import annotations

import sys

from alexsim_kernels.bench.card.command import main

if __name__ == "__main__":
    sys.exit(main())
