"""Words that people use: names in any form, a device and a count, several GPUs."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from alexsim.cli.app import main
from alexsim.costs.libraries import library_names, load_library
from alexsim.editions import load as editions
from alexsim.editions.load import edition_names, load_network
from alexsim.editions.variants import VARIANTS
from alexsim.errors import AlexsimError, PlanError, ProfileError, known_as, plain, unknown
from alexsim.explore.axes import parse_axes
from alexsim.explore.sweep import sweep
from alexsim.ledger.tables import flop_table, step_flops
from alexsim.machine.counted import as_written, devices_in
from alexsim.machine.device import device_names, load_device
from alexsim.machine.link import link_names, load_link
from alexsim.machine.machine import (
    load_machine,
    load_sheet,
    machine_for,
    machine_names,
)
from alexsim.page.inputs import Wanted, plan_subject
from alexsim.plan.asked import gpus_and_partition
from alexsim.plan.choices import PARTITIONS
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec, usual_partition
from alexsim.recipe import file as recipes
from alexsim.recipe.file import load_recipe, recipe_names
from alexsim.report.tables import sharing_text
from alexsim.simulate.simulator import on_machine

HARDWARE = (*machine_names(), *device_names())
LISTS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "device": (load_device, device_names()),
    "link": (load_link, link_names()),
    "machine": (load_machine, HARDWARE),
    "sheet": (load_sheet, (*HARDWARE, *link_names())),
    "network": (load_network, edition_names()),
    "library": (load_library, library_names()),
    "recipe": (load_recipe, recipe_names()),
}
STRANGE = (
    "foo", "my-model", "bert", "gpt2", "vit_b_16", "yolo", "llama", "tpu-v4", "tesla", "cpu", "zzz",
    "9", "A" * 40,
)  # fmt: skip


def forms(name: str) -> set[str]:
    """Ways in which people write a name."""
    parted = {name.replace(old, new) for old in "-_." for new in ("-", "_", ".", " ", "")}
    return {case(form) for form in (*parted, plain(name)) for case in (str, str.upper, str.title)}


def answer(line: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command line; its words stand between ``|``s."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([word.strip() for word in line.split("|")])
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


@pytest.mark.parametrize("kind", LISTS)
def test_a_listed_name_is_known_in_every_form(kind: str) -> None:
    load, known = LISTS[kind]
    for name in known:
        expected = repr(load(name))
        assert {known_as(form, known) for form in forms(name)} == {name}
        assert {repr(load(form)) for form in (name.upper(), plain(name))} == {expected}


def test_a_name_that_could_be_two_is_neither() -> None:
    names = ("layer1_0", "layer10", "fc8", "FC8")
    assert [known_as(name, names) for name in names] == list(names)
    assert known_as("layer1-0", names) is None
    assert known_as("Layer1_0", names) == "layer1_0"
    assert known_as("Fc8", names) is None


def test_names_are_written_down_as_they_are_listed() -> None:
    for name in HARDWARE:
        assert {as_written(form) for form in forms(name)} == {name}
    for name in edition_names():
        assert {editions.as_written(form) for form in forms(name)} == {name}
    for name in recipe_names():
        assert {recipes.as_written(form) for form in forms(name)} == {name}
    for variant in VARIANTS:
        assert editions.as_written(f"AlexNet_Paper+{variant.upper()}") == f"alexnet-paper+{variant}"
    assert editions.as_written("Mine.py:Net-1") == "Mine.py:Net-1"
    axes = parse_axes(
        ["net=ResNet-50", "machine=Titan X Maxwell,4x A100", "network=100 GbE", "link=PCIe3x16",
         "library=cuDNN v8", "data_path=none"]
    )  # fmt: skip
    assert axes == {
        "net": ("resnet50",), "machine": ("titan-x-maxwell", "a100x4"), "network": ("100gbe",),
        "link": ("pcie3-x16",), "library": ("cudnn-v8",), "data-path": ("none",),
    }  # fmt: skip
    assert plan_subject(Wanted(network="LeNet 5")).name == "lenet-5"


@pytest.mark.parametrize("kind", LISTS)
def test_a_name_is_proposed_only_where_it_is_close(kind: str) -> None:
    load, known = LISTS[kind]
    for name in known:
        with pytest.raises(AlexsimError, match="did you mean ") as refused:
            load(f"{name.upper()}_y")
        assert name in str(refused.value).partition("?")[0]
    for name in STRANGE:
        with pytest.raises(AlexsimError) as refused:
            load(name)
        told = str(refused.value)
        assert "did you mean" not in told
        listed = "alexsim network list" if kind == "network" else "alexsim hardware list"
        assert listed in told or all(each in told for each in known)
        assert len(told) < 360
        assert "\n" not in told


@pytest.mark.parametrize(
    ("name", "meant"),
    [("resnet5o", "resnet50"), ("alexnet2o12", "alexnet-2012"), ("lenet", "lenet-5"),
     ("densnet-121", "densenet121"), ("mobilenet", "mobilenet_v2"), ("a10O", "a100"),
     ("gtx58", "gtx580"), ("titan x", "titan-x-maxwell")],
)  # fmt: skip
def test_a_slip_is_told(name: str, meant: str) -> None:
    known = edition_names() if meant in edition_names() else HARDWARE
    assert meant in unknown("network", name, known).partition("did you mean ")[2].partition("?")[0]


def test_every_device_may_have_a_count() -> None:
    for name, count in itertools.product(device_names(), (1, 3, 16)):
        spelled = (f"{name}x{count}", f"{count}x{name}", f"{count} x {name.upper()}",
                   f"{plain(name)} X{count}")  # fmt: skip
        assert len({as_written(form) for form in spelled}) == 1
        if as_written(spelled[0]) in machine_names():
            assert {devices_in(form) for form in spelled} == {None}
            continue
        assert as_written(spelled[1]) == f"{name}x{count}"
        assert {devices_in(form) for form in spelled} == {count}
        made = load_machine(spelled[1])
        assert (made.device_name, made.devices_per_node.value) == (name, count)
        joined = load_machine(spelled[1], "", "10gbe")
        assert joined.devices_per_node.value == count
    assert devices_in("a100") is None
    assert load_machine("2 x GTX-580").name == load_machine("gtx580x2").name


@pytest.mark.parametrize(
    ("name", "why"),
    [("h100x2000", "a node has 1 to 16 devices, not 2000; --network LINK"),
     ("0xh100", "a node has 1 to 16"), ("2xdgx-1", "dgx-1 is a machine"),
     ("2xa100x2", "no machine or device"), ("x4", "no machine or device"),
     ("foox4", "no machine or device"), ("a100x" + "9" * 5000, "no machine or device")],
)  # fmt: skip
def test_a_count_is_of_a_device_and_of_one_node(name: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why) as refused:
        load_machine(name)
    assert "did you mean" not in str(refused.value)


def test_several_gpus_of_one_column_are_replicas_wherever_they_are_asked_for() -> None:
    for name, gpus in itertools.product(("lenet-5", "alexnet-2012"), (None, 1, 2, 4)):
        network = load_network(name)
        usual = usual_partition(network, gpus)
        assert usual == ("replicas" if name == "lenet-5" and gpus in (2, 4) else "columns")
        told = gpus_and_partition(network, gpus=gpus, partition=None)
        assert told == (gpus, usual)
        if name == "alexnet-2012" and gpus == 4:
            with pytest.raises(PlanError, match="written in 2 columns: gpus must be 1 or 2, got 4"):
                plan(network, gpus=gpus)
            continue
        made = plan(network, gpus=gpus, batch_size=8)
        assert made == plan(network, gpus=gpus, partition=usual, batch_size=8)
    with pytest.raises(PlanError, match="in one column: gpus must be 1, got 2; partition replicas"):
        plan(load_network("lenet-5"), gpus=2, partition="columns")


@pytest.mark.parametrize(
    ("net", "said", "expected"),
    [
        ("lenet-5", {}, (4, "replicas")),
        ("lenet-5", {"partition": "hybrid"}, (4, "hybrid")),
        ("lenet-5", {"partition": "columns"}, (None, "columns")),
        ("lenet-5", {"replicas": 2}, (None, "columns")),
        ("lenet-5", {"gpus": 2}, (2, "replicas")),
        ("lenet-5", {"gpus": 1}, (1, "columns")),
        ("alexnet-2012", {}, (None, "columns")),
        ("alexnet-2012", {"partition": "replicas"}, (4, "replicas")),
        ("alexnet-2012", {"machine": "a100x2"}, (2, "columns")),
        ("alexnet-2012", {"machine": "a100x1"}, (1, "columns")),
        ("lenet-5", {"machine": "k20x8"}, (None, "columns")),
    ],
)  # fmt: skip
def test_a_machines_count_is_the_number_of_gpus_where_the_network_allows_it(
    net: str, said: dict[str, Any], expected: tuple[int | None, str]
) -> None:
    given = {"gpus": None, "partition": None, "machine": "a100x4"} | said
    assert gpus_and_partition(load_network(net), **given) == expected


SPECS = [
    PlanSpec(network=load_network("lenet-5"), batch_size=12),
    PlanSpec(network=load_network("lenet-5"), batch_size=12, gpus=3, partition="replicas"),
    PlanSpec(network=load_network("lenet-5"), batch_size=12, gpus=3, partition="hybrid"),
    PlanSpec(network=load_network("alexnet-2012"), batch_size=12),
    PlanSpec(network=load_network("alexnet-2012"), batch_size=12, gpus=1),
    PlanSpec(network=load_network("alexnet-2012"), batch_size=12, replicas=3),
    PlanSpec(network=load_network("alexnet-2012"), batch_size=12, gpus=3, partition="replicas"),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.network.name} {spec.partition}")
def test_the_flop_of_a_step_are_those_of_its_plans_ops(spec: PlanSpec) -> None:
    made = plan(spec)
    step = step_flops(flop_table(spec.network), spec)
    assert step.gpus == spec.all_gpus == len(made.devices) * made.replicas
    assert step.flop == made.replicas * sum(op.count.flop for op in made.ops())
    by_device = [sum(op.count.flop for op in device.ops) for device in made.devices]
    assert step.flop_of_gpu == max(by_device)
    weights = 4 * spec.network.parameters
    assert (step.summed_bytes > 0) == (spec.copies > 1 or spec.partition == "hybrid")
    assert step.summed_bytes <= weights
    text = sharing_text(spec)
    assert bool(text) == (spec.all_gpus > 1)
    if text:
        assert f"{spec.op_images} of a step's 12 images" in text or "all 12 images" in text
        assert text.startswith("data parallel") == (spec.copies > 1)


def test_a_network_joins_machines_or_is_refused() -> None:
    assert machine_for("a100x4", 4).network is None
    assert machine_for("a100x4", 8, "10gbe").network is not None
    with pytest.raises(ProfileError, match="has 4 device"):
        machine_for("a100x4", 8)
    with pytest.raises(ProfileError, match="all GPUs are in one machine"):
        machine_for("a100x4", 4, "10gbe")


LINES = {
    "simulate": "simulate | --net | LeNet-5 | --machine | 4x A100",
    "memory": "memory | --net | LeNet-5 | --machine | 4x A100",
    "flops": "flops | --net | LeNet-5 | --machine | 4x A100",
    "report": "report | LeNet-5 | --machine | 4x A100 | -o | {page}",
}


@pytest.mark.parametrize("command", LINES)
def test_the_first_line_says_that_a_step_is_shared(command: str, tmp_path: Any) -> None:
    line = LINES[command].format(page=tmp_path / "page.html")
    code, out, _ = answer(line)
    assert code == 0
    said = "data parallel: 4 GPUs, each with all of lenet-5 and 32 of a step's 128 images"
    assert out.splitlines()[0].rstrip() == said
    if command == "report":
        assert said.replace("'", "&#39;") in (tmp_path / "page.html").read_text()
        return
    document = json.loads(answer(f"{line} | --json")[1])
    shared = document["step"] if command == "flops" else document
    assert (shared["gpus"], shared["images_per_gpu"]) == (4, 32)
    if command != "flops":
        assert (document["sharing"], document["partition"]) == (said, "replicas")
    assert answer(line.replace("--machine | 4x A100", "--machine | a100 | --gpus | 4"))[0] == 0
    assert said in answer(f"{line} | --partition | replicas")[1]


def test_memory_is_that_of_the_card() -> None:
    for given, budget, context in (
        ("", "gtx580", "gtx580"), ("| --machine | T4", "t4", "t4"),
        ("| --machine | t4 | --mem-cap | 3GB", None, "t4"),
    ):  # fmt: skip
        told = json.loads(answer(f"memory | --net | lenet-5 | --json {given}")[1])
        usable = load_device(budget).memory_bytes.value if budget else 3 * 1024**3
        assert told["budget_bytes"] == usable
        taken = load_device(context).context_bytes.value
        assert {each["by_category"]["context"] for each in told["devices"]} == {taken}


def test_a_sweep_over_gpus_of_one_column_is_data_parallel() -> None:
    settings = [{"net": "lenet-5", "machine": "a100", "gpus": gpus} for gpus in ("1", "2", "4")]
    settings += [{"net": "lenet-5", "machine": "a100x2"}]
    points = sweep(settings, images=1000, epochs=1, workers=1)
    assert [(point.error, point.gpus, point.partition) for point in points] == [
        ("", 1, "columns"), ("", 2, "replicas"), ("", 4, "replicas"), ("", 2, "replicas"),
    ]  # fmt: skip
    code, out, _ = answer("sweep | --net | lenet-5 | --machine | a100 | -a | gpus=1,2")
    assert (code, out.splitlines()[0].split(":")[1].strip()[:13]) == (0, "data parallel")


def test_every_partition_is_named_where_gpus_are_refused() -> None:
    with pytest.raises(PlanError) as refused:
        _ = PlanSpec(network=load_network("lenet-5"), gpus=2).device_of
    assert all(word in str(refused.value) for word in PARTITIONS if word != "columns")


@pytest.mark.parametrize("name", [n for n in machine_names() if load_machine(n).peer_link])
def test_counted_cards_are_joined_as_in_the_machines_that_have_them(name: str) -> None:
    """``h100x8`` is a board of H100, not eight slots: its name says what joins them."""
    listed = load_machine(name)
    count = int(listed.devices_per_node.value)
    counted = load_machine(f"{listed.device_name}x{count}")
    assert counted.peer_link == listed.peer_link
    assert counted.name == f"{count} x {listed.device.name}, {listed.peer_link.name}"
    net = PlanSpec(network=load_network("vgg16"), gpus=count, partition="replicas", batch_size=512)
    seconds = [on_machine(net, machine).step_s for machine in (listed, counted)]
    # Beside that, two cards of a machine share an upload.
    assert seconds[1] == pytest.approx(seconds[0], rel=0.01)


def test_cards_in_slots_are_joined_by_their_bus() -> None:
    for name in ("a100-pciex4", "4xgtx1080ti"):
        machine = load_machine(name)
        assert machine.peer_link is None
        assert machine.name.endswith(f", {machine.link.name}")
