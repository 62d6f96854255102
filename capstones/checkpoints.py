"""The best weights of a training: one file with all that it takes to use them.

A dictionary of tensors and plain values, which torch.load reads with weights_only=True:

- model_state_dict, optimizer_state_dict
- epoch: counted from 0; best_METRIC: the monitored metric of that epoch; metrics: all of them
- settings: what the system needs to rebuild the model and to prepare images
"""

from pathlib import Path

import torch
from torch import nn

from pathlab.errors import UserError
from pathlab.training.checkpoint import write_torch


def best_path(run: Path, name: str) -> Path:
    """Where the best weights of the training `name` stand in a run's folder."""
    return run / "checkpoints" / f"{name}_best.pth"


def save_best(
    path: Path,
    model: nn.Module,
    *,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    monitor: str,
    metrics: dict[str, float],
    settings: dict,
) -> None:
    """Write the file atomically. Raises UserError if it cannot be written."""
    write_torch(
        path,
        {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "epoch": epoch,
            f"best_{monitor.removeprefix('val_')}": metrics[monitor],
            "metrics": {name.removeprefix("val_"): value for name, value in metrics.items()},
            "settings": settings,
        },
    )


def load_best(run: Path, name: str) -> dict:
    """The dictionary, its tensors on the CPU.

    Raises UserError where the file is missing or is not such a dictionary.
    """
    path = best_path(run, name)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["model_state_dict"], checkpoint["settings"]
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}: train first, or name the run's folder with --run."
        ) from None
    except Exception as error:  # whatever torch finds wrong with a file that is not its own
        raise UserError(
            f"{path} is not a checkpoint of the capstones, or damaged ({error}). Train again."
        ) from error
    return checkpoint


def load_weights(model: nn.Module, checkpoint: dict) -> nn.Module:
    """The model with the checkpoint's weights. Raises UserError where they do not fit."""
    try:
        model.load_state_dict(checkpoint["model_state_dict"])
    except RuntimeError as error:
        raise UserError(
            "the weights do not fit the model that their settings describe: "
            f"{str(error).splitlines()[0]} Train again with this version."
        ) from error
    return model.eval()
