"""The ways to average a loss or a score over batches, and what the wrong ones give."""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-3


def close(value: object, right: float, tolerance: float = TOLERANCE) -> bool:
    return isinstance(value, (int, float)) and abs(value - right) <= tolerance * max(1, abs(right))


def apart(right: float, wrong: float, tolerance: float = TOLERANCE) -> bool:
    """So far that no rounding takes one for the other."""
    return abs(right - wrong) > 10 * tolerance * max(1, abs(right))


@dataclass(frozen=True)
class Scores:
    """Loss and metric of each batch, and the ways to average them."""

    losses: list[float]
    metrics: list[float]
    sizes: list[int]
    in_dataset: int
    in_loader: int

    @property
    def right(self) -> tuple[float, float]:
        return tuple(
            float(np.average(part, weights=self.sizes)) for part in (self.losses, self.metrics)
        )

    def wrong(self, values: list[float]) -> dict[str, float]:
        """Words for a mistake -> the number that it gives."""
        total, right = sum(self.sizes), np.average(values, weights=self.sizes)
        summed = right * total
        return {
            "this is the mean over batches, in which a smaller last batch counts too much; weight "
            "each batch by its number of images.": np.mean(values),
            "this is the sum over the images; divide by their number.": summed,
            "this is the sum over the batches; divide by the number of images.": np.sum(values),
            "this is the sum of the batches' means divided by the number of images; multiply each "
            "mean by its batch's size first.": np.sum(values) / total,
            "this is the sum over the images divided by the number of batches; divide by the "
            "number of images seen.": summed / len(values),
            "this is the last batch alone.": values[-1],
        }

    def wrong_length(self, values: list[float]) -> dict[str, float]:
        """Those that show only where max_steps ends the epoch early."""
        summed = np.dot(values, self.sizes)
        return {
            "the sum is divided by len(dataset), but max_steps ended the epoch before; divide by "
            "the number of images seen.": summed / self.in_dataset,
            "the sum is divided by len(loader), but max_steps ended the epoch before; divide by "
            "what was seen.": np.sum(values) / self.in_loader,
        }

    def wrong_metric(self) -> dict[str, float]:
        """wrong() of the metric, and percent."""
        words = "in percent; it should be a share, from 0 to 1."
        return {**self.wrong(self.metrics), words: 100 * self.right[1]}


def short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)[:50]


def is_telling(scores: Scores) -> bool:
    """Whether the right way to average and all wrong ones give different numbers."""
    loss, metric = scores.right
    return all(
        apart(right, wrong) and not any(close(float(wrong), other) for other in wrongs[:i])
        for right, wrongs in (
            (loss, [*scores.wrong(scores.losses).values()]),
            (metric, [*scores.wrong_metric().values()]),
        )
        for i, wrong in enumerate(wrongs)
    )
