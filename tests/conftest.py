"""Shared settings of the tests."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexsim.command import output
from alexsim.data.images import worker_pool
from alexsim.data.packed import pack
from alexsim.documents.base import Document
from alexsim.editions.load import load_network
from alexsim.execute import executor
from alexsim.machine.machine import load_machine
from alexsim.page.schemas import DOCUMENTS, schema_of
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile import profiler
from alexsim.profile.profiler import Underlay, profile
from alexsim.profile.step_profile import StepProfile
from alexsim.simulate.simulator import on_machine
from alexsim.train import run_profile
from alexsim_kernels.cpu.build import available, build

# The tests' own helpers (reference.py) stand beside them.
sys.path.insert(0, str(Path(__file__).parent))

if not torch.cuda.is_available():
    # Triton asks once, when it is imported, whether to interpret its kernels.
    os.environ["TRITON_INTERPRET"] = "1"
else:
    # References are float32, not what cuDNN makes of it by default.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


# One thread a process, and in those that a test starts: threads that wait for one another on cores
# that others use as well take ten times the work. A test of threads says how many.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"

# A second or two, which every run and every profile would take again for the same figures.
profiler.ceilings = run_profile.ceilings = functools.cache(profiler.ceilings)

# First weights are a second of every test that trains AlexNet: the latest are kept.
_drawn = functools.lru_cache(maxsize=32)(executor.normal)
executor.normal = lambda **draw: _drawn(**draw).copy()

_WORKER_BYTES = 6 << 30
"""A step of AlexNet in float64 beside its reference."""
_CHECKED: Counter[type] = Counter()
"""Documents of each kind that were compared with their schema; some are enough."""
_ENOUGH = 5


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of ``-n auto``: a core and memory for each; none besides this one for a card, or to time."""
    if torch.cuda.is_available() or config.getoption("benchmark_enable"):
        return 0
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // _WORKER_BYTES))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A command of an earlier test may have set its own, as commands do."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _documents_fit_their_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command prints as JSON is a document that has a schema, and fits it."""
    print_json = output.print_json

    def checked(document: Document) -> None:
        kind = type(document)
        if _CHECKED[kind] < _ENOUGH:
            # Tests on a card, which print no documents, run where it is not installed.
            from jsonschema import Draft202012Validator

            _CHECKED[kind] += 1
            assert kind in DOCUMENTS, f"{kind.__name__} has no schema"
            validator = Draft202012Validator(schema_of(kind))
            validator.validate(json.loads(output.json_text(document)))
        print_json(document)

    monkeypatch.setattr(output, "print_json", checked)


@pytest.fixture(scope="session")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two decoding processes, kept for the whole session."""
    with worker_pool(2) as made:
        yield made


@pytest.fixture
def packing_pool(pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> ProcessPoolExecutor:
    """Whatever is packed is packed by those, where a test is not of processes."""
    monkeypatch.setattr(pack, "workers_for", lambda _: nullcontext(pool))
    return pool


@pytest.fixture(scope="session")
def cpu_kernels() -> None:
    """The CPU kernels for both types, compiled side by side where they are not in the cache."""
    if why_not := available():
        pytest.skip(why_not)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build, ("float", "double")))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 small JPEG files, told apart by brightness."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, name in enumerate(("bright", "dark", "middle")):
        (root / name).mkdir()
        for index in range(20):
            level = (220, 30, 120)[label]
            pixels = np.clip(rng.normal(level, 20, (40, 36 + index % 3, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{index:02}.JPEG")
    return root


@pytest.fixture(scope="session")
def lenet() -> tuple[StepProfile, Underlay]:
    """One device, profiled here; what ``torch.profiler`` saw of one more step."""
    return profiled("lenet-5", 128)


@pytest.fixture(scope="session")
def two_gpus() -> tuple[StepProfile, Underlay]:
    """Two devices and fourteen exchanges, profiled likewise."""
    return profiled("alexnet-2012", 2)


def profiled(name: str, batch_size: int) -> tuple[StepProfile, Underlay]:
    network, under = load_network(name), Underlay()
    there = PlanSpec(network=network, gpus=None, batch_size=batch_size)
    found = profile(
        plan(network, batch_size=batch_size, backend="aten"),
        on_machine(there, load_machine("gtx580x2")),
        device="cpu",
        rounds=2,
        underlay=under,
    )
    return found, under
