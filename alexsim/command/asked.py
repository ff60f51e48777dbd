"""What a command line asks of a plan: fused layers, and which choices could have been left out."""

from __future__ import annotations

from dataclasses import fields, replace

from alexsim.errors import PlanError
from alexsim.network.update_rules import Optimizer
from alexsim.plan.choices import TransportName
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec


def fused(given: bool | None, spec: PlanSpec) -> PlanSpec:
    """The spec with its layers fused, if that was asked for, or is usual with its other choices.

    Raises:
        PlanError: it was asked for, and there is nothing to fuse; or not to, and nothing is.
    """
    usual = (spec.backend == "triton" or spec.triton_ops) and spec.policy == "reuse"
    if given is False and not usual:
        raise PlanError(
            "--no-fuse is for --backend triton with --policy reuse: elsewhere no layers are fused"
        )
    if given and not any(op.epilogue for op in plan(replace(spec, fusion="kernels")).ops()):
        kernels = f"of backend {spec.backend} " if spec.backend else ""
        raise PlanError(f"--fuse: no kernel {kernels}does two layers of {spec.network.name}")
    return replace(spec, fusion="kernels") if given or (usual and given is None) else spec


def undone(spec: PlanSpec, *names: str, **usual: str) -> dict[str, PlanSpec]:
    """By option, the spec without each of these choices that was made.

    Args:
        spec: what was asked for.
        names: the choices.
        usual: what is used unless an option says so, where that is not the spec's default.
    """
    defaults = {field.name: field.default for field in fields(spec)} | usual
    others = {}
    for name in names:
        given = getattr(spec, name)
        if given != defaults[name]:
            option = "--fuse" if name == "fusion" else f"--{name.replace('_', '-')}"
            value = f" {given}" if isinstance(given, str) and name != "fusion" else ""
            others[option + value] = replace(spec, **{name: defaults[name]})  # type: ignore[arg-type]
    return others


def other_choices(spec: PlanSpec, *, optimizer: Optimizer) -> dict[str, PlanSpec]:
    """The plan with the other choice, for each that was made.

    Args:
        spec: what was asked for.
        optimizer: what is used unless another is given.
    """
    others: dict[str, PlanSpec] = {}
    if spec.transport:
        other: TransportName = "peer" if spec.transport == "host" else "host"
        others[f"--transport {spec.transport}"] = replace(spec, transport=other)
    names = ("schedule", "policy", "fusion", "optimizer", "variable_batch")
    return others | undone(spec, *names, optimizer=optimizer)
