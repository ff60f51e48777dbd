"""Run other people's code so that nothing of it stays: no output, no patched function."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F


@contextmanager
def alone() -> Iterator[None]:
    """Silence what runs inside, and undo what it changes of PyTorch and of this process."""
    with _silent(), _restored(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _silent() -> Iterator[None]:
    # Some counters write from C++, past sys.stdout. A logger may keep Python's stream for good, and
    # a StringIO may be written to as long as something holds it.
    before = logging.root.manager.disable
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        logging.disable(logging.CRITICAL)
        sys.stdout = sys.stderr = io.StringIO()
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)
        sys.stdout, sys.stderr = streams
        logging.disable(before)


@contextmanager
def _restored() -> Iterator[None]:
    places: tuple[Any, ...] = (torch, torch.Tensor, F)
    kept = [dict(vars(place)) for place in places]
    environment = dict(os.environ)
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
    finally:
        for place, before in zip(places, kept, strict=True):
            _put_back(place, before)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)


def _put_back(place: Any, before: dict[str, Any]) -> None:
    # Only functions: PyTorch keeps lazy state and submodules beside them.
    for name, value in list(vars(place).items()):
        if name in before:
            if value is not before[name] and callable(before[name]):
                setattr(place, name, before[name])
        elif callable(value) and not isinstance(value, type):
            delattr(place, name)
    for name in before.keys() - vars(place).keys():
        setattr(place, name, before[name])
