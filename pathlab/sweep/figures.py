"""The report's figures, as the plain dicts that plotly.js draws: {"data": [...], "layout": {...}}.

Plain dicts take a thousandth of the time of plotly.graph_objects; the tests validate them with it.
Texts are escaped, since plotly reads a little HTML in them.
"""

import html
import statistics

from pathlab.sweep.report_data import Configuration, Part, best, brief

BLUE, ORANGE, GREEN, RED, PINK, SKY = COLOURS = (  # Okabe and Ito, safe for the colour-blind
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#56b4e9",
)
GREY, FAINT = "#8a8f98", "#c9ccd1"
LEGEND_ROW = 19  # pixels


def escaped(text: str) -> str:
    return html.escape(text, quote=False)


def short(text: str, most: int = 18) -> str:
    return escaped(text if len(text) <= most else text[: most - 1] + "…")


def label(configuration: Configuration, names: list[str]) -> str:
    """Such as "#7: cnn · 0.001"."""
    values = [short(brief(configuration.params[n])) for n in names if n in configuration.params]
    return (
        f"#{configuration.number}: {' · '.join(values)}" if values else f"#{configuration.number}"
    )


def hover(configuration: Configuration, names: list[str]) -> str:
    lines = [f"#{configuration.number}"]
    lines += [
        f"{short(n, 40)} = {short(brief(configuration.params[n]), 60)}"
        for n in names
        if n in configuration.params
    ]
    return "<br>".join([*lines, f"mean {configuration.mean:.5g} (n = {len(configuration.values)})"])


def figure(data: list[dict], height: int, **layout: object) -> dict:
    return {"data": data, "layout": {"height": height, **layout}}


def curves(part: Part, configurations: list[Configuration]) -> dict | None:
    """The metric by epoch: the six best configurations in colours, the others grey.

    A line is the mean over the seeds, its band reaches from the lowest to the highest. None
    without any curve.
    """
    names, data = part.varied(), []
    chosen = best(configurations)
    drawn = [c for c in configurations if any(t.curve for t in c.counted)]
    drawn.sort(key=lambda c: c is not chosen)  # stable: the others stay ranked by their mean
    others = [t for t in part.trials if t.curve and not t.counts]
    data += _bundle(
        [(f"#{t.number} {t.state}", t.curve) for t in others], "pruned or failed", "dot"
    )
    rest = [(label(c, names), _mean(c)) for c in drawn[len(COLOURS) :]]
    data += _bundle(rest, f"{len(rest)} other configurations", "solid")
    for rank, configuration in reversed(list(enumerate(drawn[: len(COLOURS)]))):
        mean, colour, first = _mean(configuration), COLOURS[rank], configuration is chosen
        x = [epoch for epoch, _ in mean]
        if len(configuration.counted) > 1:
            data.append(_band(configuration, colour, x))
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(x) <= 40 else "lines",
                "x": x,
                "y": [value for _, value in mean],
                "name": ("best: " if first else "") + label(configuration, names),
                "text": [hover(configuration, names)] * len(x),
                "hoverinfo": "x+y+text",
                "line": {"color": colour, "width": 4 if first else 1.8},
                "marker": {"size": 7 if first else 5},
                "legendrank": rank + 1,
            }
        )
    if not data:
        return None
    last = max(epoch for trial in part.trials for epoch, _ in trial.curve)
    entries = min(len(drawn), len(COLOURS)) + bool(rest) + bool(others)
    return figure(
        data,
        height=370 + LEGEND_ROW * entries,
        xaxis={
            "title": {"text": "epoch"},
            **({"dtick": 1} if last <= 12 else {}),
        },
        yaxis={"title": {"text": short(part.metric.removeprefix("best_"), 40)}},
        showlegend=True,
        legend={"x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom", "yref": "container"},
        margin={"b": 62 + LEGEND_ROW * entries},
    )


def _by_epoch(configuration: Configuration) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for trial in configuration.counted:
        for epoch, value in trial.curve:
            found.setdefault(epoch, []).append(value)
    return dict(sorted(found.items()))


def _mean(configuration: Configuration) -> list[tuple[float, float]]:
    return [(e, sum(values) / len(values)) for e, values in _by_epoch(configuration).items()]


def _band(configuration: Configuration, colour: str, x: list[float]) -> dict:
    values = _by_epoch(configuration).values()
    return {
        "type": "scatter",
        "mode": "none",
        "x": x + x[::-1],
        "y": [max(v) for v in values] + [min(v) for v in values][::-1],
        "fill": "toself",
        "fillcolor": colour + "30",
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _bundle(lines: list[tuple[str, list[tuple[float, float]]]], name: str, dash: str) -> list[dict]:
    """Many lines as one trace: hundreds of traces would be slow."""
    if not lines:
        return []
    x, y, text = [], [], []
    for line_name, points in lines:
        x += [epoch for epoch, _ in points] + [None]
        y += [value for _, value in points] + [None]
        text += [line_name] * len(points) + [None]
    alone = all(len(points) == 1 for _, points in lines)
    return [
        {
            "type": "scatter",
            "mode": "markers" if alone else "lines",
            "x": x,
            "y": y,
            "text": text,
            "hoverinfo": "x+y+text",
            "name": name,
            "line": {"color": FAINT if dash == "solid" else GREY, "width": 1, "dash": dash},
            "marker": {"color": FAINT if dash == "solid" else GREY, "size": 5},
            "legendrank": 100,
        }
    ]


def bars(importances: dict[str, float]) -> dict:
    names = list(importances)[::-1]  # plotly draws from below
    return figure(
        [
            {
                "type": "bar",
                "orientation": "h",
                "x": [importances[n] for n in names],
                "y": list(range(len(names))),
                "text": [f"{importances[n]:.0%}" for n in names],
                "textposition": "outside",
                "cliponaxis": False,
                "hoverinfo": "skip",
                "marker": {"color": BLUE},
            }
        ],
        height=90 + 34 * len(names),
        xaxis={"range": [0, 1.12], "tickformat": ".0%", "title": {"text": "share of the variance"}},
        yaxis={"tickvals": list(range(len(names))), "ticktext": [short(n, 24) for n in names]},
        margin={"t": 10},
    )


def architectures(metric: str, rows: list[tuple[str, list[float]]]) -> dict:
    """The best configuration of each model: its seeds as points, mean and standard deviation."""
    places = range(len(rows))
    return figure(
        [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [p for p in places for _ in rows[p][1]],
                "y": [value for _, values in rows for value in values],
                "hoverinfo": "y",
                "name": "a seed",
                "marker": {"color": SKY, "size": 8, "opacity": 0.8},
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": list(places),
                "y": [statistics.fmean(values) for _, values in rows],
                "error_y": {
                    "type": "data",
                    "array": [statistics.stdev(v) if len(v) > 1 else 0 for _, v in rows],
                    "thickness": 2,
                    "width": 8,
                },
                "hoverinfo": "y",
                "name": "mean ± standard deviation",
                "marker": {"color": BLUE, "size": 11, "symbol": "diamond"},
            },
        ],
        height=260,
        xaxis={
            "tickvals": list(places),
            "ticktext": [short(model) for model, _ in rows],
            "range": [-0.6, len(rows) - 0.4],
        },
        yaxis={"title": {"text": short(metric, 40)}},
        showlegend=False,
    )
