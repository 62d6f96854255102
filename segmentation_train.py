"""Part 2: the training loop of a segmenter, and how to score and show its masks.

What you write stands between ### BEGIN SOLUTION and ### END SOLUTION.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from segmentation_models import CombinedLoss, calculate_iou


def train_segmentation_epoch(
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

    A batch is a dict with `image` [B, 3, 28, 28] and `mask` [B, 1, 28, 28]; the model returns
    probabilities [B, 1, 28, 28]. Otherwise as classification_train.train_epoch.

    Raises FloatingPointError if a probability is not finite, before the loss is computed (BCELoss
    accepts nothing outside of [0, 1]). Returns (loss, IoU): means over all images seen, IoU in
    [0, 1]. A batch that is smaller than the others counts less.
    """
    ### BEGIN SOLUTION
    model.train()
    device = torch.device(device)
    total_loss, total_iou, seen = 0.0, 0.0, 0
    steps = len(train_loader) if max_steps is None else min(max_steps, len(train_loader))
    bar = tqdm(islice(train_loader, steps), total=steps, desc="train", leave=False, disable=None)
    for batch in bar:
        images, masks = batch["image"].to(device), batch["mask"].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            predicted = model(images)
        predicted = predicted.float()  # the loss needs more digits than bfloat16 has
        if not predicted.isfinite().all():
            raise FloatingPointError("the model's probabilities are not finite")
        loss = criterion(predicted, masks)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()

        seen += len(images)
        total_loss += loss.item() * len(images)
        total_iou += calculate_iou(predicted.detach(), masks) * len(images)
        bar.set_postfix(loss=f"{total_loss / seen:.3f}", iou=f"{total_iou / seen:.3f}")
    return total_loss / seen, total_iou / seen
    ### END SOLUTION


@torch.no_grad()
def validate_segmentation_epoch(
    model: nn.Module, val_loader: DataLoader, criterion: nn.Module, device: torch.device
) -> tuple[float, float]:
    """Measure the model on all of `val_loader` without changing it.

    The model is in evaluation mode and no gradients are recorded (the decorator above ensures
    that). Device, bfloat16, bar and FloatingPointError are as in train_segmentation_epoch. Returns
    (loss, IoU): means over all images, IoU in [0, 1].
    """
    ### BEGIN SOLUTION
    model.eval()
    device = torch.device(device)
    total_loss, total_iou, seen = 0.0, 0.0, 0
    for batch in tqdm(val_loader, desc="validate", leave=False, disable=None):
        images, masks = batch["image"].to(device), batch["mask"].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            predicted = model(images)
        predicted = predicted.float()
        if not predicted.isfinite().all():
            raise FloatingPointError("the model's probabilities are not finite")
        seen += len(images)
        total_loss += criterion(predicted, masks).item() * len(images)
        total_iou += calculate_iou(predicted, masks) * len(images)
    return total_loss / seen, total_iou / seen
    ### END SOLUTION


def has_stalled(values: list[float], patience: int | None) -> bool:
    """Whether the best value is `patience` epochs old, or older (provided). Never if None."""
    return bool(values and patience) and len(values) - 1 - values.index(max(values)) >= patience


def train_segmentation_model(
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

    criterion: the loss; CombinedLoss if None. The other options are those of
    classification_train.train_model, with val_iou instead of val_acc.

    Make the history with four empty lists, the optimizer, and a LambdaLR scheduler that is stepped
    with every batch. If there is a run, let it resume once: it may load the state of an interrupted
    training and fill the history. Then, until the history has `epochs` entries or has_stalled says
    so: train one epoch, validate, append to the history, and let the run end the epoch.

    Returns the history: lists `train_loss`, `train_iou`, `val_loss`, `val_iou`, one entry an epoch.
    """
    ### BEGIN SOLUTION
    device = next(model.parameters()).device
    criterion = criterion or CombinedLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule or (lambda step: 1.0))
    history = {"train_loss": [], "train_iou": [], "val_loss": [], "val_iou": []}
    if run is not None:
        run.resume(model, optimizer, scheduler, train_loader, history)

    while len(history["val_iou"]) < epochs and not has_stalled(history["val_iou"], patience):
        train_loss, train_iou = train_segmentation_epoch(
            model,
            train_loader,
            optimizer,
            criterion,
            device,
            max_steps_per_epoch,
            scheduler=scheduler,
        )
        val_loss, val_iou = validate_segmentation_epoch(model, val_loader, criterion, device)
        history["train_loss"].append(train_loss)
        history["train_iou"].append(train_iou)
        history["val_loss"].append(val_loss)
        history["val_iou"].append(val_iou)
        if run is not None:
            run.end_epoch(model, optimizer, scheduler, train_loader, history)
    return history
    ### END SOLUTION


@torch.no_grad()
def evaluate_segmentation_model(
    model: nn.Module, test_loader: DataLoader, dataset_name: str = "test"
) -> dict:
    """Score the masks of all of `test_loader`, in evaluation mode, on the model's own device.

    Returns {"dataset": dataset_name, "mean_iou", "std_iou", "total_samples"}: the mean and the
    standard deviation (dividing by N) over images of each image's IoU at threshold 0.5.
    """
    ### BEGIN SOLUTION
    model.eval()
    device = next(model.parameters()).device
    ious = []
    for batch in test_loader:
        predicted, masks = model(batch["image"].to(device)), batch["mask"].to(device)
        ious += [calculate_iou(p[None], m[None]) for p, m in zip(predicted, masks, strict=True)]
    ious = torch.tensor(ious, dtype=torch.float64)
    return {
        "dataset": dataset_name,
        "mean_iou": ious.mean().item(),
        "std_iou": ious.std(correction=0).item(),
        "total_samples": len(ious),
    }
    ### END SOLUTION


@torch.no_grad()
def visualize_predictions(
    model: nn.Module, dataset: Dataset, num_samples: int = 6, save_path: str | Path | None = None
) -> None:
    """Show images, true masks and predicted masks over the image (provided).

    Draws the first `num_samples` of `dataset` to a PNG at `save_path`, or on the screen if None.
    """
    from pathlab.training.plots import prediction_grid  # matplotlib is slow to import

    model.eval()
    device = next(model.parameters()).device
    samples = [dataset[i] for i in range(min(num_samples, len(dataset)))]
    images = torch.stack([sample["image"] for sample in samples])
    masks = torch.stack([sample["mask"] for sample in samples])
    prediction_grid(images, masks, model(images.to(device)).cpu(), save_path)
