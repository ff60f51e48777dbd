"""Words that a plan's choices may be; imports nothing, so that commands can name them."""

from __future__ import annotations

from typing import Literal

RunPolicy = Literal["as-released", "in-place", "reuse"]
Policy = Literal[RunPolicy, "pytorch"]
Schedule = Literal["serial", "overlap"]
TransportName = Literal["peer", "host"]
Partition = Literal["columns", "replicas", "hybrid"]
Fusion = Literal["none", "kernels"]

RUN_POLICIES: tuple[RunPolicy, ...] = ("as-released", "in-place", "reuse")
POLICIES: tuple[Policy, ...] = (*RUN_POLICIES, "pytorch")
SCHEDULES: tuple[Schedule, ...] = ("serial", "overlap")
TRANSPORTS: tuple[TransportName, ...] = ("peer", "host")
PARTITIONS: tuple[Partition, ...] = ("columns", "replicas", "hybrid")
FUSIONS: tuple[Fusion, ...] = ("none", "kernels")
