"""Minibatches in shared memory: whose they are, when others may have them, what is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from batches import floats, normalised

from alexsim.data import loader as loading
from alexsim.data import slots as shared
from alexsim.data.augmentation import Preparation
from alexsim.data.discover import discover
from alexsim.data.images import load_square, worker_pool
from alexsim.data.loader import Loader
from alexsim.data.order import Orders
from alexsim.data.slots import Slots, mapped
from alexsim.data.statistics import Statistics
from alexsim.data.workers import workers_for

NOTHING = Statistics(
    mean=np.zeros((32, 32, 3), np.float32),
    axes=np.eye(3, dtype=np.float32),
    deviations=np.zeros(3, np.float32),
)


def loader_of(folder: Path, pool: ProcessPoolExecutor, **preparation: object) -> Loader:
    return Loader(
        discover(folder, most_classes=3), NOTHING,
        Preparation(**preparation),  # type: ignore[arg-type]
        batch_size=16, crop_side=28, seed=3, pool=pool,
    )  # fmt: skip


def test_a_slot_is_free_once_nothing_refers_to_it() -> None:
    slots = Slots((2, 3, 3, 1))
    lease = slots.take()
    place, row = lease.place, lease.pixels[1:, 0]
    lease.pixels[:] = 7
    del lease
    other = slots.take()
    assert other.place != place, "a view of the first is still there"
    other.pixels[:] = 9
    assert (row == 7).all()
    del row
    assert slots.take().place == place
    # A path may come again for other memory; a number never does.
    numbers = {slots.take().place.number for _ in range(2)}
    assert numbers <= {place.number, other.place.number + 1}


def test_what_is_written_elsewhere_is_read_here() -> None:
    lease = Slots((2, 2, 2, 3)).take()
    mapped(lease.place)[:] = np.arange(24)
    assert lease.pixels.ravel().tolist() == list(range(24))


def test_a_worker_maps_no_more_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_MOST_MAPPED", 3)
    slots = Slots((1, 1, 1, 1))
    leases = [slots.take() for _ in range(5)]
    for value, lease in enumerate([*leases, leases[0]]):
        mapped(lease.place)[:] = value
        assert len(shared._mapped) <= 3
    assert [int(lease.pixels.item()) for lease in leases] == [5, 1, 2, 3, 4]


def test_without_memfd_files_are_mapped_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    slots = Slots((2, 2, 2, 3))
    lease = slots.take()
    mapped(lease.place)[:] = 5
    assert (lease.pixels == 5).all()
    assert len(list(tmp_path.iterdir())) == 1
    del lease, slots
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_minibatches_that_are_kept_stay_as_they_are(
    folder: Path, pool: ProcessPoolExecutor, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_BATCHES_AHEAD", ahead)
    loader = loader_of(folder, pool)
    kept = list(loader.training(0, 12))
    again = [floats(batch) for batch in loader.training(0, 12)]
    for batch, expected in zip(kept, again, strict=True):
        np.testing.assert_array_equal(floats(batch), expected)
    # One after the other, a few slots do for any number of minibatches.
    monkeypatch.delattr(shared, "_Slot")
    for _ in loader.training(0, 40):
        pass


def test_an_abandoned_epoch_leaves_the_next_alone(folder: Path, pool: ProcessPoolExecutor) -> None:
    loader = loader_of(folder, pool)
    expected = [floats(batch) for batch in loader.training(4, 8)]
    for _ in range(5):
        abandoned = iter(loader.training(0, 9))
        next(abandoned)
        abandoned.close()  # type: ignore[attr-defined]
        for batch, wanted in zip(loader.training(4, 8), expected, strict=True):
            np.testing.assert_array_equal(floats(batch), wanted)


@pytest.mark.parametrize("augmentation", ["2012", "paper", "crops"])
@pytest.mark.parametrize("normalisation", ["mean-image", "channels"])
def test_pixels_are_those_of_the_files(
    folder: Path, pool: ProcessPoolExecutor, augmentation: str, normalisation: str
) -> None:
    """By another road: whole squares in this process, cut, turned and normalised here."""
    loader = loader_of(folder, pool, augmentation=augmentation, normalisation=normalisation)
    dataset, steps = discover(folder, most_classes=3), range(2, 4)
    order, batches = Orders(dataset, "shuffled", seed=3), list(loader.training(2, 4))
    for step, batch in zip(steps, batches, strict=True):
        task = loader._training_task(step)
        for place in range(16):
            epoch, within = divmod(step * 16 + place, 54)
            path = dataset.train[order.of(epoch)[within]].path
            crop, square = task.crops[place], load_square(path, 32, 3)
            expected = square[crop.top : crop.top + 28, crop.left : crop.left + 28]
            np.testing.assert_array_equal(batch.images[place], expected)
        todo = batch.normalising
        assert todo.mirrored.tolist() == list(task.mirrored)
        assert todo.mirrored.any() == (augmentation != "crops")
        if normalisation == "channels":
            white = normalised(np.full((16, 28, 28, 3), 255, np.uint8), todo)[0, 0, 0]
            np.testing.assert_allclose(white, [2.2489, 2.4286, 2.64], rtol=1e-4)
        elif augmentation == "2012":
            assert set(todo.factor.tolist()) == {float(np.float32(1 / 1.1))}


SCRIPT = """
import os, signal, sys, threading, time
from pathlib import Path
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
sys.path.insert(0, {tests!r})
import numpy as np
from test_data_slots import loader_of
from alexsim.data.workers import workers_for

if __name__ == "__main__":
    with workers_for(2) as pool:
        batches = loader_of(Path({folder!r}), pool).training(0, 10_000)
        next(batches)
        print("\\n".join(map(str, pool._processes)), "go", sep="\\n", flush=True)
        for batch in batches:
            time.sleep(0.01)
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that loads, and its workers' ids."""
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))
    path = folder.parent / "loads.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "go\n")
            yield process, [int(line) for line in lines]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def shared_files() -> set[Path]:
    """Of ``multiprocessing.shared_memory``; semaphores there are other tests' as well."""
    return set(Path("/dev/shm").glob("psm_*"))


@pytest.mark.parametrize("how", ["worker", "interrupt", "kill"])
def test_nothing_is_left_behind(folder: Path, tmp_path: Path, how: str) -> None:
    link = tmp_path / "folder"
    link.symlink_to(folder)
    before = shared_files()
    with running(link) as (process, workers):
        assert workers
        if how == "worker":
            os.kill(workers[0], signal.SIGKILL)
        elif how == "interrupt":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        if how == "worker":
            assert errors.strip().endswith("worker died, perhaps for want of memory")
        elif how == "interrupt":
            assert errors.strip().endswith("KeyboardInterrupt")
        # The pool's semaphores are reported where nobody could give them back.
        assert ("resource_tracker" in errors) <= (how == "kill")
        assert "shared_memory" not in errors
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{worker}/status").exists() for worker in workers):
            assert time.monotonic() < deadline, "a worker is still there"
            time.sleep(0.05)
    assert not shared_files() - before


def test_no_worker_begins_once_the_work_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that submits meanwhile would begin one that nobody kills, and all would wait."""
    killed = []

    def kill(process: BaseProcess) -> None:
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(os.getpid)
        killed.append(process.pid)
        os.kill(process.pid or 0, signal.SIGKILL)

    monkeypatch.setattr(BaseProcess, "kill", kill)
    with contextlib.suppress(KeyboardInterrupt), workers_for(2) as pool:
        worker = pool.submit(os.getpid).result()
        raise KeyboardInterrupt
    assert killed == [worker]


def test_closing_gives_all_handles_back(folder: Path) -> None:
    """Of the loader's memory: a pool of processes has handles of its own."""

    def minibatches() -> int:
        count = 0
        for handle in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):  # that of the listing itself
                count += "alexsim-minibatch" in str(handle.readlink())
        return count

    gc.collect()
    before = minibatches()
    with worker_pool(1) as pool:
        loader = loader_of(folder, pool)
        batches = loader.training(0, 9)
        kept = next(batches).images[:1]
        assert minibatches() > before
        batches.close()  # type: ignore[attr-defined]
    del loader, batches
    one_slot = 2  # the memory's, and that of its map
    assert minibatches() == before + one_slot
    del kept
    assert minibatches() == before
