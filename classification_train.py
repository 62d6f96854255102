"""Part 1: the training loop of a classifier.

What you write stands between ### BEGIN SOLUTION and ### END SOLUTION.
"""

import math
from collections.abc import Callable
from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm


def train_epoch(
    model: nn.Module,
    train_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    criterion: nn.Module,
    device: torch.device,
    max_steps: int | None = None,
    *,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> tuple[float, float]:
    """Train for one epoch, or for `max_steps` batches if that is less.

    For every batch: move images [B, 3, 28, 28] and labels [B] to `device`, compute the logits and
    the loss, set the gradients to zero, go backward, step the optimizer, and then the scheduler if
    there is one. The model is in training mode. max_steps None means all batches.

    On a GPU the model runs in bfloat16 where that is safe (torch.autocast); the loss is computed
    outside of that, from float32 logits. Raises FloatingPointError if the loss is not finite,
    before it reaches the weights. A tqdm bar shows loss and accuracy so far.

    Returns (loss, accuracy): means over all images seen, accuracy in [0, 1]. A batch that is
    smaller than the others counts less.
    """
    ### BEGIN SOLUTION
    model.train()
    device = torch.device(device)
    total_loss, total_correct, seen = 0.0, 0, 0
    steps = len(train_loader) if max_steps is None else min(max_steps, len(train_loader))
    bar = tqdm(islice(train_loader, steps), total=steps, desc="train", leave=False, disable=None)
    for images, labels in bar:
        images, labels = images.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images)
        loss = criterion(logits.float(), labels)
        value = loss.item()  # leaves the device once a step
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value}")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()

        seen += len(labels)
        total_loss += value * len(labels)
        total_correct += (logits.argmax(dim=1) == labels).sum().item()
        bar.set_postfix(loss=f"{total_loss / seen:.3f}", acc=f"{total_correct / seen:.3f}")
    return total_loss / seen, total_correct / seen
    ### END SOLUTION


@torch.no_grad()
def validate_epoch(
    model: nn.Module, val_loader: DataLoader, criterion: nn.Module, device: torch.device
) -> tuple[float, float]:
    """Measure the model on all of `val_loader` without changing it.

    The model is in evaluation mode and no gradients are recorded (the decorator above ensures
    that). Device, bfloat16 and bar are as in train_epoch. Returns (loss, accuracy): means over all
    images, accuracy in [0, 1].
    """
    ### BEGIN SOLUTION
    model.eval()
    device = torch.device(device)
    total_loss, total_correct, seen = 0.0, 0, 0
    for images, labels in tqdm(val_loader, desc="validate", leave=False, disable=None):
        images, labels = images.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images)
        seen += len(labels)
        total_loss += criterion(logits.float(), labels).item() * len(labels)
        total_correct += (logits.argmax(dim=1) == labels).sum().item()
    return total_loss / seen, total_correct / seen
    ### END SOLUTION


def has_stalled(values: list[float], patience: int | None) -> bool:
    """Whether the best value is `patience` epochs old, or older (provided). Never if None."""
    return bool(values and patience) and len(values) - 1 - values.index(max(values)) >= patience


def train_model(
    model: nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    max_steps_per_epoch: int | None = 100,
    *,
    criterion: nn.Module | None = None,
    schedule: Callable[[int], float] | None = None,
    patience: int | None = None,
    run=None,
) -> dict[str, list[float]]:
    """Train with AdamW and validate after every epoch, on the device that the model is on.

    criterion: the loss; cross-entropy if None.
    schedule: the learning rate at step s is learning_rate * schedule(s); constant if None.
    patience: stop when val_acc has not improved for so many epochs; never if None.
    run: a folder that keeps the training (pathlab/training/run.py). `run.resume` loads what it has,
        `run.end_epoch` saves; both take (model, optimizer, scheduler, train_loader, history).

    Make the history with four empty lists, the optimizer, and a LambdaLR scheduler that is stepped
    with every batch. If there is a run, let it resume once: it may load the state of an interrupted
    training and fill the history. Then, until the history has `epochs` entries or has_stalled says
    so: train one epoch, validate, append to the history, and let the run end the epoch.

    Returns the history: lists `train_loss`, `train_acc`, `val_loss`, `val_acc`, one entry an epoch.
    """
    ### BEGIN SOLUTION
    device = next(model.parameters()).device
    criterion = criterion or nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: 1.0))
    history = {"train_loss": [], "train_acc": [], "val_loss": [], "val_acc": []}
    if run is not None:
        run.resume(model, optimizer, scheduler, train_loader, history)

    while len(history["val_acc"]) < epochs and not has_stalled(history["val_acc"], patience):
        train_loss, train_acc = train_epoch(
            model,
            train_loader,
            optimizer,
            criterion,
            device,
            max_steps_per_epoch,
            scheduler=scheduler,
        )
        val_loss, val_acc = validate_epoch(model, val_loader, criterion, device)
        history["train_loss"].append(train_loss)
        history["train_acc"].append(train_acc)
        history["val_loss"].append(val_loss)
        history["val_acc"].append(val_acc)
        if run is not None:
            run.end_epoch(model, optimizer, scheduler, train_loader, history)
    return history
    ### END SOLUTION
