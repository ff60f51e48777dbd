"""Every option of every command changes what the command does; where it cannot, it is refused.

The commands run in this process. Where one would train or measure for seconds, what it was asked
for is compared instead: the settings that reach the loop, the profiler, the benchmarks.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import tarfile
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
from kernel_table import some_kernels, write_table
from option_refusals import REFUSED
from option_table import FAIL_WITHOUT, TABLE
from PIL import Image
from tiny import write_weights

# Before anything is patched: what it imports from is.
import alexsim.train.loop  # noqa: F401
from alexsim.bench.runner import Selection
from alexsim.bench.store import default_path
from alexsim.bench.verdicts import BenchRun, Host, Verdict
from alexsim.cli import models
from alexsim.cli.app import main, the_command
from alexsim.costs.measured import read
from alexsim.data.bench import LoaderRate
from alexsim.documents.plan import flops_document
from alexsim.interchange.convert import Exported
from alexsim.processes.world import Place
from alexsim.profile.microbench import timed
from alexsim.train.settings import TrainSettings
from alexsim.train.weights import Weights

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
    (root / "numbers.txt").write_text("\n".join(f"{n // 4}" for n in range(12)))
    with tarfile.open(root / "samples.tar", "w") as samples:
        for index in range(4):
            image = root / "images" / "train" / "dark" / f"{index}.png"
            label = root / f"{index}.cls"
            label.write_text(str(index % 2))
            samples.add(label, f"{index}.cls")
            samples.add(image, f"{index}.png")
            samples.add(root / "images" / "train" / "bright" / f"{index}.png", f"{index}.left.jpg")
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
        "numbers": root / "numbers.txt",
        "samples": root / "samples.tar",
        "words": root / "words.txt",
        "classes": root / "classes.txt",
        "weights": weights,
        "wnids": wnids,
        "traced": f"{_traced(root)}:net",
        "tiny": f"{root / 'tiny.py'}:net",
        "run": _run(root / "run"),
        "state": root / "state.pt",
        "nan": wrong,
        "two": root / "two.pt",
        "packed": root / "packed",
        "rows": root / "rows.csv",
        "fewer": root / "fewer.csv",
        "kernels": root / "kernels.csv",
        "others": root / "others.csv",
        "calibration": CALIBRATION,
        "bench": default_path("alexnet-2012"),
    }
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for line in (("model", "export", weights, found["state"]), ("data", "pack", root / "images",
                     found["packed"], "--side", 40, "--workers", 1)):  # fmt: skip
            with pytest.raises(SystemExit):
                main([str(word) for word in line])
    state = torch.load(found["state"], weights_only=True)
    next(iter(state.values())).fill_(float("nan"))
    torch.save(state, wrong)
    other = {name: tensor + 1 for name, tensor in torch.load(found["state"]).items()}
    both = {"state_dict": torch.load(found["state"]), "state_dict_ema": other}
    torch.save(both, found["two"])
    published = files("alexsim_profiles") / "measurements" / "published.csv"
    rows = list(csv.reader(published.read_text("utf-8").splitlines()))
    steps = [row for row in rows[1:] if not row[3] and row[11] == "fwd+bwd"][:20]
    for name, chosen in (("rows", steps), ("fewer", steps[:5])):
        with Path(str(found[name])).open("w", newline="") as file:
            csv.writer(file).writerows([rows[0], *chosen])
    write_table(root / "kernels.csv", some_kernels(9))
    write_table(root / "others.csv", some_kernels(6))
    return {name: str(path) for name, path in found.items()}


def _content(path: Path) -> bytes:
    """A file's bytes; safetensors writes what it says of a file in any order."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    size = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:size]), sort_keys=True).encode() + data[size:]


def _traced(root: Path) -> Path:
    """A file whose network was made of a module."""
    file = root / "traced.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from torch import nn\n"
        "from alexsim.editions.load import load_network\n"
        "net = replace(load_network('lenet-5'), module=nn.Flatten())\n"
    )
    return file


def _run(folder: Path) -> Path:
    """A run of two steps."""
    settings = {
        "network": "lenet-5", "batch_size": 4, "gpus": 1, "policy": "as-released",
        "schedule": "serial", "budget_bytes": 2**30, "steps": 2,
    }  # fmt: skip
    _made(folder).joinpath("config.json").write_text(
        json.dumps({"settings": settings, "versions": {}})
    )
    line = {"loss": 2.5, "top1": 0.75, "top5": 0.5, "step_s": 0.25, "data_wait_s": 0.125}
    lines = (json.dumps({"step": step, **line}) for step in (1, 2))
    folder.joinpath("metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


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

    for module in ("data.workers", "data.packed.pack", "evaluate.evaluate"):
        patch.setattr(f"alexsim.{module}.workers_for", inline)
    patch.setattr("alexsim.data.images.worker_pool", inline)
    note("torch.set_num_threads")
    _train(patch, calls, note)
    asked = models.setup

    def setup(options: models.AnswerOptions, *weights: Weights) -> Any:
        calls.append(repr(asked(options, *weights)))
        return asked(replace(options, device="cpu", backend="aten"), *weights)

    patch.setattr(models, "setup", setup)
    step = request.getfixturevalue("lenet")[0]
    note("alexsim.profile.profiler.profile", step)
    note("alexsim.profile.rivals.rivals_of")
    known = read(CALIBRATION)
    note("alexsim.profile.calibrate.calibrate", lambda *_, **__: (known, dict.fromkeys((3, 5, 8))))
    note("alexsim.profile.calibrate.check", [])
    note("alexsim.profile.throughput.data_rates", ())
    note("alexsim.page.trackers.export.check_package")
    note("alexsim.page.trackers.tensorboard.write_events")
    note("alexsim.page.trackers.wandb.send", ("https://wandb.test/run", ""))
    kernel = timed("launch latency", "1", (1, "op"), 1e-6, op="launch")
    for rates in ("microbench.network_rates", "microbench.usual_rates", "transfers.transfer_rates"):
        note(f"alexsim.profile.{rates}", [kernel])
    run = BenchRun(network="", host=HOST, counted={}, timed=())
    note("alexsim.bench.runner.run", run)
    worse = Verdict(name="parameters", status="changed", before=1, after=2)

    def judged(selection: Selection, *_: object, **__: object) -> tuple[BenchRun, tuple[Any, ...]]:
        return run, (worse,) if "tiny" in selection.network else ()

    note("alexsim.bench.runner.compare", judged)
    note("alexsim.profile.kernels.compile_kernels", ())
    made = Exported(network=step.plan.network, files={".pt": b"", ".onnx": b""}, changes=())
    note("alexsim.interchange.convert.exported", made)
    note("alexsim.fidelity.fitting.fit_everything", lambda *_, **__: _correction())
    note("alexsim.cli.flops._compared", SimpleNamespace(complaints=("a difference",)))
    compared = "alexsim.documents.counters.compared_flops_document"
    note(compared, lambda table, *_: flops_document(table))
    note("alexsim.report.counters.counters_tables", "counters")
    rate = LoaderRate(
        workers=1, images=10, seconds=1.0, waited_s=0.0, worker_cpu_s=1.0, loader_cpu_s=1.0,
        worker_bytes=1, loader_bytes=1,
    )  # fmt: skip
    note("alexsim.data.bench.loader_rate", lambda *_, **named: replace(
        rate, workers=named["workers"]))  # fmt: skip


def _train(patch: pytest.MonkeyPatch, calls: list[str], note: Callable[..., None]) -> None:
    from alexsim.processes.world import joined

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
    patch.setattr("alexsim.cli.train_resume.resumed", resumed)
    note("alexsim.train.loop.train", train)
    patch.setattr("alexsim.cli.train_settings.refuse_what_does_not_fit", lambda chosen: None)
    note(
        "alexsim.processes.world.joined", lambda place, gpus, timeout, **_: joined(None, 1, timeout)
    )
    patch.setattr("alexsim.execute.cards.places", lambda device, count: tuple(range(count)))
    patch.setattr("torch.cuda.get_device_name", lambda: "a card")


def _correction() -> Any:
    from alexsim.costs.correction import load_correction

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


def commands() -> Iterator[tuple[str, set[str]]]:
    """Every command, and the names of its options."""

    def below(command: Any, name: str) -> Iterator[tuple[str, set[str]]]:
        named = {one.name for one in command.params if one.param_type_name == "option"}
        if named or not hasattr(command, "commands"):
            yield name, named - {"install_completion", "show_completion", "help"}
        for word, one in getattr(command, "commands", {}).items():
            yield from below(one, f"{name} {word}".strip())

    yield from below(the_command(), "")


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
