"""The report's figures of parameters: each on an axis that fits its values."""

import itertools
import math
from dataclasses import dataclass

from pathlab.sweep.figures import GREY, RED, SKY, escaped, figure, hover, short
from pathlab.sweep.report_data import Configuration, Part, Trial, best, brief, key, number

SHADES = ("#a0da39", "#4ac16d", "#1fa187", "#277f8e", "#365c8d", "#46327e", "#440154")  # viridis
LOG_RATIO = 8  # positive numbers that span as much are drawn on a log axis
MOST_TICKS = 9


@dataclass
class Axis:
    """Where a parameter's values lie: at their number, its log10, or one step apart."""

    kind: str  # "linear", "log" or "category"
    values: list

    def __post_init__(self):
        self._places = {key(value): place for place, value in enumerate(self.values)}
        places = [self.at(value) for value in self.values]
        self.span = min(places), max(places)

    def at(self, value: object) -> float:
        if self.kind == "category":
            return self.index(value)
        return math.log10(value) if self.kind == "log" else value

    def index(self, value: object) -> int:
        return self._places[key(value)]  # by key: True == 1, but is another value

    def share(self, value: object) -> float:
        """The place between 0 and 1; 0.5 where there is one place only."""
        low, high = self.span
        return (self.at(value) - low) / (high - low) if high > low else 0.5

    def ticks(self) -> list:
        """The values to label: those that are not too close, or round ones where there are many."""
        if self.kind == "category":
            return self.values[:: math.ceil(len(self.values) / (2 * MOST_TICKS))]
        if len(self.values) > 2 * MOST_TICKS:
            return _round_values(self.kind, *self.span)
        ordered, chosen = sorted(self.values), []
        for value in ordered:
            if not chosen or self.share(value) - self.share(chosen[-1]) >= 1 / MOST_TICKS:
                chosen.append(value)
        return chosen

    def layout(self, title: str) -> dict:
        """The axis of a figure whose coordinates are `at`."""
        low, high = self.span
        margin = 0.5 if self.kind == "category" else 0.08 * (high - low) or 0.5
        return {
            "title": {"text": escaped(title) + (" (log scale)" if self.kind == "log" else "")},
            "tickvals": [self.at(value) for value in self.ticks()],
            "ticktext": [short(brief(value)) for value in self.ticks()],
            "range": [low - margin, high + margin],
        }


def axis_of(part: Part, name: str, trials: list[Trial]) -> Axis:
    """The axis that fits the values that `trials` have of a parameter; they must have some."""
    values = part.values_of(name, trials)
    numbers = [number(value) for value in values]
    if None in numbers:
        return Axis("category", values)
    positive = [value for value in numbers if value > 0]
    wide = bool(positive) and max(positive) / min(positive) >= LOG_RATIO
    if len(positive) > 2:  # 8, 16, 32, 64, 128 but not 10, 20, ... 100
        wide = wide and _widest_gap([math.log(v) for v in positive]) < _widest_gap(positive)
    asked = part.params.get(name)
    if isinstance(asked, dict):
        wide = asked.get("log") is True
    if len(positive) == len(numbers) and (wide or name.endswith("learning_rate")):
        return Axis("log", values)
    if wide and len(numbers) <= MOST_TICKS:  # such as 0, 0.0001 and 0.01
        return Axis("category", sorted(values))
    return Axis("linear", values)


def _widest_gap(numbers: list[float]) -> float:
    """As a share of the span."""
    ordered = sorted(numbers)
    gaps = [after - before for before, after in itertools.pairwise(ordered)]
    return max(gaps) / (ordered[-1] - ordered[0])


def _round_values(kind: str, low: float, high: float) -> list[float]:
    """At most MOST_TICKS round numbers between two places of a numeric axis."""
    if kind == "log":
        decades = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
        if len(decades) > 1:
            return decades[:: math.ceil(len(decades) / MOST_TICKS)]
        low, high = 10**low, 10**high
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_TICKS))
    step = next(power * m for m in (1, 2, 5, 10) if (high - low) / (power * m) < MOST_TICKS)
    counts = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [round(count * step, 12) for count in counts]


def parallel(part: Part, configurations: list[Configuration], names: list[str]) -> dict:
    """Each measured configuration as a line from axis to axis, the last axis is the metric.

    customdata is (configuration, axis, value) by index: a click on a value keeps the lines
    through it. Lines are shifted a little by rank, so that those of equal values lie side by side.
    """
    trials = [t for c in configurations for t in c.counted]
    axes = [axis_of(part, name, trials) for name in names]
    means = [c.mean for c in configurations]
    low, high = min(means), max(means)
    data, varied = [], part.varied()
    for shade, colour in enumerate(SHADES):
        x, y, text, custom = [], [], [], []
        for rank, configuration in reversed(list(enumerate(configurations))):
            if rank * len(SHADES) // len(configurations) != len(SHADES) - 1 - shade:
                continue
            shift = 0.05 * (0.5 - (rank + 0.5) / len(configurations))
            for place, (name, axis) in enumerate(zip(names, axes, strict=True)):
                value = configuration.params[name]
                x.append(place)
                y.append(axis.share(value) + shift)
                custom.append([rank, place, axis.index(value)])
            mean = configuration.mean
            x += [len(names), None]
            y += [(mean - low) / (high - low) if high > low else 0.5, None]
            custom += [[rank, len(names), rank], None]
            text += [hover(configuration, varied)] * (len(names) + 1) + [None]
        if x:
            data.append(_strand(x, y, text, custom, colour))
    notes = [
        _tick(place, axis.share(value), short(brief(value), 14))
        for place, axis in enumerate(axes)
        for value in axis.ticks()
    ]
    ends = {low, high} if high > low else {low}
    notes += [
        _tick(len(names), (m - low) / (high - low) if high > low else 0.5, f"{m:.4g}", "left")
        for m in ends
    ]
    titles = [
        short(n, 20) + (" (log)" if a.kind == "log" else "")
        for n, a in zip(names, axes, strict=True)
    ]
    return figure(
        data,
        height=430,
        showlegend=False,
        annotations=notes,
        shapes=[_rule(place) for place in range(len(names) + 1)],
        xaxis={
            "tickvals": list(range(len(names) + 1)),
            "ticktext": [*titles, short(part.metric, 20)],
            "tickangle": 0,
            "range": [-0.5, len(names) + 0.5],
            "showgrid": False,
            "showline": False,
            "ticks": "",
            "side": "top",
        },
        yaxis={"visible": False, "range": [-0.08, 1.08]},
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
    )


def _strand(x: list, y: list, text: list, custom: list, colour: str) -> dict:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "text": text,
        "customdata": custom,
        "hoverinfo": "text",
        "line": {"color": colour, "width": 1.6},
        "marker": {"size": 5},
    }


def _tick(place: int, share: float, text: str, side: str = "right") -> dict:
    return {
        "x": place,
        "y": share,
        "text": text,
        "xanchor": side,
        "xshift": -7 if side == "right" else 7,
        "showarrow": False,
        "bgcolor": "rgba(255,255,255,0.8)",
        "font": {"size": 12},
    }


def _rule(place: int) -> dict:
    line = {"color": GREY, "width": 1}
    return {"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "line": line}


def slices(part: Part, configurations: list[Configuration], name: str) -> dict:
    """The metric of each trial against one parameter, and the mean of each value that repeats."""
    chosen = best(configurations)
    here = [c for c in configurations if name in c.params]
    axis = axis_of(part, name, [t for c in here for t in c.counted])
    groups: dict[float, list[float]] = {}
    for configuration in here:
        groups.setdefault(axis.at(configuration.params[name]), []).extend(configuration.values)
    data = [
        _points(axis, [c for c in here if c is not chosen], name, part, SKY, "a trial"),
        _points(axis, [c for c in here if c is chosen], name, part, RED, "best configuration"),
    ]
    if any(len(values) > 1 for values in groups.values()) and len(groups) <= 2 * MOST_TICKS:
        places = sorted(groups)
        data.append(
            {
                "type": "scatter",
                "mode": "markers" if axis.kind == "category" else "lines+markers",
                "x": places,
                "y": [sum(groups[p]) / len(groups[p]) for p in places],
                "text": [f"mean of {len(groups[p])} trials" for p in places],
                "hoverinfo": "y+text",
                "name": "mean",
                "line": {"color": "#1b1f24", "width": 1.5},
                "marker": {"symbol": "diamond", "size": 10, "color": "#1b1f24"},
            }
        )
    return figure(
        data,
        height=280,
        xaxis=axis.layout(short(name, 30)),
        yaxis={"title": {"text": short(part.metric, 40)}},
        showlegend=False,
    )


def _points(
    axis: Axis, configurations: list[Configuration], name: str, part: Part, colour: str, title: str
) -> dict:
    x, y, text, varied = [], [], [], part.varied()
    for configuration in configurations:
        about = hover(configuration, varied)
        for order, trial in enumerate(configuration.counted):
            spread = 0.0
            if axis.kind == "category":  # side by side, or equal values would hide each other
                spread = 0.22 * ((configuration.number * 0.618 + order * 0.382) % 1 - 0.5)
            x.append(axis.at(configuration.params[name]) + spread)
            y.append(trial.value)
            text.append(f"{about}<br>seed {short(brief(trial.seed))}")
    marker = {"color": colour, "size": 8, "opacity": 0.75, "line": {"color": "#fff", "width": 0.5}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "text": text,
        "hoverinfo": "y+text",
        "name": title,
        "marker": marker,
    }
