"""The folder of one training: its settings, its figures, and all that resuming needs."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from pathlab.data.sets import ImageData
from pathlab.errors import UserError
from pathlab.files import (
    make_folder,
    make_next_folder,
    remove_leftovers,
    write_atomically,
    write_json,
)
from pathlab.settings import check_same, read_settings
from pathlab.training.checkpoint import load_state, load_weights, save_state, save_weights
from pathlab.training.recipes import RECIPES

RUNS = Path("runs")
CHECKPOINT, BEST, CONFIG = "last.pt", "best.safetensors", "config.json"
RESULTS, METRICS = "results.json", "metrics.csv"

History = dict[str, list[float]]


class Run:
    """Keeps a training in a folder; train_model calls `resume` once and `end_epoch` every epoch.

    folder: where; None is the next free one of runs/TASK-MODEL-1, -2, ...
    settings: what identifies the run (cli.resolve_settings), kept in config.json together with the
        name, source and number of classes of `data`.
    metric: the history's list to maximise, "val_acc" or "val_iou".
    started: time.perf_counter() when the program began; now, if None.

    best.safetensors has the weights to use: those of the metric's best epoch, or of the last one if
    the settings say `keep` "last". last.pt has the whole state after the last epoch.

    Everything is written whole or not at all. best.safetensors is written before last.pt, so that
    a run killed between the two repeats the epoch and writes the same weights again.
    """

    def __init__(
        self,
        folder: Path | None,
        settings: dict,
        data: ImageData,
        metric: str,
        started: float | None = None,
    ):
        self.started = started or time.perf_counter()
        self.folder = folder or make_next_folder(RUNS / f"{settings['task']}-{settings['model']}")
        self.metric, self.data = metric, data
        about = {"num_classes": data.num_classes, "data_source": data.source}
        about["images"] = [len(labels) for labels in data.labels.values()]
        if data.source != "file":
            about["dataset"] = data.name  # what "auto" turned out to be
        if "images" in settings:  # an earlier run's settings
            check_same(
                {name: settings.get(name) for name in about},
                about,
                problem=f"{self.folder} was trained on other data",
                advice="Use the same data, or start again in another --output-dir.",
            )
        self.config = {**settings, **about}
        # One entry an epoch: the rate after its last step, its training and validation time.
        self.log: dict[str, list[float]] = {"learning_rate": [], "seconds": []}
        self.step_losses: list[float] = []  # one entry a training step, of finished epochs
        self.epoch_losses: list[torch.Tensor] = []  # the same of the epoch that runs
        self.earlier_seconds = 0.0  # spent before this process took the run over
        make_folder(self.folder)
        remove_leftovers(self.folder)
        write_json(self.folder / CONFIG, self.config)

    def announce(self, parameters: int, device: torch.device, train_loader: DataLoader) -> None:
        """Print what is about to be trained, on what, and where it is kept."""
        config, batches = self.config, len(train_loader)
        self.steps = min(config["max_steps"] or batches, batches)  # of an epoch; 0 means all
        self.about = {"parameters": parameters, "device": str(device)}
        sizes = " / ".join(f"{len(self.data.labels[split]):,}" for split in self.data.labels)
        print(
            f"{config['model']}: {parameters:,} parameters, on {device} "
            f"(threads: {torch.get_num_threads()})\n"
            f"{self.data.name}: {sizes} images (train / validation / test), "
            f"{self.data.num_classes} classes\n"
            f"recipe {config['recipe']}, seed {config['seed']} -> {self.folder}",
            flush=True,
        )

    def record_losses(self, criterion: nn.Module) -> nn.Module:
        """The same loss, which also keeps its value at every training step, for the curves."""
        return _RecordingLoss(criterion, self)

    def resume(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        train_loader: Any,
        history: History,
    ) -> None:
        """Load last.pt into the given objects, if there is one, and start the clock.

        train_loader: a DataLoader whose sampler has `epoch` and `set_epoch`.

        Raises UserError if it belongs to another model or cannot be read.
        """
        path = self.folder / CHECKPOINT
        if path.is_file():
            parts = {"weights": model, "optimizer": optimizer, "scheduler": scheduler}
            state = load_state(path, self.config["model"], parts)
            train_loader.sampler.set_epoch(state["batches_epoch"])
            history.update(state["history"])
            self.log, self.step_losses = state["log"], state["step_losses"]
            self.earlier_seconds = sum(self.log["seconds"])
        self._epoch_began = time.perf_counter()

    def end_epoch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        train_loader: Any,
        history: History,
    ) -> None:
        """Save the state, and the weights if they are to be kept; print the epoch.

        Raises FloatingPointError for a figure that is not finite, and UserError for a full disk.
        """
        now = time.perf_counter()
        self.log["learning_rate"].append(optimizer.param_groups[0]["lr"])
        self.log["seconds"].append(now - self._epoch_began)
        self._epoch_began = now
        if not all(math.isfinite(values[-1]) for values in history.values()):
            raise FloatingPointError("the validation loss is not a finite number")
        if self.epoch_losses:
            self.step_losses += torch.stack(self.epoch_losses).tolist()
            self.epoch_losses = []
        values = history[self.metric]
        if self.config["keep"] == "last" or values[-1] > max(values[:-1], default=-math.inf):
            self._write_weights(model)
        state = {"batches_epoch": train_loader.sampler.epoch, "history": history}
        state |= {"log": self.log, "step_losses": self.step_losses}
        parts = {"weights": model, "optimizer": optimizer, "scheduler": scheduler}
        save_state(self.folder / CHECKPOINT, self.config["model"], parts, state)
        self._write_metrics({**history, **self.log})
        figures = "  ".join(f"{name} {values[-1]:.4f}" for name, values in history.items())
        print(f"epoch {len(values):3d}  {figures}  ({self.log['seconds'][-1]:.1f} s)", flush=True)

    def keep_final(self, model: nn.Module, history: History, seconds: float) -> None:
        """Instead of end_epoch after every epoch: keep what a whole training has ended with.

        seconds: the time it took. Raises UserError for a history without the metric's list, and
        FloatingPointError for weights that are not finite numbers any more.
        """
        if not (isinstance(history, dict) and history.get(self.metric)):
            raise UserError(
                f"the training returned {type(history).__name__}, expected a dict of lists with "
                f"one entry an epoch, {self.metric!r} among them."
            )
        if not all(torch.isfinite(t).all() for t in model.state_dict().values()):
            raise FloatingPointError("the trained weights are not finite numbers")
        epochs = len(history[self.metric])
        self.log["learning_rate"] = [self.config["learning_rate"]] * epochs
        self.log["seconds"] = [seconds / epochs] * epochs
        self.config["keep"] = "last"
        self._write_weights(model)
        self._write_metrics({**history, **self.log})

    def load_kept(self, model: nn.Module) -> None:
        """Load the kept weights into `model`. Raises UserError if they cannot be read."""
        load_weights(self.folder / BEST, model)

    def write_results(self, history: History, **test_scores: float | None) -> None:
        """Write results.json, the sign that the run is finished, and print the scores.

        images_per_second counts training and validation images together, as train_seconds covers
        both.
        """
        config, epochs = self.config, len(history[self.metric])
        train_seconds = sum(self.log["seconds"])
        images = self.steps * config["batch_size"] + len(self.data.labels["val"])
        results = {
            **config,
            "dataset": self.data.name,
            **self.about,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "epochs": epochs,
            "steps": epochs * self.steps,
            self.metric: history[self.metric][-1],
            f"best_{self.metric}": max(history[self.metric]),
            "kept_epoch": self._kept_epoch(history),
            **test_scores,
            "train_seconds": train_seconds,
            "total_seconds": self.earlier_seconds + time.perf_counter() - self.started,
            "images_per_second": epochs * images / train_seconds,
        }
        write_json(self.folder / RESULTS, results)
        names = [f"best_{self.metric}", *test_scores]
        scores = "  ".join(f"{n} {results[n]:.4f}" for n in names if results[n] is not None)
        print(f"{scores}\n{results['total_seconds']:.0f} s in all. The run is in {self.folder}:")
        print("  " + "  ".join(sorted(path.name for path in self.folder.iterdir())))

    def _kept_epoch(self, history: History) -> int:
        """Whose weights are in best.safetensors, from 1."""
        values = history[self.metric]
        return len(values) if self.config["keep"] == "last" else 1 + values.index(max(values))

    def _write_weights(self, model: nn.Module) -> None:
        about = {"model": self.config["model"], "num_classes": str(self.config["num_classes"])}
        save_weights(self.folder / BEST, model, about)

    def _write_metrics(self, columns: dict[str, list[float]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["epoch", *columns])
        rows = zip(*columns.values(), strict=True)
        writer.writerows([epoch, *row] for epoch, row in enumerate(rows, start=1))
        write_atomically(self.folder / METRICS, text.getvalue().encode())


class _RecordingLoss(nn.Module):
    def __init__(self, criterion: nn.Module, run: Run):
        super().__init__()
        self.criterion, self.run = criterion, run

    def forward(self, predictions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = self.criterion(predictions, targets)
        if loss.requires_grad:  # training; validation records no gradients
            self.run.epoch_losses.append(loss.detach())  # still on the device: no wait
        return loss


def read_config(folder: Path) -> dict:
    """config.json of an earlier run. Raises UserError where there is none, or not all of it."""
    advice = "--resume takes the folder of an earlier run, as that run printed it."
    config = read_settings(folder / CONFIG, advice, ("task", "model", "dataset", "images"))
    names = RECIPES.get(config["task"], RECIPES["classification"])["explore"]
    return read_settings(folder / CONFIG, advice, names)
