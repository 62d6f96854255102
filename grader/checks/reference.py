"""Losses and scores with NumPy: what is right, and what known mistakes would give instead.

Each function takes `mistake`: None for the right value, else one of the names in its docstring.
All arithmetic is float64.
"""

import numpy as np

Array = np.ndarray


def softmax(logits: Array) -> Array:
    """Rows [N, K] that sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def cross_entropy(logits: Array, labels: Array, mistake: str | None = None) -> float:
    """Mean over N of -log softmax(logits)[label]. Mistake: "softmax" (before the loss, too)."""
    probabilities = softmax(softmax(logits) if mistake == "softmax" else logits)
    return float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())


def iou(predicted: Array, true: Array, threshold: float = 0.5, mistake: str | None = None) -> float:
    """Mean over images of intersection over union; 1 where both masks are empty.

    Mistakes: [mistakes.iou] of causes.toml.
    """
    limit = 0.5 if mistake == "fixed" else threshold
    a = predicted.astype(np.float64) if mistake == "unthresholded" else predicted > limit
    b = (true > 0.5).astype(np.float64)
    axes = None if mistake == "batch" else (1, 2, 3)
    both, total = (a * b).sum(axes), a.sum(axes) + b.sum(axes)
    above, below = (2 * both, total) if mistake == "dice" else (both, total - both)
    empty = 0.0 if mistake == "empty" else 1.0
    return float(np.where(below > 0, above / np.where(below > 0, below, 1), empty).mean())


def dice_loss(
    predicted: Array, true: Array, smooth: float = 1.0, mistake: str | None = None
) -> float:
    """1 - mean over images of (2 sum(pt) + smooth) / (sum(p) + sum(t) + smooth).

    Mistakes: [mistakes.dice] of causes.toml.
    """
    p, t = predicted.astype(np.float64), true.astype(np.float64)
    if mistake == "sigmoid":
        p = 1 / (1 + np.exp(-p))
    axes = None if mistake == "batch" else (1, 2, 3)
    factor = 1 if mistake == "no 2" else 2
    above = 1e-7 if mistake in ("no smooth", "smooth below") else smooth
    below = 1e-7 if mistake in ("no smooth", "smooth above") else smooth
    if mistake == "fixed":
        above = below = 1.0
    power = 2 if mistake == "squares" else 1
    total = (p**power).sum(axes) + (t**power).sum(axes)
    dice = (factor * (p * t).sum(axes) + above) / (total + below)
    return float(dice.mean() if mistake == "dice" else 1 - dice.mean())


def bce(predicted: Array, true: Array, mistake: str | None = None) -> float:
    """Mean binary cross-entropy of probabilities, logs clamped at -100 as PyTorch does.

    Mistakes: "logits" (BCE-with-logits of what are probabilities already), "sum" (no mean).
    """
    p, t = predicted.astype(np.float64), true.astype(np.float64)
    if mistake == "logits":
        p = 1 / (1 + np.exp(-p))
    with np.errstate(divide="ignore"):
        logs = t * np.maximum(np.log(p), -100) + (1 - t) * np.maximum(np.log(1 - p), -100)
    return float(-logs.sum() if mistake == "sum" else -logs.mean())


def combined_loss(
    predicted: Array, true: Array, bce_weight: float, dice_weight: float, mistake: str | None = None
) -> float:
    """bce_weight * bce + dice_weight * dice_loss.

    Mistakes: [mistakes.combined] of causes.toml, or "dice: " and one of [mistakes.dice].
    """
    weights = (bce_weight, dice_weight)
    if mistake == "no weights":
        weights = (1.0, 1.0)
    elif mistake == "half":
        weights = (0.5, 0.5)
    elif mistake == "swapped":
        weights = (dice_weight, bce_weight)
    elif mistake == "bce alone":
        weights = (bce_weight, 0.0)
    elif mistake == "dice alone":
        weights = (0.0, dice_weight)
    wrong_dice = mistake.removeprefix("dice: ") if mistake and "dice: " in mistake else None
    dice = dice_loss(predicted, true, mistake=wrong_dice)
    return weights[0] * bce(predicted, true, mistake) + weights[1] * dice
