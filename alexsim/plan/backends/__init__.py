"""Backends by name; each file has what is decided before anything runs, without torch."""

from alexsim.plan.backends.aten import Aten
from alexsim.plan.backends.base import (
    Asked,
    Backend,
    Choice,
    Counted,
    Passes,
    Rows,
    read_as_rows,
    rows_of,
)
from alexsim.plan.backends.native import Native
from alexsim.plan.backends.triton import Triton

BACKENDS: dict[str, Backend] = {
    "": Counted(), "aten": Aten(), "native": Native(), "triton": Triton()
}  # fmt: skip

__all__ = ["BACKENDS", "Asked", "Backend", "Choice", "Passes", "Rows", "read_as_rows", "rows_of"]
