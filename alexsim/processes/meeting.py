"""How the processes of one attempt find each other in a store that may hold what others left.

torchrun may keep a store over its attempts, with the addresses of processes that are gone, and its
agents count attempts each for itself. So processes agree on a name that nobody used before, and
all their other keys stand under it.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from alexsim.strict_json import json_text

_LOOK_S = 0.02


def agreed_name(store: Any, rank: int, size: int, limit_s: float) -> str:
    """A name that all ``size`` processes of this attempt have agreed on, and only they.

    Every process leaves a random sign. The first process collects them and proposes a name for
    just these signs, again whenever a sign has changed: it was that of a process that is gone.
    Once all have agreed to a proposal, it says so.

    Args:
        store: of ``torch.distributed``.
        rank: this process.
        size: how many there are.
        limit_s: how long to wait for the others.

    Raises:
        RuntimeError: not all have come; names those that have not.
    """
    sign = uuid.uuid4().hex
    store.set(f"sign/{rank}", sign)
    until = time.monotonic() + limit_s
    return _propose(store, size, until) if rank == 0 else _agree(store, rank, sign, until)


def _propose(store: Any, size: int, until: float) -> str:
    signs: list[str] = []
    name = ""
    while True:
        current = [_read(store, f"sign/{rank}") for rank in range(size)]
        if current != signs:
            signs, name = current, uuid.uuid4().hex
            store.set("proposal", json_text({"name": name, "signs": signs}))
        missing = [r for r in range(1, size) if not _read(store, f"{name}/agreed/{r}")]
        if not missing:
            store.set(f"{name}/go", "1")
            return name
        _wait(until, f"rank {', '.join(map(str, missing))} did not come")


def _agree(store: Any, rank: int, sign: str, until: float) -> str:
    while True:
        proposal = json.loads(_read(store, "proposal") or '{"name": "", "signs": []}')
        name, signs = proposal["name"], proposal["signs"]
        if len(signs) > rank and signs[rank] == sign:
            store.set(f"{name}/agreed/{rank}", "1")
            if _read(store, f"{name}/go"):
                return str(name)
        _wait(until, "rank 0 did not come, or not all of the others")


def _read(store: Any, key: str) -> str:
    """A value, or nothing; ``get`` alone would wait for it."""
    return store.get(key).decode() if store.check([key]) else ""


def _wait(until: float, otherwise: str) -> None:
    if time.monotonic() > until:
        raise RuntimeError(otherwise)
    time.sleep(_LOOK_S)
