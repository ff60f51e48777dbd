"""The processes of a run: who they are, and what they tell each other beside the plan's exchanges.

A process has one device: a column of a replica. Ranks count the columns of the first replica, then
those of the second, and so on. ``torch.distributed`` connects them over gloo.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from alexsim.errors import AlexsimError, RunError, TrainingError
from alexsim.processes.meeting import agreed_name
from alexsim.strict_json import json_text, json_value

RENDEZVOUS = "ALEXSIM_RENDEZVOUS"
"""Variable that names where processes meet; without it, they meet as torchrun says."""
LAUNCHER = "ALEXSIM_LAUNCHER"
"""Variable with the id of the process that began this process."""
_LONG = timedelta(hours=24)
"""Time limit of the group in which the first process is waited for while it prepares the run."""
_JOINING = timedelta(minutes=5)
"""Processes begin, import PyTorch and look at the data at their own pace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A process's place in a run, from ``torchrun``, ``--processes`` or ``--strict``."""

    rank: int
    size: int
    host: int
    """Number of the machine, of those in the run."""
    local: int
    """Which of the machine's processes this is."""
    on_host: int
    """Number of the machine's processes."""
    launcher: int = 0
    """The run's first process, where it began the others; 0 where ``torchrun`` began them all."""

    @staticmethod
    def from_environment() -> Place | None:
        """From the environment; None where this process is alone."""
        if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
            return None
        try:
            place = Place(
                rank=int(os.environ["RANK"]),
                size=int(os.environ["WORLD_SIZE"]),
                host=int(os.environ.get("GROUP_RANK", "0")),
                local=int(os.environ.get("LOCAL_RANK", "0")),
                on_host=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
                launcher=int(os.environ.get(LAUNCHER, "0")),
            )
        except ValueError as error:
            raise AlexsimError(
                f"RANK, WORLD_SIZE and GROUP_RANK must be numbers: {error}"
            ) from error
        if not (0 <= place.rank < place.size and 0 <= place.local < place.on_host):
            raise AlexsimError(
                f"RANK {place.rank} of WORLD_SIZE {place.size}, LOCAL_RANK {place.local} of"
                f" LOCAL_WORLD_SIZE {place.on_host}: ranks count from 0"
            )
        return place


class World:
    """The processes of a run; this class is that of a process alone."""

    rank, size, columns, host = 0, 1, 1, 0
    hybrid = False

    @property
    def replica(self) -> int:
        """Which replica this process is of."""
        return self.rank // self.columns

    @property
    def replicas(self) -> int:
        """Number of replicas."""
        return self.size // self.columns

    @property
    def first(self) -> bool:
        """Whether this process writes the run and talks to the user."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """Which of how many equal parts of a minibatch this process's device works on: its
        replica's; in a hybrid plan, the device's."""
        return (self.rank, self.size) if self.hybrid else (self.replica, self.replicas)

    @property
    def reads(self) -> bool:
        """Whether this process reads images: one per part and host does, for the others."""
        return True

    def shared(self, tensor: torch.Tensor) -> torch.Tensor:
        """The reading process's tensor, in the processes that it reads for: in place."""
        return tensor

    def broadcast(self, tensor: torch.Tensor, *, patient: bool = False) -> torch.Tensor:
        """The first process's tensor, everywhere: in place.

        ``patient`` waits as long as it takes: the first process has something to do before.
        """
        del patient
        return tensor

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """Every process's tensor, all of one shape: ``[size, ...]``."""
        return tensor[None]

    def each(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every process's record, in order of rank: as JSON, so that nothing is unpickled."""
        return [dict(record)]

    def any(self, flag: bool) -> bool:
        """Whether any process's flag is set."""
        return bool(self.gathered(torch.tensor(int(flag))).max())

    def refuse_differences(self, record: Mapping[str, Any]) -> None:
        """Every process must have been asked the same.

        Raises:
            RunError: a process has not; names the first difference from the first process.
        """
        first, *others = self.each(record)
        for rank, other in enumerate(others, start=1):
            for key in sorted(first.keys() | other.keys()):
                if first.get(key) != other.get(key):
                    raise RunError(
                        f"rank {rank} differs from rank 0 in {key}: {other.get(key)!r}, not"
                        f" {first.get(key)!r}"
                    )

    def close(self) -> None:
        """End the connections."""


class Connected(World):
    """All processes of a run, connected over gloo.

    Args:
        place: this process.
        columns: devices of a replica.
        hybrid: whether the plan is, so that every device has its share of the images.
        timeout_s: how long another process may be silent.

    Raises:
        AlexsimError: the columns do not divide the processes.
        RunError: they cannot be connected.
    """

    local: int
    """Which of the host's processes this is."""
    on_host: int

    def __init__(self, place: Place, *, columns: int, hybrid: bool, timeout_s: float) -> None:
        self.hybrid = hybrid
        if place.size % columns:
            raise AlexsimError(
                f"{place.size} processes are no whole number of replicas of {columns} GPUs each"
            )
        self.rank, self.size, self.columns = place.rank, place.size, columns
        self.host, self.local, self.on_host = place.host, place.local, place.on_host
        self.timeout = timedelta(seconds=timeout_s)
        meeting = os.environ.get(RENDEZVOUS, "env://")
        if meeting.startswith("file://"):
            arrival_file(meeting, place.rank).touch()
        try:
            limit = max(self.timeout, _JOINING)
            store, *_ = next(
                dist.rendezvous(  # type: ignore[attr-defined]
                    meeting, place.rank, place.size, timeout=limit
                )
            )
            name = agreed_name(store, place.rank, place.size, limit.total_seconds())
            store = dist.PrefixStore(name, store)  # type: ignore[attr-defined]
            dist.init_process_group(
                "gloo", store=store, rank=place.rank, world_size=place.size, timeout=limit
            )
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"rank {place.rank} of {place.size}: cannot reach the others:"
                f" {str(error).partition(chr(10))[0].strip()}"
            ) from error
        self.all = self._group([list(range(self.size))])
        """Every process."""
        self._patient = dist.new_group(timeout=_LONG)
        hosts = [record["host"] for record in self.each({"host": self.host})]
        ranks = torch.arange(self.size).view(-1, columns)
        self.mesh = DeviceMesh.from_group(
            [self._group(ranks.t().tolist()), self._group(ranks.tolist())],
            "cpu",
            mesh=ranks,
            mesh_dim_names=("replica", "column"),
        )
        """Every process by replica and column."""
        self.gradients = self.mesh.get_group("column" if hybrid else "replica")
        """Processes that hold copies of the same weights: a column's of all replicas, or, of the
        convolutions of a hybrid plan, all."""
        self.alike = tuple(dist.get_process_group_ranks(self.gradients))
        feeds = [(hosts[rank], rank if hybrid else rank // columns) for rank in range(self.size)]
        fed = [[r for r in range(self.size) if feeds[r] == feed] for feed in sorted(set(feeds))]
        self._feed = self._group(fed)
        self._fed = next(ranks for ranks in fed if self.rank in ranks)

    def _group(self, rank_lists: Sequence[list[int]]) -> dist.ProcessGroup:
        """The group among these that has this process; every process must make all of them."""
        # Threads of a group give up when its time is out: whoever ends waits for them.
        groups = [dist.new_group(ranks, timeout=self.timeout) for ranks in rank_lists]
        group: dist.ProcessGroup = next(
            g for g, ranks in zip(groups, rank_lists, strict=True) if self.rank in ranks
        )
        return group

    @property
    def reads(self) -> bool:
        return self.rank == self._fed[0]

    def shared(self, tensor: torch.Tensor) -> torch.Tensor:
        if len(self._fed) > 1:
            with self.named("images", self._fed if self.reads else self._fed[:1]):
                work = dist.broadcast(tensor, self._fed[0], group=self._feed, async_op=True)
                self.wait(work)
        return tensor

    def broadcast(self, tensor: torch.Tensor, *, patient: bool = False) -> torch.Tensor:
        with self.named("what the first process knows", range(self.size if self.first else 1)):
            group = self._patient if patient else self.all
            work = dist.broadcast(tensor, 0, group=group, async_op=True)
            assert work is not None
            work.wait(_LONG if patient else self.timeout)
        return tensor

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        with self.named("results", range(self.size)):
            self.wait(dist.all_gather(tensors, tensor, group=self.all, async_op=True))
        return torch.stack(tensors)

    def each(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        encoded = torch.frombuffer(bytearray(json_text(record).encode()), dtype=torch.uint8)
        sizes = self.gathered(torch.tensor([len(encoded)])).flatten().tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(encoded)] = encoded
        rows = self.gathered(padded)
        return [
            json_value(row[:size].numpy().tobytes().decode())
            for row, size in zip(rows, sizes, strict=True)
        ]

    def wait(self, work: dist.Work | None) -> None:
        """Wait for an operation, as long as another process may be silent.

        Raises:
            RuntimeError: it took longer, or the connection is gone.
        """
        assert work is not None
        work.wait(self.timeout)

    @contextlib.contextmanager
    def named(self, operation: str, ranks: Sequence[int]) -> Iterator[None]:
        """Turn a failure of the connection into one line that says of what, and with whom.

        ``ranks``: with whom it was; it may be with several, of which one has failed.

        Raises:
            TrainingError: another process is gone, or silent for too long.
        """
        try:
            yield
        except RuntimeError as error:
            silent = "imed out" in str(error) or "imeout" in str(error)
            others = [f"rank {rank}" for rank in ranks if rank != self.rank]
            whom = others[0] if len(others) == 1 else f"one of {', '.join(others)}"
            how = f"silent for {self.timeout.total_seconds():g} s" if silent else "gone"
            raise TrainingError(f"rank {self.rank}: {operation}: {whom} is {how}") from error

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def attempt() -> int:
    """How often torchrun's agent here has begun its processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch() -> str:
    """What torchrun calls all attempts of a run; empty where the run has no name."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return "" if name == "none" else name


def arrival_file(meeting: str, rank: int) -> Path:
    """A file that says that a process has come to where they meet."""
    return Path(f"{meeting.removeprefix('file://')}-{rank}")


def joined(place: Place | None, columns: int, timeout_s: float, *, hybrid: bool = False) -> World:
    """The processes of this run: those that ``place`` counts, or this process alone.

    Raises:
        AlexsimError: the columns do not divide them.
        RunError: they cannot be connected.
    """
    # A single process that alexsim began as a rank is held to its budget as several are.
    if place is None or (place.size == 1 and not place.launcher):
        return World()
    return Connected(place, columns=columns, hybrid=hybrid, timeout_s=timeout_s)
