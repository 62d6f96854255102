"""The two files of a training: its best weights, and the whole state that resuming needs.

NAME_best.pth is a dictionary of tensors and plain values, which torch.load reads with
weights_only=True:

- model_state_dict, optimizer_state_dict
- epoch: counted from 0; best_METRIC: the monitored metric of that epoch; metrics: all of them
- settings: what the system needs to rebuild the model and to prepare images

NAME_last.ckpt is Lightning's own.
"""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from pathlab.errors import UserError
from pathlab.files import make_folder
from pathlab.training.checkpoint import write_torch


def best_path(run: Path, name: str) -> Path:
    """Where the best weights of the training `name` stand in a run's folder."""
    return run / "checkpoints" / f"{name}_best.pth"


def last_path(run: Path, name: str) -> Path:
    """Where the state after the last complete epoch of the training `name` stands."""
    return run / "checkpoints" / f"{name}_last.ckpt"


class BestCheckpoint(Callback):
    """Writes NAME_best.pth whenever the monitored metric is better than ever before.

    monitor: as it is logged in validation, such as "val_loss"; mode: "max" or "min". settings: what
    it takes to rebuild the model, plain values.
    """

    def __init__(self, path: Path, monitor: str, mode: str, settings: dict) -> None:
        self.path, self.monitor, self.mode, self.settings = path, monitor, mode, settings
        self.best: float | None = None

    def on_validation_end(self, trainer: L.Trainer, module: Any) -> None:
        """Write the file, in the main process alone, after a validation that was the best."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {
            name.removeprefix("val_"): float(value)
            for name, value in trainer.callback_metrics.items()
        }
        monitor = self.monitor.removeprefix("val_")
        sign = 1 if self.mode == "max" else -1
        if self.best is not None and not sign * metrics[monitor] > sign * self.best:
            return
        self.best = metrics[monitor]
        write_torch(
            self.path,
            {
                "model_state_dict": module.model.state_dict(),
                "optimizer_state_dict": trainer.optimizers[0].state_dict(),
                "epoch": trainer.current_epoch,
                f"best_{monitor}": self.best,
                "metrics": metrics,
                "settings": self.settings,
            },
        )

    def state_dict(self) -> dict:
        """Kept in NAME_last.ckpt."""
        return {"best": self.best}

    def load_state_dict(self, state: dict) -> None:
        """From NAME_last.ckpt."""
        self.best = state["best"]


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the old file and renames. Lightning's own way copies from the folder for
    temporary files, which often is another disk: a process killed meanwhile would leave half a
    checkpoint."""

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: Any = None
    ) -> None:
        """Raises UserError if the file cannot be written."""
        make_folder(Path(path).parent)
        write_torch(Path(path), checkpoint)


def load_best(run: Path, name: str) -> dict:
    """The dictionary in NAME_best.pth, its tensors on the CPU.

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
    """The model with the checkpoint's weights, in evaluation mode.

    Raises UserError where they do not fit.
    """
    try:
        model.load_state_dict(checkpoint["model_state_dict"])
    except RuntimeError as error:
        raise UserError(
            "the weights do not fit the model that their settings describe: "
            f"{str(error).splitlines()[0]} Train again with this version."
        ) from error
    return model.eval()


def check_readable(path: Path) -> None:
    """Raises UserError where NAME_last.ckpt is damaged."""
    try:
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # whatever torch finds wrong with a file that is not its own
        raise UserError(
            f"{path} is damaged ({str(error).splitlines()[0]}), so that this training cannot go "
            "on. Its best weights may still be good; train anew in another --run."
        ) from error
