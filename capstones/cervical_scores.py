"""Dice, IoU and pixel accuracy of the masks of `cervical`, and the picture of their outlines."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torchmetrics.functional.classification import multilabel_stat_scores

from capstones.cervical_models import HEADS
from capstones.images import read_image
from capstones.masks import read_masks
from pathlab.training.plots import BLUE, ORANGE, show


def count_pixels(masks: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """int64 [B, 2, 4] of masks and true masks, [B, 2, H, W] of 0 and 1, for each image and head.

    True positives, false positives, true negatives, false negatives: torchmetrics' order.
    """
    counts = multilabel_stat_scores(
        masks.int(), truth.int(), len(HEADS), average=None, multidim_average="samplewise"
    )
    return counts.view(len(masks), len(HEADS), 5)[..., :4]  # it drops a dimension of size 1


def overlap_scores(counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """dice, iou and pixel_accuracy, float64 [...] of counts [..., 4] as from count_pixels.

    Two empty masks agree: 1.
    """
    hits, extra, rest, missed = counts.double().unbind(-1)
    either = hits + extra + missed
    empty = either == 0
    return {
        "dice": torch.where(empty, 1.0, 2 * hits / (hits + either).clamp(min=1)),
        "iou": torch.where(empty, 1.0, hits / either.clamp(min=1)),
        "pixel_accuracy": (hits + rest) / (either + rest).clamp(min=1),
    }


def score_masks(cells: list[tuple[str, Path, Path, list[Path]]], path: Path, kind: str) -> dict:
    """Dice, IoU and pixel accuracy of predicted masks, for each head.

    cells: for each its name, its image, its true mask and the masks predicted for it. kind: of
    cytoplasm, as read_masks has it. As the mean over the images, with the same over all pixels
    together beside it (`pooled`). Draws the outlines into `path`, prints the scores and returns
    them.
    """
    masks = [(read_masks([true], kind), read_masks(predicted)) for _, _, true, predicted in cells]
    counts = torch.cat([count_pixels(predicted[None], true[None]) for true, predicted in masks])
    each, pooled = overlap_scores(counts), overlap_scores(counts.sum(0))
    scores: dict = {"images": len(cells), "cytoplasm": kind}
    for i, head in enumerate(HEADS):
        scores[head] = {name: float(values[:, i].mean()) for name, values in each.items()}
        scores[head]["pooled"] = {name: float(values[i]) for name, values in pooled.items()}
        print(head + ": " + ", ".join(f"{name} {scores[head][name]:.4f}" for name in each))
    order = each["dice"].mean(1).argsort().tolist()
    places = np.linspace(0, len(order) - 1, min(8, len(order))).round().astype(int)
    shown = []
    for i in (order[place] for place in places):
        dice = ", ".join(f"{value:.3f}" for value in each["dice"][i])
        shown.append((read_image(cells[i][1]), *masks[i], f"{cells[i][0]}: Dice {dice}"))
    draw_outlines(shown, path)
    return scores


def draw_outlines(cells: list[tuple], path: Path) -> None:
    """Images with the outlines of the true masks (solid) and of the predicted ones (dashed).

    cells: for each, image uint8 [3, H, W], true and predicted masks [2, H, W], title.
    """
    columns = min(4, len(cells))
    rows = -(-len(cells) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 3.2 * rows + 0.6), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (image, truth, predicted, title) in zip(axes.flat, cells, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy())
        for masks, style, colours in (
            (truth, "solid", ("white", "white")),
            (predicted, "dashed", (BLUE, ORANGE)),
        ):
            for mask, colour in zip(masks.numpy(), colours, strict=True):
                if 0 < mask.mean() < 1:
                    axis.contour(mask, [0.5], colors=colour, linestyles=style, linewidths=1.3)
        axis.set_title(title, fontsize=8)
    figure.suptitle(
        "From the worst to the best: true outlines white; predicted ones dashed, cytoplasm blue, "
        "nucleus orange",
        fontsize=9,
    )
    show(figure, path)
