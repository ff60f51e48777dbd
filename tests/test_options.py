"""Every option of every command changes what the command does; where it cannot, it is refused.

The commands run in this process. Where one would train or measure for seconds, what it was asked
for is compared instead: the settings that reach the loop, the profiler, the benchmarks.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from tiny import write_weights

from alexsim.bench.records import BenchRun, Host
from alexsim.cli import models
from alexsim.cli.app import app, main
from alexsim.execute.world import Place
from alexsim.interchange.convert import Exported
from alexsim.simulate.costs.measured import read
from alexsim.train.packing.bench import LoaderRate
from alexsim.train.records import TrainSettings

CALIBRATION = str(files("alexsim_profiles") / "baselines" / "cpu-2-cores" / "calibration.json")
HOST = Host(cpu="", cores=1, python="", torch="", commit="", date="")
_RUNS = itertools.count()
_BEFORE: dict[str, Answer] = {}
"""Answers to lines without the option in question, which many options share."""
_TRAINED: list[TrainSettings] = []


@dataclass(frozen=True)
class Answer:
    """All that a command line did."""

    code: int
    out: str
    err: str
    files: dict[str, bytes]
    calls: list[str]


class Inline(Pool):
    """Works where it is asked to, so that no process must start."""

    def submit(self, work: Any, /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*given, **named))
        return future


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Images, weights, a packed set and small tables, by the names that command lines use."""
    root = tmp_path_factory.mktemp("inputs")
    for split, label in itertools.product(("train", "val"), range(3)):
        folder = root / "images" / split / ("bright", "dark", "middle")[label]
        folder.mkdir(parents=True)
        for index in range(4):
            level = (220, 30, 120)[label] + 5 * index
            Image.new("RGB", (40, 30 + index), (level, 90, 60 * label)).save(
                folder / f"{index}.png"
            )
            flat = root / "flat" / split / ("" if split == "val" else f"n0000000{label}")
            flat.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (level, 9, 9)).save(flat / f"{label}{index}.png")
    labels = "\n".join(f"n0000000{n // 4}" for n in range(12))
    (root / "labels.txt").write_text(labels)
    (root / "words.txt").write_text("".join(f"n0000000{n} number {n}\n" for n in range(3)))
    (root / "classes.txt").write_text("one\ntwo\nthree\n")
    weights = write_weights(root)
    wnids = write_weights(_made(root / "wnids"), classes=("n00000000", "n00000001", "n00000002"))
    wrong = root / "nan.pt"
    found = {
        "images": root / "images",
        "image": root / "images" / "val" / "dark" / "0.png",
        "flat": root / "flat",
        "labels": root / "labels.txt",
        "words": root / "words.txt",
        "classes": root / "classes.txt",
        "weights": weights,
        "wnids": wnids,
        "tiny": f"{root / 'tiny.py'}:net",
        "state": root / "state.pt",
        "nan": wrong,
        "packed": root / "packed",
        "rows": root / "rows.csv",
        "fewer": root / "fewer.csv",
        "calibration": CALIBRATION,
    }
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for line in (("export", weights, found["state"]), ("data", "pack", root / "images",
                     found["packed"], "--side", 40, "--workers", 1)):  # fmt: skip
            with pytest.raises(SystemExit):
                main([str(word) for word in line])
    state = torch.load(found["state"], weights_only=True)
    next(iter(state.values())).fill_(float("nan"))
    torch.save(state, wrong)
    published = files("alexsim_profiles") / "measurements" / "published.csv"
    rows = list(csv.reader(published.read_text("utf-8").splitlines()))
    steps = [row for row in rows[1:] if not row[3] and row[11] == "fwd+bwd"][:20]
    for name, chosen in (("rows", steps), ("fewer", steps[:5])):
        with Path(str(found[name])).open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *chosen])
    return {name: str(path) for name, path in found.items()}


def _content(path: Path) -> bytes:
    """A file's bytes; safetensors writes what it says of a file in any order."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    size = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:size]), sort_keys=True).encode() + data[size:]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def ask(
    inputs: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Callable[[str], Answer]:
    """Run a command line; ``{out}`` in it is a new folder of its own."""
    calls: list[str] = []
    _instead_of_work(monkeypatch, calls, request)

    def run(line: str) -> Answer:
        calls.clear()
        out = tmp_path / f"out{next(_RUNS)}"
        out.mkdir()
        words = [word.format(out=out, **inputs) for word in line.split()]
        said, told = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(told), pytest.raises(SystemExit) as ended:
            main(words)
        written = {
            str(path.relative_to(out)): _content(path)
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
        return Answer(
            code=int(ended.value.code or 0),
            out=said.getvalue().replace(str(out), "OUT"),
            err=told.getvalue().replace(str(out), "OUT"),
            files=written,
            calls=[call.replace(str(out), "OUT") for call in calls],
        )

    return run


def _instead_of_work(
    patch: pytest.MonkeyPatch, calls: list[str], request: pytest.FixtureRequest
) -> None:
    """What trains, measures or compiles notes what it was asked for."""

    def note(target: str, answer: Any = None) -> None:
        """Replace a function by one that notes its arguments."""

        def noted(*given: Any, **named: Any) -> Any:
            shown = {k: v for k, v in named.items() if k not in ("watch", "world", "progress")}
            calls.append(f"{target} {[_plain(one) for one in given]} {_plain(shown)}")
            return answer(*given, **named) if callable(answer) else answer

        patch.setattr(target, noted)

    @contextmanager
    def inline(count: int) -> Iterator[Pool]:
        calls.append(f"{count} workers")
        yield Inline()

    for module in ("packing.workers", "packing.pack", "evaluate"):
        patch.setattr(f"alexsim.train.{module}.workers_for", inline)
    patch.setattr("alexsim.train.images.worker_pool", inline)
    note("torch.set_num_threads")
    _train(patch, calls, note)
    asked = models.setup

    def setup(batch: int, device: str, backend: str, threads: Any, workers: Any) -> Any:
        calls.append(repr(asked(batch, device, backend, threads, workers)))
        return asked(batch, "cpu", "aten", threads, workers)

    patch.setattr(models, "setup", setup)
    step = request.getfixturevalue("lenet")[0]
    note("alexsim.profile.profiler.profile", step)
    known = read(CALIBRATION)
    note("alexsim.profile.calibrate.calibrate", lambda *_, **__: (known, dict.fromkeys((3, 5))))
    note("alexsim.profile.calibrate.check", [])
    note("alexsim.train.throughput.data_rates", ())
    run = BenchRun(network="", host=HOST, counted={}, timed=())
    note("alexsim.bench.runner.run", run)
    note("alexsim.bench.runner.compare", (run, ()))
    note("alexsim.profile.kernels.compile_kernels", ())
    made = Exported(network=step.plan.network, files={".pt": b"", ".onnx": b""}, changes=())
    note("alexsim.interchange.convert.exported", made)
    note("alexsim.simulate.judging.leave_out", [])
    fitted = "alexsim.simulate.validation.fit_to"
    note(fitted, lambda *_, **__: replace(_correction(), noise=0.5))
    note("alexsim.cli.flops._compared", SimpleNamespace(complaints=("a difference",)))
    note("alexsim.report.counters.counters_document", {"counters": []})
    note("alexsim.report.counters.counters_tables", "counters")
    rate = LoaderRate(
        workers=1, images=10, seconds=1.0, waited_s=0.0, worker_cpu_s=1.0, loader_cpu_s=1.0,
        worker_bytes=1, loader_bytes=1,
    )  # fmt: skip
    note("alexsim.train.packing.bench.loader_rate", lambda *_, **named: replace(
        rate, workers=named["workers"]))  # fmt: skip


def _train(patch: pytest.MonkeyPatch, calls: list[str], note: Callable[..., None]) -> None:
    from alexsim.execute.world import joined

    class Others:
        def __init__(self, size: int, command: object) -> None:
            calls.append(f"{size} processes")
            self.place = Place(rank=0, size=size, host=0, local=0, on_host=size)

        def __enter__(self) -> Place:
            return self.place

        def __exit__(self, *_: object) -> None:
            pass

        def wait(self) -> None:
            pass

    def resumed(*_: object, **__: object) -> TrainSettings:
        return replace(_TRAINED[0], seed=77)

    def train(settings: TrainSettings, *_: object, **__: object) -> None:
        _TRAINED.append(settings)

    patch.setattr("alexsim.train.launch.Others", Others)
    patch.setattr("alexsim.cli.train_settings.resumed", resumed)
    note("alexsim.train.loop.train", train)
    patch.setattr("alexsim.cli.train_settings.refuse_what_does_not_fit", lambda chosen: None)
    note("alexsim.execute.world.joined", lambda place, gpus, timeout, **_: joined(None, 1, timeout))
    patch.setattr("alexsim.execute.cards.places", lambda device, count: tuple(range(count)))


def _correction() -> Any:
    from alexsim.simulate.correction import load_correction

    return load_correction()


def _plain(value: object) -> str:
    """What does not differ from run to run."""
    network = getattr(value, "network", None)
    if hasattr(value, "devices") and network is not None:
        ops = getattr(value, "ops", ())
        listed = [op.id for op in ops()] if callable(ops) else len(ops)
        sizes = [
            getattr(one, "memory_bytes", getattr(one, "total_bytes", 0)) for one in value.devices
        ]
        shown = f"{getattr(network, 'name', network)} {listed} {sizes}"
        return f"{shown} {getattr(value, 'machine', '')} {getattr(value, 'policy', '')}"
    if hasattr(value, "plans"):
        return str([_plain(made) for made in value.plans.values()])
    if isinstance(value, dict):
        return str({k: _plain(v) for k, v in value.items() if not callable(v)})
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text


# A command's line, then what each option adds to it; or a pair, where the line must be another.
Line = str | tuple[str, str]
TRAIN = "train --net lenet-5 --data {images} --threads 1 --workers 1 -o {out}/run"
TINY = "train --net {tiny} --data {images} --threads 1 --workers 1 -o {out}/run"
COLUMNS = "train --net {tiny} --data {images} --batch 2 --workers 1 -o {out}/run"
CUDA = f"{COLUMNS} --device cuda"
EVAL = "eval {weights} --data {images} --batch 4 --threads 1 --workers 1 --json"
TWO = EVAL.replace("eval", "eval {weights}", 1)
OWT = "--net alexnet-owt --machine k20x8 --batch 256"
TABLE: dict[str, tuple[str, dict[str, Line]]] = {
    "": ("hardware list", {"version": ("hardware list", "--version")}),
    "simulate": (
        "simulate --net {tiny} --json",
        {
            "net": "--net lenet-5",
            "batch": "--batch 64",
            "gpus": "--gpus 1",
            "machine": "--machine k20x8",
            "link": "--link pcie1-x8",
            "network": (f"simulate {OWT} --machine k80 --gpus 2 --partition replicas --json",
                        "--network 10gbe"),
            "library": "--library roofline",
            "precision": ("simulate --net {tiny} --machine v100 --json", "--precision fp16"),
            "partition": (f"simulate {OWT} --gpus 2 --partition replicas --json",
                          "--partition hybrid"),
            "replicas": ("simulate --net {tiny} --machine k20x8 --json", "--replicas 2"),
            "variable_batch": (f"simulate {OWT} --gpus 2 --partition hybrid --json",
                               "--variable-batch"),
            "schedule": "--schedule overlap",
            "transport": "--transport host",
            "policy": "--policy reuse",
            "data_path": "--data-path none",
            "epochs": "--epochs 1",
            "images": "--images 1000",
            "settings": "--set device.clock_mhz=1000",
            "recipe": "--recipe modern",
            "train_only": "--train-only fc3",
            "sensitivity": "--sensitivity",
            "trace": "--trace {out}/t.json.gz",
            "json": ("simulate --net {tiny}", "--json"),
        },
    ),
    "sweep": (
        "sweep -a batch=64,128 --net lenet-5 --json",
        {
            "axis": "-a link=pcie1-x8,pcie3-x16",
            "net": "--net cifar10-quick",
            "machine": "--machine k20x8",
            "epochs": "--epochs 1",
            "images": "--images 1000",
            "dry_run": "--dry-run",
            "output": "-o {out}/points.csv",
            "json": ("sweep -a batch=64,128 --net lenet-5", "--json"),
        },
    ),
    "memory": (
        "memory --net lenet-5 --json",
        {
            "net": "--net cifar10-quick",
            "batch": "--batch 64",
            "gpus": ("memory --net {tiny} --json", "--gpus 1"),
            "mem_cap": "--mem-cap 4GB",
            "policy": "--policy reuse",
            "schedule": ("memory --net alexnet-owt --policy reuse --json", "--schedule overlap"),
            "partition": ("memory --net lenet-5 --gpus 1 --json", "--partition hybrid"),
            "variable_batch": (
                "memory --net lenet-5 --policy reuse --partition hybrid --gpus 2 --json",
                "--variable-batch",
            ),
            "train_only": "--train-only fc5",
            "layers": ("memory --net lenet-5", "--layers"),
            "json": ("memory --net lenet-5", "--json"),
        },
    ),
    "flops": (
        "flops --json",
        {
            "net": "--net lenet-5",
            "batch": "--batch 3",
            "train_only": "--train-only fc8",
            "compare": "--compare",
            "strict": ("flops --compare", "--strict"),
            "json": ("flops", "--json"),
        },
    ),
    "report": (
        "report alexnet-2012 -o {out}/page.html",
        {
            "output": "-o {out}/other.html",
            "batch": "--batch 32",
            "gpus": "--gpus 1",
            "policy": "--policy reuse",
            "schedule": "--schedule overlap",
            "machine": "--machine k20x8",
        },
    ),
    "profile": (
        "profile --json",
        {
            "net": "--net lenet-5",
            "layer": ("profile --net lenet-5 --json", "--layer conv1"),
            "batch": "--batch 3",
            "gpus": "--gpus 1",
            "policy": "--policy reuse",
            "schedule": "--schedule overlap",
            "train_only": "--train-only fc8",
            "device": "--device cuda",
            "backend": "--backend triton",
            "rounds": "--rounds 2",
            "threads": "--threads 1",
            "trace": "--trace {out}/t.json.gz",
            "snapshot": "--snapshot {out}/memory.pickle",
            "torch_profiler": ("profile --trace {out}/t.json.gz", "--torch-profiler"),
            "output": "-o {out}/profile.json",
            "machine": "--machine k20x8",
            "json": ("profile", "--json"),
        },
    ),
    "calibrate": (
        "calibrate --net lenet-5 --batches 2,4 -o {out}/c.json --json",
        {
            "net": "--net cifar10-quick",
            "gpus": ("calibrate --net {tiny} --batches 1,2 -o {out}/c.json", "--gpus 1"),
            "policy": ("calibrate --net {tiny} --batches 1,2 -o {out}/c.json", "--policy reuse"),
            "batches": "--batches 2,6",
            "check": "--check 8",
            "rounds": "--rounds 2",
            "threads": "--threads 1",
            "output": "-o {out}/other.json",
            "json": ("calibrate --net lenet-5 --batches 2,4 -o {out}/c.json", "--json"),
        },
    ),
    "validate": (
        "validate --measurements {rows} --json",
        {
            "measurements": "--measurements {fewer}",
            "rows": ("validate --measurements {rows}", "--summary"),
            "leave_out": "--leave-out",
            "refit": "--refit",
            "save_correction": "--save-correction {out}/correction.json",
            "gate": "--gate 0.01",
            "output": "-o {out}/rows.csv",
            "json": ("validate --measurements {rows}", "--json"),
        },
    ),
    "kernels": (
        "kernels --json",
        {"arch": "--arch 80", "precision": "--precision fp16", "json": ("kernels", "--json")},
    ),
    "export": (
        "export {weights} {out}/w.pt --json",
        {
            "names": "--names torchvision",
            "check": ("export {weights} {out}/w.onnx", "--no-check"),
            "json": ("export {weights} {out}/w.pt", "--json"),
        },
    ),
    "import": (
        "import {state} {out}/w.safetensors --net {tiny} --json",
        {
            "net": "--net lenet-5",
            "classes": "--classes {classes}",
            "normalise": "--normalise mean-image",
            "mean": "--mean 123,117,104",
            "allow_nan": ("import {nan} {out}/w.safetensors --net {tiny}", "--allow-nan"),
            "json": ("import {state} {out}/w.safetensors --net {tiny}", "--json"),
        },
    ),
    "eval": (
        EVAL,
        {
            "data": "--data {packed}",
            "split": "--split train",
            "views": "--views 10",
            "shares": (TWO, "--shares 1,3"),
            "tune": (TWO, "--tune train"),
            "predictions": "--predictions {out}/p.csv",
            "batch": "--batch 3",
            "device": "--device cuda",
            "backend": "--backend triton",
            "threads": "--threads 2",
            "workers": "--workers 2",
            "json": (EVAL.removesuffix("--json"), "--json"),
        },
    ),
    "predict": (
        "predict {weights} {image} --threads 1 --json",
        {
            "views": "--views 10",
            "output": "-o {out}/p.png",
            "names": ("predict {wnids} {image} --threads 1", "--names {words}"),
            "batch": "--batch 3",
            "device": "--device cuda",
            "backend": "--backend triton",
            "threads": "--threads 2",
            "workers": "--workers 2",
            "json": ("predict {weights} {image} --threads 1", "--json"),
        },
    ),
    "nearest": (
        "nearest {weights} {image} --data {images} --threads 1 --workers 1 --json",
        {
            "data": "--data {packed}",
            "split": "--split train",
            "count": "-k 2",
            "output": "-o {out}/n.png",
            "names": ("nearest {weights} {image} --data {flat} --split train --threads 1"
                      " --workers 1", "--names {words}"),
            "batch": "--batch 3",
            "device": "--device cuda",
            "backend": "--backend triton",
            "threads": "--threads 2",
            "workers": "--workers 2",
            "json": ("nearest {weights} {image} --data {images} --threads 1", "--json"),
        },
    ),
    "filters": (
        "filters {weights} -o {out}/f.png",
        {"output": "-o {out}/other.png", "json": "--json"},
    ),
    "train": (
        TRAIN,
        {
            "net": "--net cifar10-quick",
            "batch": "--batch 4",
            "gpus": (COLUMNS, "--gpus 1"),
            "mem_cap": "--mem-cap 2GB",
            "policy": "--policy reuse",
            "schedule": "--schedule overlap",
            "partition": (f"{TRAIN} --gpus 1", "--partition hybrid"),
            "variable_batch": (f"{TRAIN} --gpus 2 --partition hybrid", "--variable-batch"),
            "data": "--data {packed}",
            "order": (f"{TRAIN} --data {{packed}}", "--order shards"),
            "steps": "--steps 2",
            "epochs": "--epochs 2",
            "recipe": "--recipe modern",
            "init_from": (TINY, "--init-from {weights}"),
            "new_head": (f"{TINY} --init-from {{weights}}", "--new-head"),
            "train_only": "--train-only fc5",
            "seed": "--seed 2",
            "learning_rate": "--learning-rate 0.5",
            "bias_rate": "--bias-rate 0.5",
            "augment": "--augment 2012",
            "normalise": "--normalise mean-image",
            "colour_noise": "--colour-noise",
            "threads": "--threads 2",
            "workers": "--workers 2",
            "checkpoint_every": "--checkpoint-every 2",
            "output": "-o {out}/other",
            "resume": "--resume {images}",
            "device": (COLUMNS, "--device cuda"),
            "backend": (COLUMNS, "--backend triton"),
            "transport": (CUDA, "--transport host"),
            "precision": (f"{COLUMNS} --backend triton", "--precision tf32"),
            "graph": (f"{CUDA} --backend triton", "--no-graph"),
            "strict": "--strict",
            "processes": (COLUMNS, "--processes"),
            "replicas": (f"{COLUMNS} --processes", "--replicas 2"),
            "timeout": (f"{COLUMNS} --processes", "--timeout 5"),
            "machine": "--machine k20x8",
            "json": "--json",
        },
    ),
    "bench run": (
        "bench run --json",
        {
            "net": "--net lenet-5",
            "batch": "--batch 3",
            "only": "--only timed",
            "kernels": "--no-kernels",
            "output": "-o {out}/run.json",
            "json": ("bench run", "--json"),
        },
    ),
    "bench compare": (
        "bench compare --json",
        {
            "net": "--net lenet-5",
            "batch": "--batch 3",
            "only": "--only timed",
            "kernels": "--no-kernels",
            "baseline": "--baseline {rows}",
            "tolerance": "--tolerance 9",
            "json": ("bench compare", "--json"),
        },
    ),
    "bench update": (
        "bench update --baseline {out}/b.json",
        {
            "net": "--net lenet-5",
            "batch": "--batch 3",
            "only": "--only timed",
            "kernels": "--no-kernels",
            "baseline": "--baseline {out}/other.json",
            "runs": "--runs 3",
        },
    ),
    "data pack": (
        "data pack {images} {out}/packed --workers 1",
        {
            "side": "--side 64",
            "quality": "--quality 20",
            "shard_images": "--shard-images 4",
            "order": "--order file",
            "seed": "--seed 5",
            "names": ("data pack {flat}/train {out}/packed --workers 1", "--names {words}"),
            "val_labels": ("data pack {flat} {out}/packed --workers 1", "--val-labels {labels}"),
            "workers": "--workers 2",
            "json": "--json",
        },
    ),
    "data inspect": (
        "data inspect {images} --workers 1",
        {
            "verify": ("data inspect {packed}", "--verify"),
            "sheet": "--sheet {out}/sheet.png",
            "most": "--most 3",
            "workers": "--workers 2",
            "json": "--json",
        },
    ),
    "data bench": (
        "data bench {packed} --workers 1 --seconds 1",
        {
            "workers": "--workers 1,2",
            "seconds": "--seconds 2",
            "batch": "--batch 64",
            "order": "--order shards",
            "here": "--here 50",
            "json": "--json",
        },
    ),
    "hardware list": ("hardware list", {"json": "--json"}),
    "hardware show": ("hardware show a100", {"json": "--json"}),
    "network list": ("network list", {}),
    "network show": ("network show lenet-5", {"output": "-o {out}/net.svg"}),
    "recipe list": ("recipe list", {"json": "--json"}),
    "recipe show": ("recipe show 2012", {"output": "-o {out}/mine.toml"}),
}  # fmt: skip
FAIL_WITHOUT = {("import", "allow_nan"), ("data pack", "val_labels")}
"""What such an option permits is refused without it."""
REFUSED = [
    ("simulate --network 10gbe", "all GPUs are in one machine"),
    ("simulate --machine k80 --gpus 1 --network 10gbe", "all GPUs are in one machine"),
    ("simulate --gpus 1 --transport host", "no GPU exchanges anything"),
    ("simulate --gpus 1 --transport peer", "no GPU exchanges anything"),
    ("simulate --net lenet-5 --policy in-place", "--policy in-place changes no figure"),
    ("simulate --net lenet-5 --machine k20x8 --gpus 1 --partition hybrid --variable-batch",
     "one GPU has all images"),
    ("simulate --variable-batch", "needs partition hybrid"),
    ("simulate --replicas 2 --partition replicas --gpus 2", "replicas are of partition columns"),
    ("simulate --precision fp16", "has no fp16 kernels"),
    ("simulate --set device.l2_bytes=1e5", "nothing in this step depends on it"),
    ("simulate --set uplink.bytes_per_s=1e9", "nothing in this step depends on it"),
    ("simulate --set disk_bytes_per_s=1e9 --data-path none", "nothing in this step depends on it"),
    ("simulate --set device.clock_mhz=1000 --set device.clock_hz=1e9", "given twice"),
    ("simulate --machine {calibration} --link pcie3-x16", "changes a data sheet"),
    ("simulate --machine {calibration} --precision tf32", "changes a data sheet"),
    ("sweep -a batch=64,x", "--axis batch: batch must be a positive whole number, got 'x'"),
    ("sweep -a batch=64,64", "--axis batch: 64 is given twice"),
    ("sweep -a batch=64,,128", "must be NAME=VALUE"),
    ("sweep -a bach=64", "no axis 'bach'; did you mean batch?"),
    ("sweep -a machine=k80,K80", "--axis machine: K80 is given twice"),
    ("sweep -a device.clock_hz=1e9 -a device.clock_mhz=1000", "is given twice"),
    ("sweep -a device.clock=1e9", "a device has no 'clock'"),
    ("sweep -a library=cudnn-v4,measured", "this machine's own"),
    ("sweep -a schedule=serial,later", "schedule must be one of"),
    ("sweep -a link=pcie3-x16,pcie9", "no link 'pcie9'"),
    ("sweep -a batch=64 --net lenet-5 -a net=vgg-a", "--net and --axis net"),
    ("sweep -a batch=64 --machine k80 -a machine=a100", "--machine and --axis machine"),
    ("sweep -a gpus=1 -a transport=peer,host", "--axis transport changes no figure"),
    ("sweep -a gpus=1 -a transport=host", "--axis transport changes no figure"),
    ("sweep -a network=10gbe,100gbe", "--axis network changes no figure"),
    ("sweep --net lenet-5 -a policy=as-released,in-place", "--axis policy changes no figure"),
    ("sweep -a network=10gbe", "--axis network changes no figure"),
    ("sweep -a device.l2_bytes=1e5,2e5", "--axis device.l2_bytes changes no figure"),
    ("memory --json --layers", "--json has every layer"),
    ("memory --schedule overlap", "changes no byte here"),
    ("memory --net alexnet-owt --partition hybrid --gpus 2 --variable-batch",
     "changes no byte here"),
    ("memory --variable-batch", "needs partition hybrid"),
    ("flops --batch 3", "--json has"),
    ("flops --strict", "needs --compare"),
    ("flops --compare --train-only fc8", "leave --train-only out"),
    ("report {images} --batch 4", "is for a network's name"),
    ("profile --torch-profiler", "goes under a trace"),
    ("profile --device cuda --threads 1", "--threads are a CPU's"),
    ("validate --measurements {rows} --json --summary", "is for the tables"),
    ("bench run --only counted --batch 3", "is for timed cases"),
    ("bench compare --only counted --tolerance 3", "is for timed cases"),
    ("bench update --only counted --runs 3", "is for timed cases"),
    ("bench run --only timed --no-kernels", "is for counted figures"),
    ("export {weights} {out}/w.pt --no-check", "is for .onnx"),
    ("export {weights} {out}/w.onnx --names torchvision", "is for .pt and .pth"),
    ("import {state} {out}/w.safetensors --net {tiny} --mean 1,2,3 --normalise channels",
     "--mean is for --normalise mean-image"),
    (f"{EVAL} --shares 1", "for several networks"),
    (f"{EVAL} --tune train", "for several networks"),
    (EVAL.replace("--threads 1", "--threads 1 --device cuda"), "--threads are a CPU's"),
    ("predict {weights} {image} --names {words}", "names none of the 3 classes"),
    (f"{TRAIN} --timeout 5", "is for several processes"),
    (f"{TRAIN} --order shards", "needs a packed set"),
    (f"{TRAIN} --transport peer", "needs --device cuda"),
    (f"{TRAIN.replace('--threads 1', '')} --device cuda --transport peer", "exchanges nothing"),
    (f"{CUDA} --processes --transport host", "exchange over gloo"),
    (f"{CUDA} --threads 1", "--threads are a CPU's"),
    (f"{TRAIN} --precision tf32", "needs --backend triton"),
    (f"{TRAIN} --graph", "needs --device cuda"),
    (f"{TRAIN} --variable-batch", "needs partition hybrid"),
    (f"{TRAIN} --replicas 2", "needs a process per GPU"),
    (f"{TRAIN} --new-head", "goes with --init-from"),
    (f"{TRAIN} --steps 2 --epochs 2", "not both"),
    ("data pack {images} {out}/p --order file --seed 3", "nothing is drawn"),
    ("data inspect {images} --verify", "needs a packed set"),
    ("data inspect {packed} --most 3", "is for sources"),
    ("data inspect {packed} --workers 2", "does nothing for a packed set"),
    ("data bench {images} --order shards", "needs a packed set"),
]  # fmt: skip


def commands() -> Iterator[tuple[str, set[str]]]:
    """Every command, and the names of its options."""

    def below(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        named = {one.name for one in command.params if one.param_type_name == "option"}
        if named or not hasattr(command, "commands"):
            yield name, named - {"install_completion", "show_completion", "help"}
        for word, one in getattr(command, "commands", {}).items():
            yield from below(one, f"{name} {word}".strip())

    yield from below(typer.main.get_command(app), "")


def test_every_option_of_every_command_is_in_the_table() -> None:
    assert dict(commands()) == {name: set(options) for name, (_, options) in TABLE.items()}


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, (_, options) in TABLE.items() for option in options],
)
def test_an_option_changes_something(
    command: str, option: str, ask: Callable[[str], Answer]
) -> None:
    line, options = TABLE[command]
    given = options[option]
    line, more = given if isinstance(given, tuple) else (line, given)
    before = _BEFORE[line] = _BEFORE.get(line) or ask(line)
    assert (before.code == 0) != ((command, option) in FAIL_WITHOUT), before.err
    assert ask(f"{line} {more}") != before


@pytest.mark.parametrize("command", TABLE)
def test_a_command_says_the_same_twice(command: str, ask: Callable[[str], Answer]) -> None:
    line = TABLE[command][0]
    assert ask(line) == (_BEFORE.get(line) or ask(line))


@pytest.mark.parametrize(("line", "why"), REFUSED)
def test_an_option_that_would_change_nothing_is_refused(
    line: str, why: str, ask: Callable[[str], Answer]
) -> None:
    found = ask(line)
    assert found.code == 2, found.out
    assert why in found.err
    assert found.err.count("\n") == 1
    assert not found.out
    assert not found.files
