"""Calls the student's training function with a run's settings, and explains an early stop."""

import contextlib
import inspect
import shlex
import time
from collections.abc import Callable, Iterator

from torch import nn
from torch.utils.data import DataLoader

from pathlab.errors import UserError
from pathlab.training.recipes import make_schedule
from pathlab.training.run import Run


def train(
    function: Callable[..., dict[str, list[float]]],
    model: nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    criterion: nn.Module,
    run: Run,
) -> dict[str, list[float]]:
    """The history that `function` returns, which is train_model or train_segmentation_model.

    A function with only the seven arguments of the original course works too; its run keeps the
    final weights, and has no schedule, no early stopping and no way to resume.
    """
    settings, steps = run.config, run.steps
    budget = (settings["epochs"], settings["learning_rate"], settings["weight_decay"], steps)
    with explain_early_end(run):
        if "run" in inspect.signature(function).parameters:
            return function(
                model,
                train_loader,
                val_loader,
                *budget,
                criterion=run.record_losses(criterion),
                schedule=make_schedule(settings["schedule"], steps * settings["epochs"]),
                patience=settings["patience"],
                run=run,
            )
        print(
            f"note: {function.__name__} has no argument `run`, so only its final weights are kept: "
            "no schedule, no early stopping, and --resume starts from the beginning."
        )
        began = time.perf_counter()
        history = function(model, train_loader, val_loader, *budget)
        run.keep_final(model, history, time.perf_counter() - began)
        return history


@contextlib.contextmanager
def explain_early_end(run: Run) -> Iterator[None]:
    """Wraps a training: says how to continue after Ctrl-C, and what may have made a loss NaN."""
    try:
        yield
    except KeyboardInterrupt:
        epochs = len(run.log["seconds"])
        raise KeyboardInterrupt(
            f"{epochs} finished epochs are saved. Continue after the last of them with:\n"
            f"  python {run.config['task']}_main.py --resume {shlex.quote(str(run.folder))}"
        ) from None
    except FloatingPointError as error:
        rate = run.config["learning_rate"]
        raise UserError(
            f"training stopped: {error}. The usual cause is a learning rate that is too high: "
            f"yours is {rate:g}, try --learning-rate {rate / 10:g}. Other causes: a division by "
            "zero or a log of zero in the model or the loss. "
            f"The epochs before that are in {run.folder}."
        ) from error
