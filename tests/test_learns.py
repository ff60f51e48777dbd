"""Every edition that `network list` says can be trained learns; what it says is what is so."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from chains import CHAINS
from rich.console import Console

from alexsim.documents.networks import networks_document
from alexsim.editions.load import edition_names, load_network
from alexsim.errors import NetworkError
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.network.layers import Convolution, FullyConnected, ReLU, Sigmoid
from alexsim.network.network import Network
from alexsim.network.not_run import refuse_not_photographs
from alexsim.plan.planner import plan
from alexsim.recipe.defaults import training_defaults, trains_as
from alexsim.recipe.file import load_recipe, recipe_name
from alexsim.recipe.outlook import BATCH, Outlook, outlook
from alexsim.report.networks import about, networks_tables

BUDGET = 3 * 2**30
NETWORKS = [load_network(name) for name in edition_names()]
OUTLOOKS = [
    outlook(network, budget_bytes=BUDGET, cores=2)
    for network in NETWORKS
    if not trains_as(network.name)
]
TRAINED = [one for one in OUTLOOKS if one.seconds is not None]


def textures(count: int, network: Network, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes of ten directions, as normalised images, and which direction each has."""
    rng = np.random.default_rng(seed)
    channels, height, width = network.input_shape
    labels = rng.integers(0, 10, count)
    y, x = np.mgrid[0:height, 0:width] * (28 / width)
    turn = (np.pi * labels / 10)[:, None, None]
    phase = rng.uniform(0, 2 * np.pi, count)[:, None, None]
    images = np.sin((x * np.cos(turn) + y * np.sin(turn)) + phase)
    shown = np.repeat(images[:, None], channels, 1).astype(np.float32)
    return torch.from_numpy(shown), torch.from_numpy(labels)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lenet_learns_at_its_own_rate(seed: int) -> None:
    network = load_network("lenet-5")
    recipe = load_recipe(recipe_name("lenet-5"))
    rates = Hyperparameters(
        weight_rate=recipe.stages[0].weight_rate,
        bias_rate=recipe.stages[0].bias_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    executor = Executor(plan(network, batch_size=32, backend="aten"), seed=seed)
    executor.initialise()
    for step in range(100):
        executor.step(*textures(32, network, step), step=step, hyperparameters=rates)
    tested = executor.evaluate(*textures(32, network, 10**6))
    assert tested.losses is not None
    assert tested.losses.mean() < 0.5 * math.log(10)


@pytest.mark.parametrize(
    "one",
    [one for one in TRAINED if one.network.name in CHAINS],
    ids=lambda one: one.network.name,
)
def test_first_weights_suit_what_follows_them(one: Outlook) -> None:
    """Through a layer and its activation a signal keeps its size, but where authors chose.

    A sigmoid's slope at 0 is 1/4; of a ReLU's inputs one half counts.
    """
    network = one.network
    theirs = network.name.startswith(("alexnet-2012", "alexnet-paper", "alexnet-1gpu", "alexnet-6"))
    for parts, after in zip(network.parts, [*network.parts[1:], None], strict=True):
        layer = parts[0].layer
        if not isinstance(layer, Convolution | FullyConnected) or after is None or theirs:
            continue
        gain = layer.weight_std * math.prod(parts[0].weight_shape[1:]) ** 0.5
        slope = {Sigmoid: 1 / 4, ReLU: 0.5**0.5}.get(type(after[0].layer))
        if slope is not None:
            assert gain * slope == pytest.approx(1), layer.name


def test_what_cannot_be_trained_is_refused_and_the_others_are_not() -> None:
    for one in OUTLOOKS:
        if one.seconds is None:
            with pytest.raises(NetworkError, match=one.refused.removeprefix("no ")):
                refuse_not_photographs(one.network)
        else:
            assert not one.refused
            words = one.options.split()
            given = dict(zip(words[::2], words[1::2], strict=True))
            assert given.keys() <= {"--policy", "--batch"}
            assert one.batch_size == int(given.get("--batch", BATCH))
            made = plan(
                one.network,
                optimizer=load_recipe(one.defaults.recipe).optimizer,
                batch_size=one.batch_size,
                policy=given.get("--policy", "as-released"),  # type: ignore[arg-type]
                backend="native",
                threads=2,
            )
            assert all(device.total_bytes <= BUDGET for device in made.devices)


def test_every_edition_has_defaults_with_a_source_and_variants_share_them() -> None:
    for name in edition_names():
        defaults = training_defaults(name)
        assert defaults.steps >= 1
        assert defaults.weights
        assert defaults.source
        assert training_defaults(f"{name}+10-classes") == defaults
    assert training_defaults("mine.py:net").recipe == "modern"


def test_time_grows_with_work_and_shrinks_with_cores() -> None:
    network = load_network("vgg-a")
    times = [outlook(network, budget_bytes=BUDGET, cores=n).seconds for n in (1, 2, 8)]
    assert all(times)
    assert times == sorted(times, key=lambda s: -(s or 0))
    assert [about(s) for s in (3, 44, 100, 3600, 7200)] == [
        "10 s",
        "40 s",
        "2 min",
        "60 min",
        "2.0 h",
    ]
    assert outlook(network, budget_bytes=2**20).refused == "one image does not fit into 1.00 MiB"


def test_the_list_fits_a_terminal_and_the_document_has_every_edition(tmp_path: Path) -> None:
    with (tmp_path / "list.txt").open("w") as file:
        tables = networks_tables(NETWORKS, OUTLOOKS, budget_bytes=BUDGET, cores=2)
        Console(file=file, width=80).print(tables)
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    told = {one.network.name: one for one in OUTLOOKS}
    networks = networks_document(
        NETWORKS, told, {"no-lrn": "no norms"}, budget_bytes=BUDGET, cores=2
    )
    document = networks.document()
    for network, row in zip(NETWORKS, document["networks"], strict=True):
        name, one = row["network"], told.get(row["trains_as"] or row["network"])
        assert name == network.name
        assert (name in told) == (row["trains_as"] is None)
        assert one
        assert (row["training"] is None) == bool(row["refused"] or row["trains_as"])
        assert bool(row["refused"]) == (name in told and one.seconds is None)
