"""Words that a plan's choices may be; imports nothing, so that commands can name them."""

from __future__ import annotations

from typing import Literal

Policy = Literal["as-released", "in-place", "reuse", "pytorch"]
Schedule = Literal["serial", "overlap"]
TransportName = Literal["peer", "host"]
Partition = Literal["columns", "replicas", "hybrid"]
Fusion = Literal["none", "kernels"]
PlanPrecision = Literal["fp32", "amp"]
Products = Literal["fp32", "bf16"]

RUN_POLICIES: tuple[Policy, ...] = ("as-released", "in-place", "reuse")
"""Those that plans can be run with; all others are counted and timed."""
POLICIES: tuple[Policy, ...] = (*RUN_POLICIES, "pytorch")
SCHEDULES: tuple[Schedule, ...] = ("serial", "overlap")
TRANSPORTS: tuple[TransportName, ...] = ("peer", "host")
PARTITIONS: tuple[Partition, ...] = ("columns", "replicas", "hybrid")
FUSIONS: tuple[Fusion, ...] = ("none", "kernels")
PRODUCTS: tuple[Products, ...] = ("fp32", "bf16")
PLAN_PRECISIONS: tuple[PlanPrecision, ...] = ("fp32", "amp")
