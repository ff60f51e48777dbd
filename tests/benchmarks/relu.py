"""Figure 1 of the paper: how much sooner does ReLU reach 25 % training error than tanh?

    python tests/benchmarks/relu.py CIFAR-10 [--first he|2012] [--rates ...] [--epochs 60]

CIFAR-10 is a folder of ``train/<class>/*.jpg``. A network of four layers (three convolutions and
the classes), without regularisation, as in the paper; each activation gets the rate at which it is
quickest. Prints the training error epoch by epoch, and the ratio of epochs.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from alexsim.data.discover import discover
from alexsim.data.loader import Loader
from alexsim.data.statistics import statistics
from alexsim.data.workers import workers_for
from alexsim.editions.variants import varied
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.layers import (
    Convolution,
    FullyConnected,
    Layer,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.plan.planner import plan
from alexsim.recipe.file import load_recipe

ENOUGH = 0.25
BATCH = 128


def network(first: str) -> Network:
    """A network of four layers, its first weights drawn in one of two ways.

    ``he``: with He's deviations, for pixels of about 1; ``2012``: as cuda-convnet's layer files for
    CIFAR-10 draw them, for pixels of about 64.
    """
    inputs, layers = 3, list[Layer]()
    for index, filters in enumerate((32, 32, 64), start=1):
        he = (2 / (inputs * 25)) ** 0.5
        layers += [
            Convolution(
                name=f"conv{index}", filters=filters, size=5, padding=2,
                weight_std=he if first == "he" else 0.0001 if index == 1 else 0.01,
            ),
            ReLU(name=f"relu{index}"),
            MaxPool(name=f"pool{index}", size=3, stride=2, rounding="floor"),
        ]  # fmt: skip
        inputs = filters
    layers += [
        FullyConnected(name="fc4", units=10, weight_std=0.05 if first == "he" else 0.1),
        SoftmaxCrossEntropy(name="softmax"),
    ]
    return Network(name="four-layers", input_shape=(3, 28, 28), layers=tuple(layers))


def epochs_to(
    network: Network, rate: float, batches: list[tuple[torch.Tensor, ...]], most: int
) -> float:
    """Epochs until the training error is 25 %, with its last epoch in part; infinite if never."""
    executor = Executor(plan(network, batch_size=BATCH, backend="aten"))
    executor.initialise()
    order = np.random.default_rng(0)
    before, step = 1.0, 0
    for epoch in range(1, most + 1):
        wrong = []
        for index in order.permutation(len(batches)):
            images, labels = batches[index]
            now = Hyperparameters(weight_rate=rate, bias_rate=rate, weight_decay=0.0)
            found = executor.step(images, labels, step=step, hyperparameters=now)
            assert found.top1 is not None
            wrong.append(found.top1.mean().item())
            step += 1
        error = float(np.mean(wrong))
        print(
            f"  {network.name:18} rate {rate:<6g} epoch {epoch:3}: {100 * error:5.1f} %", flush=True
        )
        if not np.isfinite(error):
            break
        if error <= ENOUGH:
            return epoch - 1 + (before - ENOUGH) / (before - error)
        before = error
    return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", choices=("he", "2012"), default="he")
    parser.add_argument("--rates", default="")
    parser.add_argument("--epochs", type=int, default=60)
    given = parser.parse_args()
    # Pixels of 64 make the first layer's gradients larger.
    rates = given.rates or ("0.003,0.01,0.03,0.1" if given.first == "he" else "3e-4,1e-3,3e-3,1e-2")
    pixel = 64 if given.first == "he" else 1
    dataset = discover(given.folder, most_classes=10)
    recipe = replace(load_recipe("2012").only_first_stage, normalisation="mean-image")
    with workers_for(2) as pool:
        measured = statistics(dataset.train, 28, 3, pool, lambda _done, _total: None)
        loader = Loader(
            replace(dataset, held_out=dataset.train), measured, recipe.preparation,
            batch_size=BATCH, crop_side=28, seed=0, pool=pool,
        )  # fmt: skip
        # No regularisation: centre crops, drawn once; their order changes.
        mixed = [dataset.train[i] for i in np.random.default_rng(1).permutation(len(dataset.train))]
        batches = [
            (torch.from_numpy(b.images / pixel).permute(0, 3, 1, 2), torch.from_numpy(b.labels))
            for b in loader.views(mixed)
            if b.valid == BATCH
        ]
    best: dict[str, tuple[float, float]] = {}
    relus = network(given.first)
    for trained in (relus, varied(relus, ("tanh",))):
        for rate in (float(text) for text in rates.split(",")):
            quickest = best.get(trained.name, (float("inf"), 0.0))
            # Another rate is only of interest as long as it may be quicker.
            limit = int(min(given.epochs, quickest[0] + 1))
            found = epochs_to(trained, rate, batches, limit)
            best[trained.name] = min(quickest, (found, rate))
    (relu, relu_rate), (tanh, tanh_rate) = best.values()
    print(
        f"ReLU {relu:.1f} epochs (rate {relu_rate:g}), tanh {tanh:.1f} (rate {tanh_rate:g}):"
        f" {tanh / relu:.1f} times sooner"
    )


if __name__ == "__main__":
    main()
