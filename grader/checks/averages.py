"""The ways to average a loss and a metric over batches, and what the wrong ones give."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autograde.feedback import Lost
from grader.checks.causes import MISTAKES
from grader.checks.probes import LinearProbe
from grader.checks.student import Array, Batch, Means

TOLERANCE = 1e-3


def close(value: float, right: float, tolerance: float = TOLERANCE) -> bool:
    """Whether these are the same number, but for rounding; NaN is nothing's."""
    return abs(value - right) <= tolerance * max(1, abs(right))


def apart(right: float, wrong: float, tolerance: float = TOLERANCE) -> bool:
    """So far that no rounding takes one for the other."""
    return abs(right - wrong) > 10 * tolerance * max(1, abs(right))


@dataclass(frozen=True)
class Scores:
    """Loss and metric of each batch, and the ways to average them."""

    losses: list[float]
    metrics: list[float]
    sizes: list[int]

    @classmethod
    def of(
        cls,
        probe: type[LinearProbe],
        outputs: list[Array],
        batches: list[Batch],
        mistake: str | None = None,
    ) -> "Scores":
        """Of a probe's outputs, for the first of these batches. mistake: one of the metric's."""
        pairs = [(a, y) for a, (_, y) in zip(outputs, batches, strict=False)]
        losses = [probe.loss(a, y) for a, y in pairs]
        return cls(
            losses, [probe.metric(a, y, mistake) for a, y in pairs], [len(y) for _, y in pairs]
        )

    @property
    def right(self) -> Means:
        """The means over all images."""
        loss, metric = (np.average(v, weights=self.sizes) for v in (self.losses, self.metrics))
        return Means(float(loss), float(metric))

    def wrong(self, values: list[float]) -> dict[str, float]:
        """The name of a mistake -> the number that it gives."""
        total, right = sum(self.sizes), np.average(values, weights=self.sizes)
        return {
            "mean over batches": np.mean(values),
            "sum over images": right * total,
            "sum over batches": np.sum(values),
            "batches by images": np.sum(values) / total,
            "images by batches": right * total / len(values),
            "last batch": values[-1],
        }

    def wrong_length(self, values: list[float], loader: list[Batch]) -> dict[str, float]:
        """Those that show only where max_steps ends the epoch early."""
        images = sum(len(y) for _, y in loader)
        return {
            "len(dataset)": np.dot(values, self.sizes) / images,
            "len(loader)": np.sum(values) / len(loader),
        }

    def wrong_metric(self) -> dict[str, float]:
        """wrong() of the metric, and percent."""
        return {**self.wrong(self.metrics), "percent": 100 * self.right.metric}

    @property
    def is_telling(self) -> bool:
        """Whether the right way to average and all wrong ones give different numbers."""
        return all(
            apart(right, wrong) and not any(close(float(wrong), other) for other in wrongs[:i])
            for right, wrongs in (
                (self.right.loss, [*self.wrong(self.losses).values()]),
                (self.right.metric, [*self.wrong_metric().values()]),
            )
            for i, wrong in enumerate(wrongs)
        )


def check_means(
    found: Means,
    probe: type[LinearProbe],
    metric: str,
    scores_with: Callable[[str | None], Scores],
) -> None:
    """The claimed means against the right ones. scores_with: the scores with a metric's mistake.

    A wrong calculate_iou costs its own points, and not these.
    """
    scores = scores_with(None)
    right = scores.right
    accepted = [right.metric, *(scores_with(m).right.metric for m in probe.foreign_mistakes)]
    named = []
    if not close(found.loss, right.loss):
        named.append(_named("loss", found.loss, scores.wrong(scores.losses)))
    if not any(close(found.metric, value) for value in accepted):
        wrong = scores.wrong_metric()
        wrong |= {m: scores_with(m).right.metric for m in probe.metric_mistakes}
        named.append(_named(metric, found.metric, wrong))
    if named:
        raise Lost(
            f"loss {right.loss:.4f} and {metric} {right.metric:.4f}, means over the "
            f"{sum(scores.sizes)} images seen",
            f"loss {found.loss:.4f} and {metric} {found.metric:.4f}",
            " ".join(filter(None, named)),
        )


def _named(name: str, value: float, wrong: dict[str, float]) -> str:
    """The mistake that gives this value, "" if none does."""
    words = (MISTAKES["average"][mistake] for mistake, n in wrong.items() if close(value, n))
    return next((f"{name}: {cause}" for cause in words), "")
