"""How the spine ensemble's probabilities are averaged, thresholded, scored and drawn.

All functions take probabilities float64 [N] of the positive class, and labels 0 or 1 [N].
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import ArrayLike
from pandas import DataFrame
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

from pathlab.training import plots

THRESHOLDS = np.arange(350, 600) / 1000  # 0.35 to below 0.60 by 0.001
METRICS = ("auroc", "sensitivity", "specificity", "f1_score")


def weighted_average(
    probabilities: dict[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """The networks' probabilities [N] times their weights, over the sum of the weights."""
    members = list(probabilities)
    return np.average(
        [probabilities[m] for m in members], axis=0, weights=[weights[m] for m in members]
    )


def find_weights(probabilities: dict[str, np.ndarray], labels: ArrayLike) -> dict[str, float]:
    """Of all weights in tenths that sum to 1 those of the highest AUROC; of equals the most even.

    probabilities, labels: of validation images. There the average is at least as good as its best
    network.
    """
    truth, members = np.asarray(labels), list(probabilities)

    def quality(weights: dict[str, int]) -> tuple[float, float]:
        average = weighted_average(probabilities, weights)
        return auroc(average, truth), -sum(tenths**2 for tenths in weights.values())

    grid = product(range(11), repeat=len(members))
    tenths = [dict(zip(members, t, strict=True)) for t in grid if sum(t) == 10]
    return {member: t / 10 for member, t in max(tenths, key=quality).items()}


def find_threshold(probabilities: np.ndarray, labels: ArrayLike) -> tuple[float, float]:
    """(threshold, F1): of THRESHOLDS the first with the highest F1; 0.5 where F1 is always 0.

    probabilities, labels (0 or 1): [N], of validation images. An image is positive from the
    threshold on.
    """
    truth = np.asarray(labels) == 1
    positive = np.asarray(probabilities) >= THRESHOLDS[:, None]
    f1 = 2 * (positive & truth).sum(1) / (positive.sum(1) + truth.sum())
    best = int(f1.argmax())
    return (float(THRESHOLDS[best]), float(f1[best])) if f1[best] > 0 else (0.5, 0.0)


def auroc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs of a positive and a negative image in the right order; a tie is a half.

    Mann and Whitney's form of the area under the ROC curve (Hanley & McNeil, Radiology 143, 1982):
    a bootstrap takes a fraction of the time that it takes with the curve.
    """
    positive = labels == 1
    n, pairs = positive.sum(), positive.sum() * (~positive).sum()
    return float((rankdata(probabilities)[positive].sum() - n * (n + 1) / 2) / pairs)


def scores(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> dict[str, float]:
    """AUROC, and at the threshold sensitivity, specificity and F1. Both classes must be there."""
    positive, truth = probabilities >= threshold, labels == 1
    hits = (positive & truth).sum()
    return {
        "auroc": auroc(probabilities, labels),
        "sensitivity": float(hits / truth.sum()),
        "specificity": float((~positive & ~truth).sum() / (~truth).sum()),
        "f1_score": float(2 * hits / (positive.sum() + truth.sum())),
    }


def bootstrap(
    probabilities: np.ndarray, labels: np.ndarray, threshold: float, samples: int, seed: int
) -> dict[str, list[float]]:
    """[low, high] of each score: the 2.5 and 97.5 percentiles over resampled images.

    Images are drawn with replacement from the positives and from the negatives (a stratified
    bootstrap), so that AUROC is always defined. The threshold stays what it is.
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    drawn_scores = []
    for _ in range(samples):
        places = np.concatenate([rng.choice(group, len(group)) for group in groups])
        drawn_scores.append(list(scores(probabilities[places], labels[places], threshold).values()))
    low, high = np.percentile(drawn_scores, [2.5, 97.5], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(METRICS)}


def score_table(measured: dict[str, dict]) -> str:
    """A line for each network and the ensemble: every score with its interval."""
    table = DataFrame(index=list(measured))
    table["threshold"] = [f"{found['threshold']:.3f}" for found in measured.values()]
    for metric in METRICS:
        table[metric] = [
            "{:.4f} [{:.4f}, {:.4f}]".format(found[metric], *found["intervals"][metric])
            for found in measured.values()
        ]
    return table.to_string()


def draw_roc(
    systems: dict[str, np.ndarray], thresholds: dict[str, float], labels: np.ndarray, path: Path
) -> None:
    """The ROC curves; a dot where the ensemble's threshold lies."""
    figure, axis = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    members = [name for name in systems if name != "ensemble"]
    colours = dict(zip(members, (plots.BLUE, plots.ORANGE, plots.GREEN), strict=False))
    for name, p in systems.items():
        false_alarms, hits, _ = roc_curve(labels, p)
        colour, width = (colours[name], 1) if name in colours else ("black", 2)
        label = f"{name} {auroc(p, labels):.3f}"
        axis.plot(false_alarms, hits, label=label, color=colour, lw=width)
    found = scores(systems["ensemble"], labels, thresholds["ensemble"])
    axis.plot(1 - found["specificity"], found["sensitivity"], "o", color="black", zorder=3)
    axis.plot([0, 1], [0, 1], ":", color="gray", lw=1)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC curve and its area")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    plots.show(figure, path)
