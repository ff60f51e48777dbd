"""Records as the JSON documents that scripts rely on; keys may be added, never renamed."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from alexsim.plan.fit import Fit
from alexsim.plan.records import Plan
from alexsim.plan.spec import WORDS
from alexsim.plan.tables import FlopTable, memory_table
from alexsim.recipe.file import recipe_table
from alexsim.simulate.records import ILSVRC_EPOCHS, ILSVRC_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from alexsim.profile.calibrate import Check
    from alexsim.recipe.recipe import Recipe
    from alexsim.recipe.stages import StageTimes, Training
    from alexsim.report.page.inputs import Subject
    from alexsim.simulate.costs.measured import Calibration
    from alexsim.simulate.judging import Group, Summary
    from alexsim.simulate.pareto import Point
    from alexsim.simulate.records import Simulation
    from alexsim.simulate.rows import Excluded
    from alexsim.simulate.sensitivity import Sensitivity
    from alexsim.train.records import TrainResult
    from alexsim_kernels.code import KernelCode

SCHEMA = 1


def head(network: str, batch_size: int) -> dict[str, Any]:
    """What every document on a network begins with."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "network": network,
        "batch_size": batch_size,
    }


def flops_document(table: FlopTable) -> dict[str, Any]:
    """``alexsim flops --json``."""
    return head(table.network.name, table.batch_size) | {
        "parameters": table.network.parameters,
        "neurons": table.network.neurons,
        "mac": table.mac,
        "flop": table.flop,
        "training_flop": table.training_flop,
        "elementwise_flop": sum(layer.elementwise_flop for layer in table.layers),
        "layers": [
            {
                "name": layer.name,
                "parameters": layer.parameters,
                "mac": layer.mac,
                "flop": layer.flop,
                "grad_input_flop": layer.grad_input_flop,
                "grad_weight_flop": layer.grad_weight_flop,
                "update_flop": layer.update_flop,
                "elementwise_flop": layer.elementwise_flop,
                "bytes": layer.bytes,
            }
            for layer in table.layers
        ],
    }


def words_of(plan: Plan) -> dict[str, Any]:
    """Every choice of the plan that is a word; empty where none was made."""
    return {name: getattr(plan.spec, name) for name in WORDS}


def memory_document(plan: Plan, verdict: Fit, *, context_bytes: int) -> dict[str, Any]:
    """``alexsim memory --json``."""
    return (
        head(plan.network.name, plan.images)
        | words_of(plan)
        | {
            "budget_bytes": verdict.budget_bytes,
            "fits": verdict.fits,
            "devices": [
                {
                    "name": device.name,
                    "total_bytes": device.total_bytes,
                    "by_category": device.by_category,
                    "by_layer": device.by_layer,
                }
                for device in memory_table(plan, context_bytes=context_bytes)
            ],
            "exchanged_bytes_per_step": plan.exchanged_bytes,
            "largest_batch_size": verdict.largest_batch_size,
            "suggestions": list(verdict.suggestions),
        }
    )


def simulation_document(simulation: Simulation, training: Training) -> dict[str, Any]:
    """``alexsim simulate --json``; with ``stages`` where the training follows a recipe."""
    interval = training.days_interval
    followed = {"recipe": training.recipe, "stages": stages_rows(training.stages)}
    return (
        head(simulation.network, simulation.batch_size)
        | {
            "machine": simulation.machine,
            "library": simulation.library,
            "partition": simulation.partition,
            "replicas": simulation.replicas,
            "gpus": simulation.devices_count,
            "step_s": simulation.step_s,
            "step_s_interval": [simulation.step_interval.low, simulation.step_interval.high],
            **step_parts(simulation),
            "images_per_s": simulation.images_per_s,
            "forward_s": simulation.forward_s,
            "backward_s": simulation.backward_s,
            "training_days": training.days,
            "training_days_interval": [interval.low, interval.high],
            "ideal_forward_images_per_s": simulation.ideal_forward_images_per_s,
            "ideal_training_images_per_s": simulation.ideal_training_images_per_s,
            "utilisation": simulation.utilisation,
            "utilisation_counts": simulation.utilisation_counts,
            "multiply_adds_over_direct": simulation.done_share,
            "host_s": simulation.host_s,
            "all_reduce_s": simulation.all_reduce_s,
            "fits": simulation.fits,
            "energy_kwh": training.days * 24 * simulation.power_w / 1e3,
            "price_usd": simulation.price_usd,
            "devices": [
                {
                    "name": device.name,
                    "busy_s": device.busy_s,
                    "idle_s": device.idle_s,
                    "exchange_s": device.exchange_s,
                    "upload_s": device.upload_s,
                    "exposed_exchange_s": device.exposed_exchange_s,
                    "exposed_all_reduce_s": device.exposed_all_reduce_s,
                    "exposed_upload_s": device.exposed_upload_s,
                    "memory_bytes": device.memory_bytes,
                }
                for device in simulation.devices
            ],
            "exchanges": [
                {
                    "name": exchange.name,
                    "source": exchange.source,
                    "target": exchange.target,
                    "bytes": exchange.size_bytes,
                    "seconds": exchange.seconds,
                }
                for exchange in simulation.exchanges
            ],
            "layers": [
                {
                    "name": layer.name,
                    "device": layer.device,
                    "forward_s": layer.forward_s,
                    "grad_input_s": layer.grad_input_s,
                    "grad_weight_s": layer.grad_weight_s,
                    "update_s": layer.update_s,
                    "limit": layer.limit,
                }
                for layer in simulation.layers
            ],
            "ops": [
                {
                    "id": op.name,
                    "device": op.device,
                    "kind": op.kind,
                    "seconds": op.seconds,
                    "limit": op.limit,
                    "flop": op.flop,
                }
                for op in simulation.ops
            ],
            "critical_path": [
                {
                    "id": span.op_id,
                    "device": span.device,
                    "queue": span.queue,
                    "start_s": span.start_s,
                    "end_s": span.end_s,
                }
                for span in simulation.critical_path
            ],
        }
        | (followed if training.stages else {})
    )


def step_parts(simulation: Simulation) -> dict[str, Any]:
    """What a simulated step's time is made of: every document that has the step has these."""
    path = simulation.data_path
    return {
        "step_without_data_s": simulation.step_without_data_s,
        "data_path": None
        if path is None
        else {
            "side": path.side,
            "images_per_s": path.images_per_s,
            "seconds": path.seconds,
            **{f"{stage}_s": seconds for stage, seconds in path.stages.items()},
        },
        "bound": "data path" if simulation.data_bound else "GPUs",
    }


def sensitivity_rows(rows: Sequence[Sensitivity]) -> list[dict[str, Any]]:
    """``sensitivity`` of ``alexsim simulate --sensitivity --json``."""
    return [
        {"assumption": row.assumption, "change": row.change, "ratio": row.ratio} for row in rows
    ]


def sweep_document(points: Sequence[Point], *, images: int, epochs: int) -> dict[str, Any]:
    """``alexsim sweep --json``."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "images": images,
        "epochs": epochs,
        "points": [
            {"settings": dict(point.settings), "error": point.error}
            if point.error
            else {
                "settings": dict(point.settings),
                "step_s": point.step_s,
                "step_s_interval": [point.low_s, point.high_s],
                "images_per_s": point.images_per_s,
                "training_days": point.training_days,
                "utilisation": point.utilisation,
                "utilisation_counts": point.utilisation_counts,
                "memory_bytes": point.memory_bytes,
                "fits": point.fits,
                "energy_kwh": point.energy_kwh,
                "price_usd": point.price_usd,
                "pareto": point.pareto,
            }
            for point in points
        ],
    }


def validation_document(
    summaries: Sequence[Summary], groups: Sequence[Group], excluded: Sequence[Excluded]
) -> dict[str, Any]:
    """``alexsim validate --json``."""
    predictions = [p for group in groups for p in group.predictions]
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "rows": len(predictions) + len(excluded),
        "predicted": len(predictions),
        "summaries": [_errors(summary) for summary in summaries],
        "groups": [
            {"device": group.device, "library": group.library}
            | _errors(group.summary)
            | {"roofline_mean_absolute_error": group.roofline.mean_absolute_error}
            for group in groups
            if group.summary.rows
        ],
        "predictions": [
            {
                "id": prediction.case.row.id,
                "unit": prediction.case.row.unit,
                "measured": prediction.case.row.value,
                "predicted": prediction.value,
                "interval": [prediction.low, prediction.high],
            }
            for prediction in predictions
        ],
        "excluded": [{"id": row.row.id, "why": row.why} for row in excluded],
    }


def _errors(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.name,
        "rows": summary.rows,
        "mean_absolute_error": summary.mean_absolute_error,
        "median_absolute_error": summary.median_absolute_error,
        "worst": summary.worst,
        "bias": summary.bias,
        "coverage": summary.coverage,
    }


def calibration_document(
    calibration: Calibration, checks: Sequence[Check], *, path: str
) -> dict[str, Any]:
    """``alexsim calibrate --json``."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "machine": calibration.machine,
        "threads": calibration.threads,
        "rounds": calibration.rounds,
        "date": calibration.date,
        "scatter": calibration.scatter,
        "flop_per_s": calibration.flop_per_s,
        "rates": [asdict(rate) for rate in calibration.rates],
        "path": path,
        "checks": [
            {
                "batch_size": row.batch_size,
                "name": row.name,
                "predicted_s": row.predicted_s,
                "measured_s": row.measured_s,
                "ratio_interval": [row.low, row.high],
            }
            for row in checks
        ],
    }


def kernels_document(found: Sequence[KernelCode], *, arch: int) -> dict[str, Any]:
    """``alexsim kernels --json``."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "arch": arch,
        "kernels": [asdict(code) for code in found],
    }


def page_document(subjects: Sequence[Subject], path: Path, size_bytes: int) -> dict[str, Any]:
    """``alexsim report --json``: what the page is on, and where it is."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "page": str(path),
        "bytes": size_bytes,
        "subjects": [
            {"name": one.name, "kind": one.kind, "network": one.document["network"]}
            for one in subjects
        ],
    }


def recipes_document(recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """``alexsim recipe list --json``."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "recipes": [{"name": name} | recipe_table(recipe) for name, recipe in recipes.items()],
    }


def stages_rows(stages: Sequence[StageTimes]) -> list[dict[str, Any]]:
    """``stages`` of ``alexsim simulate --recipe --json``."""
    return [
        {
            "from_epoch": one.stage.from_epoch,
            "epochs": one.epochs,
            "frozen": list(one.stage.frozen),
            "weight_rate": one.stage.weight_rate,
            "bias_rate": one.stage.bias_rate,
            "step_s": one.simulation.step_s,
            "days": one.days,
            "memory_bytes": {d.name: d.memory_bytes for d in one.simulation.devices},
        }
        for one in stages
    ]


def train_document(result: TrainResult, machine: str, simulated: Simulation) -> dict[str, Any]:
    """``alexsim train --json``."""
    settings, held_out = result.settings, result.held_out
    return head(settings.network, settings.batch_size) | {
        "steps": result.steps,
        "losses": list(result.losses),
        "held_out_loss": held_out.loss if held_out else None,
        "top1": held_out.top1 if held_out else None,
        "top5": held_out.top5 if held_out else None,
        "nan_images": held_out.nan_images if held_out else None,
        "validations": [
            {"step": line.step, "epoch": line.validation.epoch, "images": line.validation.images}
            | asdict(line.validation)
            for line in result.validations
        ],
        "images_per_s": result.images_per_s,
        "compute_images_per_s": result.compute_images_per_s,
        "data_share": result.data_share,
        "threads": settings.threads,
        "devices": [
            {
                "name": name,
                "budget_bytes": budget,
                "peak_bytes": peak,
                "process_bytes": result.process_bytes.get(name),
            }
            for name, budget, peak in result.devices
        ],
        "exchanged_bytes_per_step": result.exchanged_bytes_per_step,
        "reduced_bytes_per_step": result.reduced_bytes_per_step,
        "simulated": {
            "machine": machine,
            "library": simulated.library,
            "step_s": simulated.step_s,
            **step_parts(simulated),
            "images_per_s": simulated.images_per_s,
            # A full run as the paper did it, whatever data this one had.
            "training_days": simulated.training_days(ILSVRC_IMAGES, ILSVRC_EPOCHS),
        },
        "cards": list(result.cards),
        "joules_per_image": result.joules_per_image,
        "broken_files": list(result.broken),
        "interrupted": result.interrupted,
        "run_dir": result.run_dir,
    }
