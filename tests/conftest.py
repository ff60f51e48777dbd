"""Shared settings of the tests."""

from __future__ import annotations

import sys
from pathlib import Path

# The tests' own helpers (reference.py) stand beside them.
sys.path.insert(0, str(Path(__file__).parent))
