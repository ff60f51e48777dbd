"""Records as the JSON documents that scripts rely on; keys may be added, never renamed."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from alexsim.plan.fit import Fit
from alexsim.plan.records import Plan
from alexsim.plan.tables import FlopTable, memory_table

if TYPE_CHECKING:
    from alexsim.train.records import TrainResult

SCHEMA = 1


def _head(network: str, batch_size: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "network": network,
        "batch_size": batch_size,
    }


def flops_document(table: FlopTable) -> dict[str, Any]:
    """``alexsim flops --json``."""
    return _head(table.network.name, table.batch_size) | {
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


def memory_document(plan: Plan, verdict: Fit, *, context_bytes: int) -> dict[str, Any]:
    """``alexsim memory --json``."""
    return _head(plan.network.name, plan.batch_size) | {
        "policy": plan.policy,
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


def train_document(result: TrainResult) -> dict[str, Any]:
    """``alexsim train --json``."""
    settings, held_out = result.settings, result.held_out
    return _head(settings.network, settings.batch_size) | {
        "steps": result.steps,
        "losses": list(result.losses),
        "held_out_loss": held_out.loss if held_out else None,
        "top1": held_out.top1 if held_out else None,
        "top5": held_out.top5 if held_out else None,
        "images_per_s": result.images_per_s,
        "compute_images_per_s": result.compute_images_per_s,
        "data_share": result.data_share,
        "threads": settings.threads,
        "devices": [
            {"name": name, "budget_bytes": budget, "peak_bytes": peak}
            for name, budget, peak in result.devices
        ],
        "exchanged_bytes_per_step": result.exchanged_bytes_per_step,
        "broken_files": list(result.broken),
        "interrupted": result.interrupted,
        "run_dir": result.run_dir,
    }
