"""Where a run's metrics are exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexsim.command.fields import Options, option


@dataclass(frozen=True, kw_only=True)
class TrackerOptions(Options):
    """Experiment trackers."""

    tensorboard: Path | None = option(
        "DIR",
        "Export each run's metrics for TensorBoard, into a folder of DIR; no page without -o.",
    )
    wandb: str | None = option(
        "PROJECT",
        "Send each run's metrics to a project of Weights & Biases; no page without -o.",
    )
