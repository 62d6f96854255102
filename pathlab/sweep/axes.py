"""Where the values of a parameter lie in a figure: linear, logarithmic, or a step apart."""

import html
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd

from pathlab.sweep.config import Part
from pathlab.sweep.tables import finite, key, values_of

LOG_RATIO = 8  # positive numbers that span as much are drawn on a log axis
MOST_TICKS = 9


def brief(value: object) -> str:
    """A JSON value as a person writes it; numbers drawn from a range with four digits only."""
    if isinstance(value, float) and len(repr(value)) > 8:
        return f"{value:.4g}"
    return shown(value)


def shown(value: object) -> str:
    """A JSON value as a person writes it, in full."""
    return value if isinstance(value, str) else key(value)


def short(text: str, most: int = 18) -> str:
    """A text for a figure, cut off, and escaped, as plotly reads a little HTML."""
    return html.escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)


class Axis:
    """kind: "linear" and "log" (places are the number, and its log10) or "category" (0, 1, ...)."""

    def __init__(self, kind: str, values: list[Any]):
        self.kind, self.values = kind, values
        self._indices = {key(value): index for index, value in enumerate(values)}
        places = [self.at(value) for value in values]
        self.low, self.high = min(places), max(places)

    def at(self, value: Any) -> float:
        """The place of a value."""
        if self.kind == "category":
            return self.index(value)
        return math.log10(value) if self.kind == "log" else float(value)

    def index(self, value: object) -> int:
        """Which of the values it is; True is another than 1."""
        return self._indices[key(value)]

    def share(self, value: Any) -> float:
        """The place between 0 and 1; 0.5 where there is one place only."""
        return (self.at(value) - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ticks(self) -> list[Any]:
        """The values to label: those that are not too close, or evenly spaced ones for many."""
        if self.kind == "category":
            return self.values[:: math.ceil(len(self.values) / (2 * MOST_TICKS))]
        if len(self.values) > 2 * MOST_TICKS:
            return self._even_ticks()
        chosen: list[Any] = []
        for value in sorted(self.values):
            if not chosen or self.share(value) - self.share(chosen[-1]) >= 1 / MOST_TICKS:
                chosen.append(value)
        return chosen

    def _even_ticks(self) -> list[float]:
        if self.kind == "log" and math.floor(self.high) - math.ceil(self.low) >= 1:
            powers = range(math.ceil(self.low), math.floor(self.high) + 1)
            return [10.0**power for power in powers][:: math.ceil(len(powers) / MOST_TICKS)]
        places = np.linspace(self.low, self.high, 5)
        return [float(f"{10**p if self.kind == 'log' else p:.3g}") for p in places]

    def layout(self, title: str) -> dict[str, Any]:
        """The axis of a figure whose coordinates are `at`."""
        margin = 0.5 if self.kind == "category" else 0.08 * (self.high - self.low) or 0.5
        return {
            "title": {"text": short(title, 30) + (" (log scale)" if self.kind == "log" else "")},
            "tickvals": [self.at(value) for value in self.ticks()],
            "ticktext": [short(brief(value)) for value in self.ticks()],
            "range": [self.low - margin, self.high + margin],
        }


def axis_of(part: Part, name: str, table: pd.DataFrame) -> Axis:
    """The axis that fits the values that a parameter has in `params`; there must be some."""
    values = values_of(part, name, table)
    if any(finite(value) is None for value in values):
        return Axis("category", values)
    positive = [value for value in values if value > 0]
    wide = bool(positive) and max(positive) / min(positive) >= LOG_RATIO
    if len(positive) > 2:  # 8, 16, 32, 64, 128 but not 10, 20, ... 100
        wide = wide and _widest_gap([math.log(v) for v in positive]) < _widest_gap(positive)
    asked = part.params.get(name)
    if isinstance(asked, dict):
        wide = asked.get("log") is True
    if len(positive) == len(values) and (wide or name.endswith("learning_rate")):
        return Axis("log", values)
    if wide and len(values) <= MOST_TICKS:  # such as 0, 0.0001 and 0.01
        return Axis("category", sorted(values))
    return Axis("linear", values)


def _widest_gap(numbers: list[float]) -> float:
    """As a share of the span."""
    ordered = sorted(numbers)
    gaps = [after - before for before, after in itertools.pairwise(ordered)]
    return max(gaps) / (ordered[-1] - ordered[0])
