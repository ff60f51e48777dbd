"""The network of a run once more in plain PyTorch: does it learn as well?

    python tests/benchmarks/learns.py RUN [-o curves.csv]

Autograd, ``torch.optim.SGD`` and PyTorch's own layers on the same minibatches as the run's, in the
same order, at the same rates, from other random weights; it is tested where the run was. Prints
both errors, test by test, and both rates.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from alexsim.data.discover import discover
from alexsim.data.loader import Batch, Loader
from alexsim.data.workers import workers_for
from alexsim.editions.load import load_network
from alexsim.interchange.module import ColumnNorm, plain_module
from alexsim.network.layers import Convolution, FullyConnected, LocalResponseNorm
from alexsim.network.network import Network
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.progress import Progress
from alexsim.train.settings import HeldOutLine, StepLine, ValidationLine

Pair = tuple[torch.Tensor, torch.Tensor]


class Keep(nn.Module):
    """Dropout as in 2012: what is kept is not scaled up in training, but down at test."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand_like(x) >= self.rate) if self.training else x * (1 - self.rate)


class Norm(nn.Module):
    """The response norm by a 2-D pool over channels: ``F.local_response_norm``'s 3-D one is slow
    on a CPU, and this run is long."""

    def __init__(self, columns: int, layer: LocalResponseNorm) -> None:
        super().__init__()
        self.columns, self.layer = columns, layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        la, (n, c, h, w) = self.layer, x.shape
        squares = (x * x).reshape(n * self.columns, 1, c // self.columns, h * w)
        total = F.avg_pool2d(squares, (la.size, 1), 1, (la.size // 2, 0), divisor_override=1)
        return x * (la.k + la.alpha * total.reshape(n, c, h, w)) ** -la.beta


def model_of(network: Network) -> nn.Module:
    """PyTorch's modules with random weights of the edition's deviations."""
    module = plain_module(network)
    for layer, made in zip(network.layers, module, strict=False):
        if isinstance(layer, Convolution | FullyConnected):
            found = [one for one in made.modules() if hasattr(one, "weight")]
            nn.init.normal_(found[0].weight, std=layer.weight_std)
            nn.init.constant_(found[0].bias, layer.bias_init)
    for name, made in list(module.named_children()):
        if isinstance(made, nn.Dropout):
            setattr(module, name, Keep(made.p))
        if isinstance(made, ColumnNorm):
            setattr(module, name, Norm(made.columns, made.layer))
    return module.to(memory_format=torch.channels_last)


def pair(batch: Batch) -> Pair:
    return torch.from_numpy(batch.images).permute(0, 3, 1, 2), torch.from_numpy(batch.labels)


def tested(model: nn.Module, loader: Loader) -> float:
    """Top-1 error on the held-out images."""
    model.eval()
    wrong = images = 0
    with torch.no_grad():
        for batch in loader.held_out():
            x, labels = pair(batch)
            right = model(x).argmax(1) == labels
            wrong += batch.valid - int(right[: batch.valid].sum())
            images += batch.valid
    model.train()
    return wrong / images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    directory = RunDirectory(given.run)
    settings = directory.config().settings
    network, recipe = load_network(settings.network), settings.recipe
    dataset = discover(Path(settings.data), most_classes=network.classes)
    measured = directory.statistics()
    assert measured is not None, "the run has no mean image yet"
    lines = directory.metrics()
    theirs = {line.step: line.validation.top1 for line in lines if isinstance(line, ValidationLine)}
    theirs |= {line.step: line.held_out.top1 for line in lines if isinstance(line, HeldOutLine)}
    step_s = statistics.median(line.step_s for line in lines if isinstance(line, StepLine))
    progress = Progress(
        recipe=recipe, batch_size=settings.batch_size, images=len(dataset.train),
        held_out=len(dataset.held_out),
    )  # fmt: skip
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = model_of(network).train()
    weights = [p for p in model.parameters() if p.ndim > 1]
    biases = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.SGD(
        [{"params": weights, "weight_decay": recipe.weight_decay}, {"params": biases}],
        lr=0.0, momentum=recipe.momentum, weight_decay=0.0,
    )  # fmt: skip
    rows: list[dict[str, float]] = []
    times: list[float] = []
    with workers_for(settings.workers) as pool:
        loader = Loader(
            dataset, measured, recipe.preparation, batch_size=settings.batch_size,
            crop_side=network.input_shape[1], seed=settings.seed, pool=pool, order=settings.order,
        )  # fmt: skip
        for done, batch in enumerate(loader.training(0, settings.steps)):
            started = time.perf_counter()
            now = progress.hyperparameters(done, [])
            for group, rate in zip(
                optimiser.param_groups, (now.weight_rate, now.bias_rate), strict=True
            ):
                group["lr"] = rate
            images, labels = pair(batch)
            optimiser.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimiser.step()
            times.append(time.perf_counter() - started)
            if (done + 1) % 50 == 0:
                print(f"step {done + 1}/{settings.steps}  loss {loss.item():.3f}", flush=True)
            if done + 1 in theirs:
                top1 = tested(model, loader)
                rows.append({"step": done + 1, "alexsim": theirs[done + 1], "pytorch": top1})
                print(json.dumps(rows[-1]), flush=True)
    size = settings.batch_size
    print(f"images/s: alexsim {size / step_s:.1f}, PyTorch {size / statistics.median(times):.1f}")
    if given.output:
        with given.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
