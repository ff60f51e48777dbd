"""A run sent to Weights & Biases."""

from __future__ import annotations

import os

from alexsim.errors import AlexsimError
from alexsim.page.trackers.series import Series


def check(runs: int) -> None:
    """Look at the environment before anything is read of so many runs.

    Raises:
        AlexsimError: it makes one run of several.
    """
    if runs > 1 and os.environ.get("WANDB_RUN_ID"):
        raise AlexsimError("--wandb: WANDB_RUN_ID names one run; export one at a time")


def send(series: Series, project: str) -> tuple[str, str]:
    """Make a run of W&B's of it, and return its address; or offline its folder, and what sends it.

    Who it belongs to, whether it is sent at once, and where it is kept until then is what W&B's
    environment and ``wandb login`` say: WANDB_ENTITY, WANDB_MODE, WANDB_DIR ...

    Raises:
        AlexsimError: W&B refuses it, or nothing would be sent.
    """
    import wandb

    # What it would note of this process and this machine is not what trained.
    quiet = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    try:
        run = wandb.init(project=project, name=series.name, config=series.settings, settings=quiet)
        if run.disabled:
            raise AlexsimError("--wandb: WANDB_MODE switches W&B off")
        with run:
            for row in series.rows:
                pictures = {tag: wandb.Image(each) for tag, each in row.pictures.items()}
                # W&B's own key for when a row was logged.
                run.log({**row.values, **pictures, "_timestamp": row.wall_s}, step=row.step)
            address, folder = run.url, run.settings.sync_dir
    except (wandb.Error, ValueError) as error:
        raise AlexsimError(f"--wandb: {' '.join(str(error).split())}") from error
    return (address, "") if address else (folder, f"wandb sync {folder}")
