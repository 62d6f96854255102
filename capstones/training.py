"""Lightning, as all four systems use it: one fit, its logs and its checkpoints."""

import argparse
import contextlib
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from capstones.checkpoints import (
    AtomicCheckpoints,
    BestCheckpoint,
    best_path,
    check_readable,
    last_path,
)
from capstones.folder import write_table
from pathlab.errors import UserError
from pathlab.files import make_folder

# Between a student and the results stand no tips, and no advice on settings that are on purpose.
for _library in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_library).setLevel(logging.ERROR)
for _advice in (
    ".*does not have many workers.*",
    ".*[Cc]heckpoint directory .* exists and is not empty.*",
    ".*Detected call of `lr_scheduler.step.*",
    ".*`srun` command is available.*",
    ".*isinstance.treespec, LeafSpec.*",
):
    warnings.filterwarnings("ignore", _advice)


class Batches(L.LightningDataModule):
    """Training and validation batches of two data sets.

    train_set: a data set, or a function from the epoch (from 0) to one, for sizes that grow.
    weights: how often each training image is drawn, relative to the others; None: each once.

    Order and augmentation depend on the seed and the epoch alone, so that a resumed training sees
    what an uninterrupted one sees. A last training batch that is not full is left out, where it is
    not the only one: batch norm cannot take a batch of one.
    """

    def __init__(
        self,
        train_set: Dataset | Callable[[int], Dataset],
        val_set: Dataset,
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
        weights: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.train_set, self.val_set = train_set, val_set
        self.batch_size, self.workers, self.seed, self.weights = batch_size, workers, seed, weights

    def train_dataloader(self) -> DataLoader:
        """The batches of the trainer's current epoch."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        dataset: Any = (
            self.train_set if isinstance(self.train_set, Dataset) else self.train_set(epoch)
        )
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, epoch))
        sampler: Sampler = RandomSampler(dataset, generator=generator)
        if self.weights is not None:
            weights = self.weights.tolist()
            sampler = WeightedRandomSampler(weights, len(dataset), generator=generator)
        in_each_process = math.ceil(len(dataset) / self.trainer.world_size)
        return DataLoader(
            dataset,
            self.batch_size,
            # Lightning begins to iterate twice in an epoch, but once in the first and in a resumed
            # one. So the order is drawn here, once, and what a beginning draws is of no account:
            # it comes from a generator of its own, and workers have a seed of their own.
            sampler=list(sampler),
            generator=generator,
            num_workers=self.workers,
            worker_init_fn=partial(seed_worker, epoch_seed(self.seed, epoch)),
            drop_last=in_each_process > self.batch_size,
        )

    def val_dataloader(self) -> DataLoader:
        """The validation batches, in the data set's order."""
        return DataLoader(self.val_set, self.batch_size, num_workers=self.workers)


def epoch_seed(seed: int, epoch: int) -> int:
    """A different seed for each epoch of each run."""
    return seed * 100_003 + epoch


def seed_worker(seed: int, worker: int) -> None:
    """Seeds the augmentation in a process that loads images."""
    torch.manual_seed(seed * 1009 + worker)


class EpochSeed(Callback):
    """Seeds dropout, and augmentation in this process, anew for every epoch and process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Seed torch's global generator."""
        torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch) * 1009 + trainer.global_rank)


class EpochTable(Callback):
    """A line on the screen and a row of a CSV for each epoch: all metrics, the learning rate."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Print the line and write the table, in the main process alone."""
        if not trainer.is_global_zero:
            return
        metrics = {
            "learning_rate" if name.startswith("lr-") else name: round(float(value), 6)
            for name, value in trainer.callback_metrics.items()
        }
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {shown}", flush=True)
        row = {"epoch": trainer.current_epoch, **metrics}
        rows = pd.DataFrame([row])
        if trainer.current_epoch and self.path.exists():
            earlier = pd.read_csv(self.path)
            rows = pd.concat([earlier[earlier.epoch < trainer.current_epoch], rows])
        write_table(self.path, rows)


class Tracked(Protocol):
    """What `fit` has to know of a network.

    name: of its checkpoints. monitor: the metric, logged in validation, that decides which epoch is
    the best; mode: "max" or "min". table: where in the run's folder each epoch's metrics go.
    """

    name: str
    monitor: str
    mode: str
    table: str


def fit(
    module: L.LightningModule,
    batches: Batches,
    args: argparse.Namespace,
    network: Tracked,
    settings: dict,
) -> None:
    """Train module.model; its best weights go to RUN/checkpoints/NAME_best.pth.

    args: the shared training and data flags. settings: what it takes to rebuild the model, plain
    values. Beside the best weights stand NAME_last.ckpt, with which --resume goes on, and
    TensorBoard's logs.

    Raises KeyboardInterrupt, with advice, if it was stopped; UserError for a device that is not
    there, too little memory, or a loss that is not a number.
    """
    table, last = args.run / network.table, last_path(args.run, network.name)
    make_folder(last.parent)
    make_folder(table.parent)
    resume = last if args.resume and last.exists() else None
    if resume:
        check_readable(resume)
    trainer = make_trainer(
        args,
        max_epochs=args.epochs,
        gradient_clip_val=args.clip or None,
        accumulate_grad_batches=args.accumulate,
        callbacks=_callbacks(args, network, settings),
        plugins=[AtomicCheckpoints()],
        logger=TensorBoardLogger(args.run, name="tensorboard", version=network.name),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    with explained(f"--resume goes on after the last complete epoch of {args.run}"):
        trainer.fit(module, datamodule=batches, ckpt_path=resume, weights_only=True)
    print(
        f"{network.name}: the best weights are in {best_path(args.run, network.name)}, each "
        f"epoch's metrics in {table}"
    )


def _callbacks(args: argparse.Namespace, network: Tracked, settings: dict) -> list[Callback]:
    best, last = best_path(args.run, network.name), last_path(args.run, network.name)
    callbacks: list[Callback] = [
        BestCheckpoint(best, network.monitor, network.mode, settings),
        EpochTable(args.run / network.table),
        EpochSeed(args.seed),
        LearningRateMonitor("epoch"),
    ]
    if args.patience:
        callbacks.append(EarlyStopping(network.monitor, mode=network.mode, patience=args.patience))
    # Last of all: what it saves of the other callbacks is then this epoch's.
    whole_state = ModelCheckpoint(
        last.parent,
        last.stem,
        save_top_k=1,
        every_n_epochs=1,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    return [*callbacks, whole_state]


def make_trainer(args: argparse.Namespace, **options: Any) -> L.Trainer:
    """A Lightning trainer for the shared flags. Raises UserError for a device that is not there."""
    precision = args.precision
    if precision == "auto":
        cuda = args.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        precision = "16-mixed" if cuda else "32"
    try:
        return L.Trainer(
            accelerator=args.accelerator,
            devices=args.devices,
            num_nodes=args.nodes,
            precision=precision,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            **options,
        )
    except (MisconfigurationException, ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"--accelerator {args.accelerator} --devices {args.devices} cannot be used here "
            f"({str(error).splitlines()[0]}). Leave both out to take one that works."
        ) from error


def predict(
    module: L.LightningModule, dataset: Dataset, args: argparse.Namespace, batch_size: int
) -> list:
    """What module.predict_step returns for each batch of the data set, in its order.

    One process on one device: the results are needed in one place. Raises as fit.
    """
    one = argparse.Namespace(**{**vars(args), "devices": 1, "nodes": 1})
    trainer = make_trainer(one, logger=False, enable_checkpointing=False)
    loader = DataLoader(dataset, batch_size, num_workers=args.workers)
    with explained("nothing was written"):
        return trainer.predict(module, loader) or []


@contextlib.contextmanager
def explained(after_interrupt: str) -> Iterator[None]:
    """Lightning's exit on Ctrl-C, and a GPU without memory, in words of our own.

    Raises KeyboardInterrupt with the text `after_interrupt`, or UserError.
    """
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt(after_interrupt) from error
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            "the GPU has too little memory for this batch. Halve --batch-size and double "
            "--accumulate: the optimizer then sees the same number of images in each step."
        ) from error
