"""Every picture that the project draws, as PNG files (or on the screen)."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch

from pathlab.files import write_atomically
from pathlab.training.evaluate import Predictions

BLUE, ORANGE, GREEN = (
    "#0072b2",
    "#e69f00",
    "#009e73",
)  # Okabe & Ito, for all kinds of colour vision


def show(figure: plt.Figure, save_path: str | Path | None) -> None:
    """Write the figure as a PNG, or show it on the screen if save_path is None; then close it."""
    if save_path is None:
        plt.show()
    else:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        write_atomically(Path(save_path), buffer.getvalue())
    plt.close(figure)


def curves(
    history: dict[str, list[float]],
    step_losses: list[float],
    steps_per_epoch: int,
    title: str,
    save_path: Path,
) -> None:
    """Loss and metric over the training steps; points are epochs, the thin line single steps."""
    metric = "acc" if "val_acc" in history else "iou"
    names = {"loss": "loss", "acc": "accuracy", "iou": "IoU"}
    epochs = len(history["val_loss"])
    steps = np.arange(1, epochs + 1) * steps_per_epoch  # at the end of each epoch
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    axes[0].plot(np.arange(1, len(step_losses) + 1), step_losses, color=BLUE, alpha=0.35, lw=0.8)
    for axis, name in zip(axes, ("loss", metric), strict=True):
        for split, color in (("train", BLUE), ("val", ORANGE)):
            values = history[f"{split}_{name}"]
            axis.plot(steps, values, "o-", ms=4, color=color, label=f"{split} {values[-1]:.3f}")
        axis.set(xlabel="training step", ylabel=names[name], xlim=(0, steps[-1] * 1.03))
        axis.grid(alpha=0.3)
        axis.legend()
    if epochs == 1:
        axes[1].set_ylim(0, 1)
    figure.suptitle(title)
    show(figure, save_path)


def confusion_matrix(test: Predictions, class_names: Sequence[str], save_path: Path) -> None:
    """The confusion matrix: numbers of images, true classes as rows, shaded by the row's share."""
    counts = test.confusion()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    k = len(class_names)
    side = max(4.0, 0.75 * k + 2)
    figure, axis = plt.subplots(figsize=(side + 1.5, side), layout="constrained")
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(k, k):
        if counts[row, column]:
            color = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(counts[row, column]), ha="center", va="center", color=color)
    names = [_wrap(name) for name in class_names]
    axis.set_xticks(range(k), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(range(k), names, fontsize=9)
    axis.set(xlabel="predicted", ylabel="true", title=f"{test.part} accuracy {test.accuracy:.3f}")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    show(figure, save_path)


def per_class(test: Predictions, class_names: Sequence[str], save_path: Path) -> None:
    """Precision, recall and F1 of each class as bars."""
    scores = test.per_class()
    k = len(class_names)
    figure, axis = plt.subplots(figsize=(8, 0.6 * k + 1.6), layout="constrained")
    for offset, (name, color) in enumerate(zip(scores, (BLUE, ORANGE, GREEN), strict=True)):
        bars = axis.barh(np.arange(k) + 0.27 * (offset - 1), scores[name], 0.27, color=color)
        bars.set_label(name.replace("f1", "F1"))
        axis.bar_label(bars, fmt="%.2f", fontsize=7, padding=2)
    sizes = test.confusion().sum(axis=1)
    labels = [f"{name} ({n})" for name, n in zip(class_names, sizes, strict=True)]
    axis.set_yticks(range(k), labels, fontsize=9)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1.08), xlabel="score on the test images (number of images in brackets)")
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.9 / (k + 1)), ncols=3, frameon=False
    )
    show(figure, save_path)


def worst_mistakes(
    test: Predictions, images: np.ndarray, class_names: Sequence[str], save_path: Path
) -> None:
    """The 24 test images that the model got wrong with the highest confidence.

    images: uint8 [N, 28, 28] or [N, 28, 28, 3], in the order of `test`.
    """
    confidence = test.probabilities.max(axis=1)
    wrong = np.flatnonzero(test.predicted != test.labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:24]
    figure, axes = plt.subplots(4, 6, figsize=(11, 8.6), layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, index in zip(axes.flat, worst, strict=False):
        axis.imshow(images[index], cmap="gray", vmin=0, vmax=255)
        true, guess = class_names[test.labels[index]], class_names[test.predicted[index]]
        axis.set_title(f"{_wrap(guess)} {confidence[index]:.0%}\nis {_wrap(true)}", fontsize=8)
    figure.suptitle(f"Most confident of {len(wrong)} mistakes in {len(test.labels)} test images")
    show(figure, save_path)


def image_grid(
    rows: Sequence[torch.Tensor], names: Sequence[str], save_path: str | Path | None
) -> None:
    """Batches of images [N, 3, H, W] in [-1, 1] or masks [N, 1, H, W] in [0, 1], one a row."""
    show(_draw_grid(rows, names)[0], save_path)


def prediction_grid(
    images: torch.Tensor, masks: torch.Tensor, predicted: torch.Tensor, save_path: str | Path | None
) -> None:
    """Images with the outline of the true mask and the predicted mask laid over them.

    images [N, 3, H, W] in [-1, 1]; masks of 0 and 1 and predicted probabilities [N, 1, H, W].
    """
    names = ["image", "true mask", "predicted\nprobability", "prediction\nover image"]
    figure, axes = _draw_grid([images, masks, predicted, images], names)
    for axis, true, found in zip(axes[3], masks[:, 0] > 0.5, predicted[:, 0] > 0.5, strict=True):
        overlay = np.zeros((*found.shape, 4))
        overlay[found.numpy()] = matplotlib.colors.to_rgba(GREEN, 0.55)
        axis.imshow(overlay)
        if true.any():
            axis.contour(true.numpy(), levels=[0.5], colors="black", linewidths=1.2)
        union = (found | true).sum().item()
        iou = (found & true).sum().item() / union if union else 1.0
        axis.set_xlabel(f"IoU {iou:.3f}", fontsize=9)
    show(figure, save_path)


def _draw_grid(rows: Sequence[torch.Tensor], names: Sequence[str]) -> tuple[plt.Figure, np.ndarray]:
    """(figure, axes [rows, N]) with every image or mask drawn."""
    columns = len(rows[0])
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(1.7 * columns + 0.6, 1.8 * len(rows) + 0.2),
        layout="constrained",
        squeeze=False,
    )
    for name, row, row_axes in zip(names, rows, axes, strict=True):
        row_axes[0].set_ylabel(name)
        for picture, axis in zip(row, row_axes, strict=True):
            if len(picture) == 1:
                axis.imshow(picture[0].numpy(), cmap="gray", vmin=0, vmax=1)
            else:
                axis.imshow(((picture + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy())
            axis.set(xticks=[], yticks=[])
    return figure, axes


def _wrap(name: str) -> str:
    """A long class name on two lines, broken at the space nearest its middle."""
    spaces = [i for i, character in enumerate(name) if character == " "]
    if len(name) <= 18 or not spaces:
        return name
    middle = min(spaces, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"
