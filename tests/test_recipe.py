"""Recipes: the stages of 2012, rates of single layers, layers that freeze, tests on the way."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import here
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from alexsim.cli.app import main
from alexsim.editions.load import load_network
from alexsim.errors import ProfileError
from alexsim.execute.bind_triton import Constants
from alexsim.execute.context import Hyperparameters
from alexsim.execute.executor import Executor
from alexsim.machine.machine import load_machine
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.file import load_recipe, recipe_from, recipe_names, recipe_table, recipe_text
from alexsim.recipe.recipe import Plateau, reductions
from alexsim.simulate.simulator import on_machine
from alexsim.train.progress import Progress, sizes_of
from alexsim.train.weights import load_weights

SHORT = """
title = "three stages of one epoch"
epochs = 4
momentum = 0.9
weight_decay = 0.0005
augmentation = "paper"
normalisation = "mean-image"
[validation]
every_images = 32
images = 4
[[stages]]
from_epoch = 1
weight_rate = 0.1
bias_rate = 0.1
colour_noise = false
[[stages]]
from_epoch = 2
weight_rate = 0.05
bias_rate = 0.1
colour_noise = false
layer_rates = { conv1 = 0.001 }
[[stages]]
from_epoch = 3
weight_rate = 0.05
bias_rate = 0.1
colour_noise = false
frozen = ["conv1"]
"""


def test_2012_is_what_was_run() -> None:
    recipe = load_recipe("2012")
    rates = {1: 0.01, 24: 0.01, 25: 1e-3, 50: 1e-3, 51: 1e-4, 78: 1e-4, 79: 1e-5, 90: 1e-5}
    assert {epoch: recipe.stage(epoch).weight_rate for epoch in rates} == rates
    assert [e for e in range(1, 91) if recipe.stage(e).colour_noise] == list(range(1, 67))
    assert [e for e in range(1, 91) if "conv1" in recipe.stage(e).frozen] == list(range(72, 91))
    assert {e: dict(recipe.stage(e).layer_rates).get("conv1") for e in (66, 67, 71, 72)} == {
        66: None,
        67: 1e-5,
        71: 1e-5,
        72: None,
    }
    biases = [recipe.stage(epoch).bias_rate for epoch in range(1, 91)]
    assert biases[0] == 0.02
    assert len(set(biases)) == 2, "biases drop at most once"
    assert recipe.validation is not None
    assert (recipe.validation.every_images, recipe.validation.images) == (50 * 1024, 1024)


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_survive_their_own_tables(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe_from(json.loads(json.dumps(recipe_table(recipe))), "again") == recipe
    assert recipe_from(tomllib.loads(recipe_text(name)), "text") == recipe
    for epochs in (1, 24, 25, 70, 90, 120):
        assert sum(count for _, count in recipe.spans(epochs)) == epochs


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("epochs = 4", "epochs = 0"), "epochs must be at least 1, got 0"),
        (("epochs = 4", "epoch = 4"), "missing keys ['epochs'], unknown keys ['epoch']"),
        (("momentum = 0.9", "momentum = 1.0"), "momentum must be below 1, got 1.0"),
        (("from_epoch = 3", "from_epoch = 2"), "stages must begin at epoch 1 and go on in order"),
        (("from_epoch = 1", "from_epoch = 2"), "stages must begin at epoch 1"),
        (
            ('frozen = ["conv1"]', 'frozen = "conv1"'),
            "stages[2].frozen must be a list, got",
        ),
        (("conv1 = 0.001", "conv1 = -1"), "stages[1].layer_rates.conv1 must be at least 0, got -1"),
        (("every_images = 32", ""), "give every_images or every_epochs"),
        (('"paper"', '"none"'), "augmentation must be one of 2012, paper, crops"),
        (
            ("bias_rate = 0.1\n", "bias_rate = nan\n"),
            "stages[0].bias_rate must be a finite",
        ),
    ],
)
def test_a_wrong_recipe_is_named(
    change: tuple[str, str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SHORT.replace(*change, 1))
    with pytest.raises(ProfileError) as caught:
        load_recipe(str(path))
    assert says in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--recipe", str(path)])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


SGD = 'optimizer = "sgd"\n'
ADAMW = 'optimizer = "adamw"\n'
LAYERS = ("conv1", "conv2", "fc3", "fc4", "fc5")
ONE_RATE = SHORT.replace("bias_rate = 0.1\n", "")


@pytest.mark.parametrize(
    ("top", "stages", "says"),
    [
        ('optimizer = "adam"\n', SHORT, "optimizer must be one of sgd-2012, sgd, adamw"),
        ("nesterov = true\n", SHORT, "nesterov is a constant of optimizer sgd, not of sgd-2012"),
        ("decay_all = true\n", SHORT, "decay_all is a constant of optimizer sgd, not of sgd-2012"),
        (ADAMW + "nesterov = false\n", ONE_RATE, "nesterov is a constant of optimizer sgd, not of"),
        (SGD + "beta2 = 0.999\n", ONE_RATE, "beta2 is a constant of optimizer adamw, not of sgd"),
        (SGD + "beta2 = 0.9\n", ONE_RATE, "beta2 is a constant of optimizer adamw, not of sgd"),
        (ADAMW + "nesterov = true\n", ONE_RATE, "nesterov is a constant of optimizer sgd, not of"),
        (SGD, SHORT, "stages[1]: optimizer sgd has one rate for everything: leave bias_rate out"),
        (SGD + "nesterov = 1\n", ONE_RATE, "nesterov must be true or false"),
        (
            SGD + "nesterov = true\n",
            ONE_RATE.replace("momentum = 0.9", "momentum = 0"),
            "nesterov looks ahead along the momentum, which is 0",
        ),
        (ADAMW + "beta2 = 1.0\n", ONE_RATE, "beta2 must be below 1, got 1.0"),
        (ADAMW + "epsilon = 0\n", ONE_RATE, "epsilon must be above 0, got 0"),
        ("", ONE_RATE, "stages[0]: missing keys ['bias_rate']"),
    ],
)
def test_what_is_not_a_rule_s_is_named(top: str, stages: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(top + stages)
    with pytest.raises(ProfileError) as caught:
        load_recipe(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_names_its_rule_and_what_it_leaves_out_is_pytorch_s(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for top, wanted in (
        ("", ("sgd-2012", False, False, 0.999, 1e-8)),
        (SGD, ("sgd", False, True, 0.999, 1e-8)),
        (SGD + "nesterov = true\ndecay_all = false\n", ("sgd", True, False, 0.999, 1e-8)),
        (ADAMW, ("adamw", False, True, 0.999, 1e-8)),
        (ADAMW + "beta2 = 0.99\nepsilon = 1e-6\n", ("adamw", False, True, 0.99, 1e-6)),
    ):
        path.write_text(top + (ONE_RATE if top else SHORT))
        recipe = load_recipe(str(path))
        found = Progress(recipe=recipe, batch_size=1, images=1, held_out=0).hyperparameters(0, [])
        rule = (found.nesterov, found.decay_all, found.beta2, found.epsilon)
        assert (recipe.optimizer, *rule) == wanted
        assert found.bias_rate == found.weight_rate
        again = recipe_from(json.loads(json.dumps(recipe_table(recipe))), "again")
        assert again == recipe
    # With another rule a recipe has that rule's constants, and one rate.
    short = recipe_from(tomllib.loads(SHORT), "short")
    other = short.updated_by("adamw")
    assert recipe_from(recipe_table(other), "again") == other
    assert [stage.bias_rate for stage in other.stages] == [0.1, 0.05, 0.05]
    assert other.decay_all
    assert not other.updated_by("sgd-2012").decay_all


@pytest.mark.parametrize("nesterov", [False, True])
def test_increments_are_what_rules_add_to_weights(nesterov: bool) -> None:
    for optimizer in ("sgd-2012", "sgd", "adamw"):
        made = executor(optimizer=optimizer, gpus=1)
        rates = Hyperparameters(
            weight_rate=0.001,
            weight_decay=0.0,
            nesterov=nesterov,
            momentum=0.0 if nesterov else 0.9,
        )
        before = one_step(rates, made)
        after = one_step(rates, made)
        for layer, size in sizes_of(after, optimizer, rates).items():
            added = [
                (after[name] - before[name]).abs().flatten()
                for name in after
                if name.startswith(f"{layer}.") and name.endswith(".weight")
            ]
            assert size.increment == pytest.approx(torch.cat(added).mean().item(), rel=1e-3)


def test_rates_fall_when_errors_stop_falling() -> None:
    rule = Plateau(divide_by=10, times=2, patience=2)
    for errors, fallen in (
        ([], 0),
        ([0.9, 0.8, 0.7], 0),
        ([0.5, 0.6], 0),
        ([0.5, 0.6, 0.5], 1),  # as good is no better
        ([0.5, 0.6, 0.5, 0.4, 0.5], 1),
        ([0.5, 0.6, 0.6, 0.4, 0.5, 0.5], 2),
        ([0.5] * 20, 2),
    ):
        assert reductions(errors, rule) == fallen, errors
    recipe = replace(load_recipe("paper"), plateau=rule)
    progress = Progress(recipe=recipe, batch_size=10, images=100, held_out=10)
    rates = progress.hyperparameters(0, [0.5] * 20)
    assert rates.weight_rate == pytest.approx(1e-4)
    assert rates.bias_rate == pytest.approx(1e-4)


@given(
    batch=st.integers(1, 300),
    every=st.integers(1, 2000),
    images=st.integers(0, 50),
    held_out=st.integers(1, 120),
)
def test_tests_come_as_often_as_asked_and_go_round(
    batch: int, every: int, images: int, held_out: int
) -> None:
    recipe = load_recipe("2012")
    assert recipe.validation
    validation = replace(recipe.validation, every_images=every, images=images)
    progress = Progress(
        recipe=replace(recipe, validation=validation),
        batch_size=batch,
        images=1000,
        held_out=held_out,
    )
    steps = [done for done in range(1, 200) if progress.tests_after(done)]
    # One after every crossing of a multiple; none is missed, none comes twice.
    assert steps == [n for n in range(1, 200) if n * batch // every > (n - 1) * batch // every]
    for done in steps:
        first, count = progress.tested(done)
        assert 0 <= first < held_out
        assert count == min(images or held_out, held_out)
    if every >= batch and steps:
        assert progress.tested(steps[0])[0] == 0
    if every >= batch and len(steps) > 1:
        (first, count), (after, _) = (progress.tested(done) for done in steps[:2])
        assert after == (first + count) % held_out


def executor(**choices: Any) -> Executor:
    made = Executor(plan(load_network("alexnet-2012"), batch_size=2, backend="aten", **choices))
    made.initialise()
    return made


def one_step(rates: Hyperparameters, made: Executor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = 50 * torch.randn(2, 3, 224, 224, generator=generator)
    made.step(images, torch.tensor([3, 5]), step=0, hyperparameters=rates)
    return {name: tensor.clone() for name, tensor in made.state().items()}


def test_a_layers_own_rate_moves_that_layer_only() -> None:
    plain = one_step(Hyperparameters(weight_rate=0.01), executor())
    own = Hyperparameters(weight_rate=0.01, layer_rates=(("conv1", 0.001), ("fc7", 0.0)))
    changed = one_step(own, executor())
    for name, before in plain.items():
        layer, _, what = name.split(".", 2)
        if what == "weight.momentum" and layer == "conv1":
            # Momentum was zero: all of it is rate times gradient and decay.
            assert torch.allclose(changed[name], before / 10, rtol=1e-5, atol=0)
        elif what == "weight.momentum" and layer == "fc7":
            assert not changed[name].any()
        elif what == "weight" and layer in ("conv1", "fc7"):
            assert not torch.equal(changed[name], before)
        else:
            assert torch.equal(changed[name], before), name


def test_the_kernels_constants_hold_each_layers_rate() -> None:
    constants = Constants(torch.device("cpu"))
    conv1, conv2 = constants.weight("conv1"), constants.weight("conv2")
    rates = Hyperparameters(weight_rate=0.5, bias_rate=0.25, layer_rates=(("conv1", 0.125),))
    constants.set(rates, 7)
    assert conv1.tolist() == pytest.approx([0.9, 0.0005, 0.125])
    assert conv2.tolist() == pytest.approx([0.9, 0.0005, 0.5])
    assert constants.bias.tolist() == pytest.approx([0.9, 0.0, 0.25])
    assert constants.weight("conv1") is conv1


def test_sizes_are_means_over_both_columns() -> None:
    state = {
        "conv1.a.weight": torch.tensor([1.0, -3.0]),
        "conv1.b.weight": torch.tensor([2.0, 2.0, -8.0, 0.0]),
        "conv1.a.weight.momentum": torch.tensor([0.5, -0.5]),
        "conv1.b.weight.momentum": torch.tensor([0.0, 0.0, 0.0, 1.0]),
        "conv1.a.bias": torch.tensor([100.0]),
        "fc2.a.weight": torch.tensor([4.0]),
    }
    sizes = sizes_of(state)
    assert list(sizes) == ["conv1", "fc2"]
    first, second = sizes.values()
    assert first.weight == pytest.approx(16 / 6)
    assert first.increment == pytest.approx(2 / 6)
    assert second == (4.0, 0.0)


def test_freezing_conv1_saves_what_led_to_it_only() -> None:
    network = load_network("alexnet-2012")
    frozen = frozenset(network.weighted_layers) - {"conv1"}
    whole, less = (plan(network, trainable=trainable) for trainable in (None, frozen))
    before = {op.id: op.count for op in whole.ops()}
    after = {op.id: op.count for op in less.ops()}
    assert after.keys() < before.keys()
    gone = before.keys() - after.keys()
    assert {name for name in gone if name.endswith((".grad_weight", ".update"))} == {
        "conv1.a.grad_weight",
        "conv1.b.grad_weight",
        "conv1.a.update",
        "conv1.b.update",
    }
    assert {name for name in gone if name.endswith(".grad_input")} == {
        f"{layer}.{column}.grad_input"
        for layer in ("norm1", "pool1", "relu1", "conv2")
        for column in "ab"
    }
    # conv1's weight gradient and conv2's input gradient: 2 FLOP per multiply-add and image.
    saved = sum(c.flop for c in before.values()) - sum(c.flop for c in after.values())
    assert saved == 128 * 2 * (105_415_200 + 223_948_800)
    machine = load_machine("gtx580x2")
    slow, fast = (
        on_machine(
            PlanSpec(network=network, trainable=frozenset(network.weighted_layers) - set(names)),
            machine,
        )
        for names in ((), ("conv1",))
    )
    assert fast.step_s < slow.step_s
    assert fast.devices[0].memory_bytes < slow.devices[0].memory_bytes
    assert fast.devices[0].memory_bytes - less.devices[0].total_bytes == (
        slow.devices[0].memory_bytes - whole.devices[0].total_bytes
    )


def run(folder: Path, recipe: Path, to: Path, *more: object) -> dict[str, Any]:
    done = here(
        "train", "--net", "lenet-5", "--batch", 16, "--data", folder, "--recipe", recipe, "-o", to,
        "--workers", 1, "--threads", 1, "--json", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def checkpoint(run_dir: Path) -> dict[str, torch.Tensor]:
    (path,) = run_dir.glob("checkpoint-*.safetensors")
    return load_file(path)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "short.toml"
    path.write_text(SHORT)
    return path


@pytest.fixture(scope="module")
def whole(folder: Path, recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    to = tmp_path_factory.mktemp("runs") / "whole"
    return to, run(folder, recipe_file, to)


def test_a_recipe_runs_to_its_end_and_tests_on_the_way(whole: tuple[Path, dict]) -> None:
    run_dir, document = whole
    # 54 images: 4 epochs of 3.375 steps of 16.
    assert document["steps"] == 14
    assert [one["step"] for one in document["validations"]] == [2, 4, 6, 8, 10, 12, 14]
    assert {one["images"] for one in document["validations"]} == {4}
    assert document["validations"][0]["epoch"] == 1
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    sizes = [record["layers"] for record in records if "layers" in record]
    assert set(sizes[0]) == {"conv1", "conv2", "fc3", "fc4", "fc5"}
    assert all(weight > 0 for weight, _ in sizes[0].values())
    # Frozen from epoch 3 on: after step 7 its weights rest.
    assert sizes[0]["conv1"][1] > 0
    assert sizes[-1]["conv1"] == [sizes[-2]["conv1"][0], 0.0]
    assert sizes[-1]["fc5"][0] != sizes[-2]["fc5"][0]
    assert not any(name.startswith("conv1") and "momentum" in name for name in checkpoint(run_dir))


def test_the_page_tells_of_stages_and_of_tests_on_the_way(
    whole: tuple[Path, dict], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(whole[0]), "-o", str(page)])
    assert not ended.value.code
    text = page.read_text()
    assert "from epoch 2: rate 0.05, biases 0.1, conv1 0.001" in text
    assert "from epoch 3: rate 0.05, biases 0.1, conv1 frozen" in text
    assert "held out" in text


@pytest.mark.parametrize("stop", [3, 7, 9])
def test_a_recipe_resumes_to_the_same_bits_in_any_stage(
    stop: int, whole: tuple[Path, dict], folder: Path, recipe_file: Path, tmp_path: Path
) -> None:
    to = tmp_path / "stopped"
    run(folder, recipe_file, to, "--steps", stop)
    done = here("train", "--resume", to, "--steps", 14, "--json")
    assert done.returncode == 0, done.stderr
    ours, theirs = checkpoint(to), checkpoint(whole[0])
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    assert json.loads(done.stdout)["losses"] == whole[1]["losses"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_stopped_after_three_of_six_steps_goes_on_to_the_same_bits(
    folder: Path, tmp_path: Path, optimizer: str
) -> None:
    """By a rule that a recipe names, in two stages; a layer that thaws counts from there on."""
    path = tmp_path / "mine.toml"
    stages = ONE_RATE.split("[[stages]]")
    first = f"{stages[1]}frozen = ['fc3']\n".replace("0.1", "0.003")
    second = stages[2].replace("0.05", "0.002")
    path.write_text("[[stages]]".join([f'optimizer = "{optimizer}"\n{stages[0]}', first, second]))
    for name, steps in (("whole", 6), ("stopped", 3)):
        run(folder, path, tmp_path / name, "--steps", steps, "--checkpoint-every", 1)
    done = here("train", "--resume", tmp_path / "stopped", "--steps", 6, "--json")
    assert done.returncode == 0, done.stderr
    runs = {name: checkpoint(tmp_path / name) for name in ("whole", "stopped")}
    assert runs["whole"].keys() == runs["stopped"].keys()
    for name, tensor in runs["whole"].items():
        assert torch.equal(tensor, runs["stopped"][name]), name
    # What others begin with is the network alone.
    plain = load_weights(tmp_path / "whole").state
    assert plain.keys() == {f"{one}.a.{what}" for one in LAYERS for what in ("weight", "bias")}
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["settings"]["recipe"]["optimizer"] == optimizer
    counts = {name: int(value) for name, value in runs["whole"].items() if "updates" in name}
    # 54 images in steps of 16: the fifth is the first of epoch 2.
    expected = {f"{one}.a.updates": 2 if one == "fc3" else 6 for one in LAYERS}
    assert counts == (expected if optimizer == "adamw" else {})


def test_what_a_recipe_freezes_must_be_there(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(SHORT.replace('["conv1"]', '["conv9"]'))
    for command in (
        ["train", "--net", "lenet-5", "--data", str(folder), "-o", str(tmp_path / "x")],
        ["simulate", "--net", "lenet-5", "--gpus", "1"],
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--recipe", str(path)])
        assert ended.value.code == 2
        assert "no layer with weights 'conv9'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_run_of_2012_is_simulated_stage_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "--recipe", "2012", "--json"])
    document = json.loads(capsys.readouterr().out)
    stages = document["stages"]
    assert [(one["from_epoch"], one["epochs"]) for one in stages] == [
        (1, 24), (25, 26), (51, 16), (67, 5), (72, 7), (79, 12),
    ]  # fmt: skip
    assert stages[0]["step_s"] == document["step_s"]
    assert stages[4]["step_s"] < stages[3]["step_s"]
    for one in stages:
        assert one["days"] == pytest.approx(one["epochs"] * 1_281_167 / 128 * one["step_s"] / 86400)
    with pytest.raises(SystemExit):
        main(["simulate", "--recipe", "2012"])
    out = capsys.readouterr().out
    assert "72 to 78" in out
    assert max(map(len, out.splitlines())) <= 80


def test_recipes_are_listed_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    for arguments in (["list"], ["list", "--json"], ["show", "paper", "-o", str(path)]):
        with pytest.raises(SystemExit) as ended:
            main(["recipe", *arguments])
        assert not ended.value.code
    assert load_recipe(str(path)) == load_recipe("paper")
    with pytest.raises(SystemExit) as ended:
        main(["recipe", "show", "2013"])
    assert ended.value.code == 2
    assert "did you mean 2012?" in capsys.readouterr().err
