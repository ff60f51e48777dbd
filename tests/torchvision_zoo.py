"""Trace every classification network of torchvision, which nobody here wrote, and check each.

    python tests/torchvision_zoo.py [NAME...] [--no-gradients] [--rows FILE] [--markdown]

NAMEs are parts of names; all networks without. Needs an environment of its own, with torch 2.14.1
and torchvision 0.29.1 beside what alexsim needs (x86, about 5.5 GB; not in CI), and for gradients
8 GB of memory. Exits with 1 and a line per error where a figure differs, or fewer than 60 map
whole. Of each network:

- Parameters are as many as the module's.
- Our edition of that name has the same parameters and forward FLOPs, heads aside.
- FLOPs are those of ``FlopCounterMode`` on ``meta``, with 4 images less those with 2. It takes the
  weight gradient of a convolution of G groups for that of a whole one (2 (G - 1) times its
  multiply-adds too much), and ``meta`` keeps attention's scores, which our kernels compute again:
  the backward passes differ by these, to the digit. What it counts once for all images (Swin V2's
  table of biases, computed of parameters alone) is no layer: ``once`` is its share with 2 images.
- Gradients, of those that map whole: what one step of gradient descent makes of every parameter and
  running statistic, against autograd in float64, dropout and stochastic depth off, images of 64
  pixels (299 for Inception, whose second head takes no less). Errors are relative to the largest
  gradient of the same parameter. RegNet Y 128GF is left out: its step takes 26 GB, and in float32
  PyTorch's gradients differ from its own in float64 by a quarter, which checks nothing.
- Memory of a step of 8 images under policy ``pytorch``, gradient descent with momentum: its most
  bytes against ``MemTracker`` under fake tensors, per cent more. It may be off by 8 bytes; of what
  does not map whole it may be off by 5 per cent.
- Seconds of ``from_torch``, and again from its cache.

``--rows`` predicts a table of whole networks' times with and without these networks, which stand
in it under torchvision's names.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torchvision
from eager_reference import tracked
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import StochasticDepth

import alexsim
from alexsim.costs.correction import load_correction
from alexsim.editions.load import edition_names, load_network
from alexsim.execute.context import Choices, Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.fidelity.validation import all_rows, predict_all
from alexsim.ledger.tables import flop_table
from alexsim.network.layers import Convolution
from alexsim.network.network import Network
from alexsim.network.not_run import unsupported
from alexsim.plan.autograd import Tape
from alexsim.plan.eager import live_peak
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.plan.steps import StepList
from alexsim.plan.tensors import Eager
from alexsim.report.validation import by_network

WANTED = 60
"""Networks that must map whole."""
IMAGES, RATE, CLASSES = 3, 1024.0, 1000
"""Of the step for gradients. A change of a parameter is so large that rounding it loses nothing."""
MOST_PARAMETERS = 200e6
"""Of networks whose gradients are checked: a step holds five times their 8 bytes."""
TOLERANCE, FLOOR = 1e-9, 1e-5
"""Of a parameter's gradients, and of the largest gradient of all, or of a running variance, which
begins at 1: below the floor there are rounding errors alone, as in gradients of biases before a
batch norm."""
TRACKED_IMAGES, LOSS_BYTES, MOST_MORE = 8, 8, 0.05
"""Of the step whose memory is compared, and how far it may be off."""
TRACKED = Eager(byte_masks=False, state_beside=False, sums_in_place=False)
"""A card's rules, but fake tensors are a CPU's, and a tracker keeps sums from being in place."""


@dataclass(slots=True, kw_only=True)
class Result:
    """What was seen of one network."""

    name: str
    parameters: int = 0
    mac: int = 0
    once: float = 0.0
    grouped: int = 0
    attention: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    missing: tuple[tuple[str, int], ...] = ()
    gradients: float | None = None
    """The largest error."""
    memory: tuple[int, int] | None = None
    """Ours and PyTorch's."""
    wrong: list[str] = field(default_factory=list)

    def near(self, what: str, ours: float, theirs: float) -> None:
        if ours != theirs:
            self.wrong.append(f"{what}: {ours:,}, PyTorch has {theirs:,}")


def built(name: str, device: str = "meta") -> nn.Module:
    """The network as torchvision builds it, in training mode."""
    # Those two draw their weights by SciPy's truncated normals, minutes long.
    settings = {"init_weights": False} if heads(name) else {}
    # Widths of RegNets are computed by tensors: on meta they have no values.
    where = "cpu" if name.startswith("regnet") else device
    with torch.device(where):
        module = torchvision.models.get_model(name, **settings)
    return module.to(device).train()


def side_of(name: str, small: bool = False) -> int:
    return 299 if name == "inception_v3" else 64 if small else 224


def cost(output: object, labels: torch.Tensor) -> torch.Tensor:
    """The answer's cross entropy, and 0.3 of every other head's."""
    heads = [
        head for head in (output if isinstance(output, tuple) else (output,)) if head is not None
    ]
    weights = (1.0, *[0.3] * (len(heads) - 1))
    return sum(w * F.cross_entropy(head, labels) for w, head in zip(weights, heads, strict=True))


def counted(module: nn.Module, side: int, images: int) -> tuple[int, int]:
    """FLOP of the forward and the backward pass, by PyTorch's counter."""
    given = torch.empty(images, 3, side, side, device="meta")
    with FlopCounterMode(display=False) as forward:
        output = module(given)
    labels = torch.zeros(images, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as backward:
        cost(output, labels).backward()
    return forward.get_total_flops(), backward.get_total_flops()


def check_counts(result: Result) -> Network:
    """Parameters and FLOPs; the network."""
    side = side_of(result.name)
    module, shape = built(result.name), (3, side, side)
    begun = time.perf_counter()
    network = alexsim.from_torch(module, shape, name=result.name)
    between = time.perf_counter()
    again = alexsim.from_torch(module, shape, name=result.name)
    result.seconds = between - begun, time.perf_counter() - between
    if again.layers != network.layers:
        result.wrong.append("the cache gives other layers")
    result.missing = tuple((kind.target, len(kind.layers)) for kind in unsupported(network))
    without = [kind.target for kind in unsupported(network) if not kind.formula]
    if without:
        result.wrong.append(f"no formula: {', '.join(without)}")
    result.parameters = network.parameters
    result.near("parameters", network.parameters, sum(p.numel() for p in module.parameters()))
    few, many = (counted(module, side, images) for images in (2, 4))
    forward, backward = ((b - a) // 2 for a, b in zip(few, many, strict=True))
    table = flop_table(network, IMAGES)
    result.mac, result.once = table.mac, 1 - 2 * forward / few[0]
    result.near("forward FLOP", table.flop, forward)
    for parts in network.parts:
        layer = parts[0].layer
        if isinstance(layer, Convolution):
            result.grouped += 2 * (layer.groups - 1) * parts[0].multiply_adds
    result.attention = sum(
        2 * la.products[0].multiply_adds for la in network.not_run if "attention" in la.target
    )
    ours = table.training_flop - table.flop + result.grouped - result.attention
    result.near("backward FLOP", ours, backward)
    if result.name in edition_names() and not heads(result.name):
        edition = load_network(result.name)
        result.near("parameters of our edition", edition.parameters, network.parameters)
        result.near("forward FLOP of our edition", flop_table(edition, IMAGES).flop, forward)
    return network


def heads(name: str) -> bool:
    """Whether torchvision builds it with auxiliary heads, which our edition of that name lacks."""
    return name in ("googlenet", "inception_v3")


def check_memory(result: Result, network: Network) -> None:
    """The peak of a step, by PyTorch's tracker."""
    spec = PlanSpec(network=network, optimizer="sgd", policy="pytorch", batch_size=TRACKED_IMAGES)
    steps = StepList(spec=spec)
    steps.build()
    ours, _ = live_peak(Tape(steps=steps, eager=TRACKED))
    module = built(result.name)
    shape = (TRACKED_IMAGES, *network.input_shape)
    theirs = tracked(lambda: module.to_empty(device="cpu"), "sgd", shape)["Total"]
    result.memory = ours, theirs
    allowed = MOST_MORE * theirs if result.missing else LOSS_BYTES
    if not abs(ours - theirs) <= allowed:
        result.near("bytes at the fullest", ours, theirs)


def check_gradients(result: Result) -> None:
    """One step here against autograd."""
    torch.manual_seed(0)
    module, side = built(result.name, "cpu"), side_of(result.name, small=True)
    for child in module.modules():
        if isinstance(child, nn.Dropout | StochasticDepth):
            child.p = 0.0
    module.double()
    images = torch.randn(IMAGES, 3, side, side, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (IMAGES,))
    network = alexsim.from_torch(module, (3, side, side))
    changed = stepped(network, images, labels)
    give_back()
    cost(module(images), labels).backward()
    state = module.state_dict()
    gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in gradients.values())
    worst = ("", 0.0)
    for name, key in network.keys.items():
        layer, _, parameter = name.rpartition(".")
        ours, theirs, scale = changed[f"{layer}.a.{parameter}"], state[key], FLOOR
        if key in gradients:
            ours, theirs, scale = (theirs - ours) / RATE, gradients.pop(key), FLOOR * largest
        scale = max(scale, float(theirs.abs().max()))
        error = float((ours - theirs).abs().max()) / scale
        worst = max(worst, (name, error), key=lambda pair: pair[1])
    result.gradients = worst[1]
    if gradients:
        result.wrong.append(f"no layer has {', '.join(gradients)}")
    if not worst[1] <= TOLERANCE:
        result.wrong.append(f"gradient of {worst[0]}: {worst[1]:.1e} off")


def stepped(
    network: Network, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The state after one step of gradient descent from the module's weights."""
    planned = plan(network, batch_size=IMAGES, backend="aten", optimizer="sgd", policy="reuse")
    executor = Executor(planned, Choices(dtype=torch.float64))
    module = network.module.state_dict()
    begin = executor.state()
    for name, key in network.keys.items():
        layer, _, parameter = name.rpartition(".")
        begin[f"{layer}.a.{parameter}"] = module[key]
    executor.load_state(begin)
    del begin
    rates = Hyperparameters(weight_rate=RATE, bias_rate=RATE, momentum=0.0, weight_decay=0.0)
    executor.step(images, labels, step=0, hyperparameters=rates)
    return {
        name: value.clone() for name, value in executor.state().items() if "momentum" not in name
    }


def give_back() -> None:
    """Free what is in circles, and what the C library keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def check(name: str, gradients: bool, networks: dict[str, Network]) -> Result:
    """All figures of one network, which ``networks`` gets."""
    result = Result(name=name)
    try:
        networks[name] = check_counts(result)
        check_memory(result, networks[name])
        if gradients and not result.missing and result.parameters < MOST_PARAMETERS:
            check_gradients(result)
    except Exception as error:
        result.wrong.append(f"{type(error).__name__}: {error}")
    give_back()
    return result


# What is printed

COLUMNS: Mapping[str, Callable[[Result], str]] = {
    "network": lambda result: result.name,
    "million parameters": lambda result: f"{result.parameters / 1e6:.2f}",
    "GMAC": lambda result: f"{result.mac / 1e9:.3f}",
    "once, %": lambda result: f"{100 * result.once:.2f}" if result.once else "",
    "grouped, GFLOP": lambda result: f"{result.grouped / 1e9:.2f}" if result.grouped else "",
    "attention, GFLOP": lambda result: f"{result.attention / 1e9:.2f}" if result.attention else "",
    "s": lambda result: f"{result.seconds[0]:.1f}",
    "again": lambda result: f"{result.seconds[1]:.2f}",
    "bytes, %": lambda result: (
        f"{100 * (result.memory[0] / result.memory[1] - 1):+.4f}" if result.memory else ""
    ),
    "gradients": lambda result: "" if result.gradients is None else f"{result.gradients:.0e}",
    "maps": lambda result: (
        ", ".join(f"{target} {calls}" for target, calls in result.missing) or "whole"
    ),
    "wrong": lambda result: "; ".join(result.wrong),
}
NUMBERS = 9
"""Columns of numbers, which follow the name."""


def table(rows: Iterable[Iterable[str]], numbers: int, markdown: bool) -> Iterator[str]:
    """Lines of a table, its first row the header; columns of which every cell is empty are not
    shown."""
    header, *lines = (list(row) for row in rows)
    shown = [index for index in range(len(header)) if any(line[index] for line in lines)]
    lines = [[line[index] for index in shown] for line in (header, *lines)]
    if markdown:
        signs = ["---:" if 0 < index <= numbers else "---" for index in shown]
        for line in (lines[0], signs, *lines[1:]):
            yield f"| {' | '.join(line)} |"
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(
            cell.rjust(width) if 0 < index <= numbers else cell.ljust(width)
            for index, cell, width in zip(shown, line, widths, strict=True)
        ).rstrip()


def predicted(path: str, networks: Mapping[str, Network], markdown: bool) -> Iterator[str]:
    """Rows of a table of whole networks, with and without ours, and their errors."""
    correction = load_correction()
    without, _ = all_rows(path)
    cases, excluded = all_rows(path, networks)
    rows = {case.row.id for case in without}
    ours = [case for case in cases if case.row.network in networks]
    new = [case for case in ours if case.row.id not in rows]
    yield (
        f"{len(cases) + len(excluded)} rows: {len(without)} predicted without these networks,"
        f" {len(cases)} with them; {len(ours)} are of these networks, {len(new)} of them new"
    )
    for rule, count in Counter(
        left.rule for left in excluded if left.row.network in networks
    ).most_common():
        yield f"  {count} of these networks are left out: {rule}"
    lines = [["network", "rows", "median, %", "mean, %", "device", "framework"]]
    for errors in by_network(predict_all(ours, correction)):
        summary = errors.summary
        figures = (summary.median_absolute_error, summary.mean_absolute_error)
        percent = [f"{100 * figure:.1f}" for figure in figures]
        where = [errors.device, errors.framework]
        lines.append([errors.network, str(summary.rows), *percent, *where])
    yield from table(lines, 3, markdown)


def main() -> int:
    """Check the networks that are named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of networks' names")
    parser.add_argument("--no-gradients", action="store_true", help="counts alone")
    parser.add_argument("--rows", metavar="FILE", help="table of whole networks to predict")
    parser.add_argument("--markdown", action="store_true", help="tables in Markdown")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    every = torchvision.models.list_models(module=torchvision.models)
    parts = options.names or [""]
    chosen = [name for name in every if any(part in name for part in parts)]
    results: list[Result] = []
    networks: dict[str, Network] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name in chosen:
            results.append(check(name, not options.no_gradients, networks))
            cells = (cell(results[-1]) for cell in COLUMNS.values())
            print("  ".join(filter(None, cells)), file=sys.stderr, flush=True)
    rows = [COLUMNS, *([cell(result) for cell in COLUMNS.values()] for result in results)]
    print("\n".join(table(rows, NUMBERS, options.markdown)))
    whole = sum(not result.missing and result.name in networks for result in results)
    for result in results:
        for error in result.wrong:
            print(f"{result.name}: {error}", file=sys.stderr)
    wrong = sum(bool(result.wrong) for result in results)
    print(f"\n{whole} of {len(results)} map whole; figures of {wrong} are wrong")
    if options.rows:
        print("\n".join(("", *predicted(options.rows, networks, options.markdown))))
    return 1 if wrong or whole < min(WANTED, len(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
