"""What a bench needs and may not find here, said in one line before it is imported."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import NoReturn


def refuse(text: str) -> NoReturn:
    """One line on stderr, and exit code 2."""
    print(f"alexsim_kernels: {text}", file=sys.stderr)
    sys.exit(2)


def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def has_card() -> bool:
    """Whether there is a CUDA card that PyTorch sees."""
    import torch

    return torch.cuda.is_available()


def need_triton() -> None:
    """Refuse to go on without Triton."""
    if not has_triton():
        refuse("Triton is not installed: pip install triton (it is for Linux)")


def need_card(otherwise: str) -> None:
    """Refuse to go on without a card; ``otherwise`` says what can be done here."""
    if not has_card():
        refuse(f"there is no CUDA card here; {otherwise}")


def interpret_without_card() -> None:
    """Have Triton interpret kernels where there is no card; it asks once, when it is imported."""
    if not has_card():
        os.environ["TRITON_INTERPRET"] = "1"
