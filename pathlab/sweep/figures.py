"""The report's figures, as the plain dicts that plotly.js draws: {"data": [...], "layout": {...}}.

Plain dicts take a thousandth of the time of plotly.graph_objects; the tests validate them with it.
`table`: pathlab.sweep.tables.configurations, measured ones only. `names`: the varied parameters.
"""

from typing import Any

import numpy as np
import pandas as pd

from pathlab.sweep.axes import MOST_TICKS, axis_of, brief, short
from pathlab.sweep.config import Part
from pathlab.sweep.tables import best, counted, each

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")  # Okabe and Ito
BLUE, RED, SKY = COLOURS[0], COLOURS[3], COLOURS[5]
SHADES = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39")  # viridis
INK, GREY, FAINT = "#1b1f24", "#8a8f98", "#c9ccd1"
LEGEND_ROW = 19  # pixels
Figure = dict[str, Any]


def scatter(x: list, y: list, mode: str = "markers", **changes: Any) -> dict[str, Any]:
    """A trace of points or lines; what it says of itself on hover is its `text`."""
    trace = {"type": "scatter", "mode": mode, "x": x, "y": y}
    return trace | ({"hoverinfo": "x+y+text"} if mode != "none" else {}) | changes


def figure(data: list[dict], height: int, **layout: Any) -> Figure:
    """A figure that is `height` pixels high."""
    return {"data": data, "layout": {"height": height, **layout}}


def label(row: Any, names: list[str]) -> str:
    """Such as "#7: cnn · 0.001"."""
    values = " · ".join(short(brief(row.params[n])) for n in names if n in row.params)
    return f"#{row.number}: {values}" if values else f"#{row.number}"


def hover(row: Any, names: list[str]) -> str:
    """A configuration in full."""
    values = [
        f"{short(n, 40)} = {short(brief(row.params[n]), 60)}" for n in names if n in row.params
    ]
    return "<br>".join([f"#{row.number}", *values, f"mean {row.mean:.5g} (n = {row.n})"])


def curves(
    part: Part, trials: pd.DataFrame, table: pd.DataFrame, names: list[str]
) -> Figure | None:
    """The metric by epoch: the six best configurations in colours, the others grey.

    A line is the mean over the seeds, its band reaches from the lowest to the highest. None
    without any curve.
    """
    drawn = trials[trials["curve"].map(bool).astype(bool)]
    ended = counted(drawn)
    others = drawn[~drawn.index.isin(ended.index)]
    by_key = {name: pd.DataFrame(list(g["curve"])) for name, g in ended.groupby("key")}
    rows = [row for row in each(table) if row.key in by_key]
    winner = None if (chosen := best(table)) is None else chosen["key"]
    rows.sort(key=lambda row: row.key != winner)  # stable: the others stay by their mean
    data = _bundle(
        [(f"#{t.number} {t.state}", t.curve) for t in each(others)],
        name="pruned or failed", line={"color": GREY, "width": 1, "dash": "dot"},
    )  # fmt: skip
    rest = [(label(row, names), dict(by_key[row.key].mean())) for row in rows[len(COLOURS) :]]
    data += _bundle(
        rest, name=f"{len(rest)} other configurations", line={"color": FAINT, "width": 1}
    )
    for rank, row in reversed(list(enumerate(rows[: len(COLOURS)]))):
        data += _line(row, by_key[row.key].sort_index(axis=1), rank, names, row.key == winner)
    if not data:
        return None
    entries = min(len(rows), len(COLOURS)) + bool(rest) + bool(len(others))
    few = max(max(curve) for curve in drawn["curve"]) <= 12
    return figure(
        data,
        height=370 + LEGEND_ROW * entries,
        xaxis={"title": {"text": "epoch"}, **({"dtick": 1} if few else {})},
        yaxis={"title": {"text": short(part.metric.removeprefix("best_"), 40)}},
        showlegend=True,
        legend={"x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"},
        margin={"b": 62 + LEGEND_ROW * entries},
    )


def _line(row: Any, seeds: pd.DataFrame, rank: int, names: list[str], first: bool) -> list[dict]:
    """One configuration's mean, and the band of its seeds (a row of `seeds` each)."""
    x = [float(epoch) for epoch in seeds.columns]
    band = scatter(
        x + x[::-1], [*seeds.max(), *seeds.min()[::-1]], mode="none",
        fill="toself", fillcolor=COLOURS[rank] + "30", hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    line = scatter(
        x, seeds.mean().tolist(),
        mode="lines+markers" if len(x) <= 40 else "lines",
        name=("best: " if first else "") + label(row, names),
        text=[hover(row, names)] * len(x),
        line={"color": COLOURS[rank], "width": 4 if first else 1.8},
        marker={"size": 7 if first else 5},
        legendrank=rank + 1,
    )  # fmt: skip
    return [band, line] if len(seeds) > 1 else [line]


def _bundle(lines: list[tuple[str, dict]], name: str, line: dict) -> list[dict]:
    """Lines (title, values by epoch) as one trace: hundreds of traces would be slow."""
    if not lines:
        return []
    x: list = []
    y: list = []
    text: list = []
    for title, curve in lines:
        points = sorted(curve.items())
        x += [float(epoch) for epoch, _ in points] + [None]
        y += [float(value) for _, value in points] + [None]
        text += [title] * len(points) + [None]
    alone = all(len(curve) == 1 for _, curve in lines)
    return [
        scatter(
            x, y, mode="markers" if alone else "lines", text=text, name=name, line=line,
            marker={"color": line["color"], "size": 5}, legendrank=100,
        )
    ]  # fmt: skip


def bars(shares: dict[str, float]) -> Figure:
    """Shares of the variance; the last one, which is no parameter's, in grey."""
    names = [*shares][::-1]  # plotly draws from below
    places = list(range(len(names)))
    bar = {
        "type": "bar",
        "orientation": "h",
        "x": [shares[name] for name in names],
        "y": places,
        "text": [f"{shares[name]:.0%}" if shares[name] >= 0.01 else "< 1%" for name in names],
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "marker": {"color": [GREY] + [BLUE] * (len(names) - 1)},
    }
    return figure(
        [bar],
        height=90 + 34 * len(names),
        xaxis={"range": [0, 1.12], "tickformat": ".0%", "title": {"text": "share of the variance"}},
        yaxis={"tickvals": places, "ticktext": [short(name, 24) for name in names]},
        margin={"t": 10},
    )


def architectures(metric: str, models: list[str], values: list[list[float]]) -> Figure:
    """The best configuration of each model: its seeds as points, mean and standard deviation."""
    places = list(range(len(models)))
    spread = [float(np.std(v, ddof=1)) if len(v) > 1 else 0 for v in values]
    seeds = scatter(
        [place for place in places for _ in values[place]], [v for group in values for v in group],
        hoverinfo="y", marker={"color": SKY, "size": 8, "opacity": 0.8},
    )  # fmt: skip
    means = scatter(
        places, [float(np.mean(v)) for v in values],
        hoverinfo="y", marker={"color": BLUE, "size": 11, "symbol": "diamond"},
        error_y={"type": "data", "array": spread, "thickness": 2, "width": 8},
    )  # fmt: skip
    ticks = {"tickvals": places, "ticktext": [short(model) for model in models]}
    return figure(
        [seeds, means],
        height=260,
        xaxis=ticks | {"range": [-0.6, len(models) - 0.4]},
        yaxis={"title": {"text": short(metric, 40)}},
        showlegend=False,
    )


def slices(part: Part, table: pd.DataFrame, name: str, names: list[str]) -> Figure:
    """The metric of each trial against one parameter, and the mean of each value that repeats."""
    winner = None if (chosen := best(table)) is None else chosen["key"]
    here = table[table["params"].map(lambda params: name in params)]
    axis, points = axis_of(part, name, here), []
    for row in each(here):
        for order, value in enumerate(row.values):
            place = axis.at(row.params[name])
            # Side by side, or equal values of a category would hide each other.
            spread = 0.22 * ((row.number * 0.618 + order * 0.382) % 1 - 0.5)
            x = place + spread if axis.kind == "category" else place
            points.append((x, value, hover(row, names), place, row.key == winner))
    drawn = pd.DataFrame(points, columns=["x", "y", "text", "place", "best"])
    marker = {"size": 8, "opacity": 0.75, "line": {"color": "#fff", "width": 0.5}}
    data = [
        scatter(
            group["x"].tolist(), group["y"].tolist(), text=group["text"].tolist(),
            hoverinfo="y+text", marker=marker | {"color": colour},
        )
        for group, colour in ((drawn[~drawn["best"]], SKY), (drawn[drawn["best"]], RED))
    ]  # fmt: skip
    means = drawn.groupby("place")["y"].agg(["mean", "count"])
    if means["count"].max() > 1 and len(means) <= 2 * MOST_TICKS:
        mode = "markers" if axis.kind == "category" else "lines+markers"
        text = [f"mean of {count} trials" for count in means["count"]]
        diamond = {"symbol": "diamond", "size": 10, "color": INK}
        data.append(
            scatter(
                means.index.tolist(), means["mean"].tolist(), mode=mode, text=text,
                hoverinfo="y+text", line={"color": INK, "width": 1.5}, marker=diamond,
            )
        )  # fmt: skip
    yaxis = {"title": {"text": short(part.metric, 40)}}
    return figure(data, height=280, xaxis=axis.layout(name), yaxis=yaxis, showlegend=False)


def parallel(part: Part, table: pd.DataFrame, names: list[str]) -> Figure:
    """Each configuration as a line from axis to axis; the darker the better, the metric last.

    customdata is (configuration, axis, value) by index: a click on a value keeps the lines
    through it. Lines are shifted a little by rank, so that those of equal values lie side by side.
    """
    axes = [axis_of(part, name, table) for name in names]
    low, high, last = table["mean"].min(), table["mean"].max(), len(names)
    height = (table["mean"] - low) / (high - low) if high > low else table["mean"] * 0 + 0.5
    strands: dict[str, dict[str, Any]] = {}
    for rank, row in reversed(list(enumerate(each(table)))):
        shade = SHADES[rank * len(SHADES) // len(table)]
        strand = strands.setdefault(shade, {"x": [], "y": [], "text": [], "customdata": []})
        shift = 0.05 * (0.5 - (rank + 0.5) / len(table))
        values = [row.params[name] for name in names]
        shares = [axis.share(value) + shift for axis, value in zip(axes, values, strict=True)]
        indices = [axis.index(value) for axis, value in zip(axes, values, strict=True)]
        strand["x"] += [*range(last + 1), None]
        strand["y"] += [*shares, float(height.iloc[rank]), None]
        strand["text"] += [hover(row, names)] * (last + 1) + [None]
        strand["customdata"] += [[rank, a, i] for a, i in enumerate([*indices, rank])] + [None]
    look: dict[str, Any] = {"mode": "lines+markers", "hoverinfo": "text", "marker": {"size": 5}}
    notes = [
        _tick(place, axis.share(value), short(brief(value), 14))
        for place, axis in enumerate(axes)
        for value in axis.ticks()
    ]
    notes += [_tick(last, share, f"{mean:.4g}", "left") for share, mean in
              {float(height.min()): low, float(height.max()): high}.items()]  # fmt: skip
    rule = {"type": "line", "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
    logs = [" (log)" if axis.kind == "log" else "" for axis in axes]
    titles = [short(name, 20) + log for name, log in zip(names, logs, strict=True)]
    ticks = {"tickvals": [*range(last + 1)], "ticktext": [*titles, short(part.metric, 20)]}
    bare = {"showgrid": False, "showline": False, "ticks": "", "tickangle": 0, "side": "top"}
    return figure(
        [scatter(**s, **look, line={"color": c, "width": 1.6}) for c, s in strands.items()],
        height=430,
        showlegend=False,
        annotations=notes,
        shapes=[{**rule, "x0": place, "x1": place} for place in range(last + 1)],
        xaxis={**ticks, **bare, "range": [-0.5, last + 0.5]},
        yaxis={"visible": False, "range": [-0.08, 1.08]},
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
    )


def _tick(place: int, share: float, text: str, side: str = "right") -> dict[str, Any]:
    """A label beside a rule of the parallel coordinates."""
    return {
        "x": place, "y": share, "text": text, "xanchor": side, "showarrow": False,
        "xshift": -7 if side == "right" else 7,
        "bgcolor": "rgba(255,255,255,0.8)", "font": {"size": 12},
    }  # fmt: skip
