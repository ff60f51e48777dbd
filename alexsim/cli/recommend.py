"""``alexsim recommend``: which machine meets a goal, at least cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from alexsim.cli.simulate_options import ImageOptions
from alexsim.command import complete
from alexsim.command import options as shared
from alexsim.command.answer import Given, give
from alexsim.command.fields import option
from alexsim.command.options import NetOptions
from alexsim.errors import AlexsimError, GateError
from alexsim.plan.choices import Policy
from alexsim.simulate.simulation import ILSVRC_EPOCHS
from alexsim.simulate.timer import DataPath


@dataclass(frozen=True, kw_only=True)
class RecommendOptions(NetOptions, ImageOptions):
    """The goal, and among what to look."""

    days: float | None = option("DAYS", "Days that the whole training may take.")
    images_per_s: float | None = option("N", "Images per second, at least.")
    budget: float | None = option(
        "USD", "What the cards may cost, as they did when they came out; alone or with the others."
    )
    epochs: int = option("N", "Passes over the images.", ILSVRC_EPOCHS)
    machine: str = option(
        "NAME,...",
        "Machines and devices to choose from: see `alexsim hardware list`. Default: every GPU.",
        "",
        autocompletion=complete.machines,
    )
    gpus: str = option("N,...", "How many GPUs.", "1,2,4,8,16")
    batch: str = option("N,...", "Images per step, over all GPUs.", "128,256,512,1024")
    partition: str = option(
        "PARTITION,...",
        "How GPUs share a step: `columns`, `replicas`, `hybrid`. Default: replicas, and columns of"
        " a network that is written in several.",
        "",
    )
    precision: str = option("PRECISION,...", "As `alexsim simulate` has it.", "fp32,amp")
    policy: Policy = option("POLICY", "Memory, as `alexsim memory` has it.", "as-released")
    data_path: DataPath = option(
        "PATH", "`jpeg` reads, decodes and crops beside the step; `none`: images are ready.", "jpeg"
    )


def recommend(options: RecommendOptions) -> None:
    """Look for the machine that meets a goal at least cost.

    The cheapest, the one of least energy and the one of fewest cards that meet the goal as
    predicted, of every machine, number of GPUs, minibatch, partition and precision whose plan fits
    its cards. Exit code 4 if none does.

    Example: alexsim recommend --days 2

    Example: alexsim recommend --net resnet50 --images-per-s 2000 --budget 20000 --batch 256
    """
    from alexsim.documents.recommend import recommend_document
    from alexsim.editions.load import load_network
    from alexsim.explore.axes import listed
    from alexsim.explore.recommend import Goal, partitions
    from alexsim.explore.recommend import recommend as run
    from alexsim.explore.sweep import point_of
    from alexsim.machine.device import gpu_names
    from alexsim.machine.machine import load_machine
    from alexsim.report.recommend import nearest_text, recommend_tables

    goal = Goal(
        images=options.images,
        epochs=options.epochs,
        days=options.days,
        images_per_s=options.images_per_s,
        budget_usd=options.budget,
    )
    if options.days is not None and options.images_per_s is not None:
        raise AlexsimError("--days and --images-per-s: give one of them")
    if not goal.least_images_per_s and options.budget is None:
        raise AlexsimError("recommend needs a goal: --days, --images-per-s or --budget")
    network = load_network(options.net)
    axes = {
        "machine": listed("machine", options.machine) or gpu_names(),
        "gpus": listed("gpus", options.gpus),
        "batch": listed("batch", options.batch),
        "partition": listed("partition", options.partition) or partitions(network),
        "precision": listed("precision", options.precision),
    }
    for name in axes["machine"]:
        if load_machine(name).devices:
            raise AlexsimError(
                f"--machine {name} holds unlike cards, and recommend compares machines of one kind"
                " each; `alexsim simulate` predicts it"
            )
    chosen = {"policy": options.policy, "data-path": options.data_path}
    usual = {"policy": "as-released", "data-path": "jpeg"}
    given = {name: value for name, value in chosen.items() if value != usual[name]}
    with shared.counting("choosing", 1) as done:
        result = run(goal, axes, {"net": options.net, **given}, done=done)
    points = result.answers.values() or [result.nearest]
    for name, value in given.items():
        without = [{k: v for k, v in p.settings.items() if k != name} for p in points]
        others = [point_of(each, options.images, options.epochs).figures for each in without]
        if others == [point.figures for point in points]:
            raise AlexsimError(f"--{name} {value} changes no figure here; leave it out")
    document = partial(recommend_document, result, network)
    answers = document().document()["answers"]
    rows = [{"answer": name, **each} for name, each in answers.items()]
    tables = recommend_tables(result, network)
    give(options, Given(document=document, tables=lambda _: tables, rows=lambda: rows))
    if not result.answers:
        raise GateError(f"nothing here meets the goal; nearest comes {nearest_text(result)}")
