"""The report of a sweep: one page that opens offline, with all figures and tables.

Everything that comes from the sweep's files is untrusted text: the template escapes it.
"""

import json
import shlex
import time
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pathlab.files import write_atomically
from pathlab.sweep import figures, tables
from pathlab.sweep.axes import brief, shown
from pathlab.sweep.config import Part
from pathlab.sweep.importance import importances
from pathlab.sweep.tables import SweepFolder, best, counted, each, numbers_in, on_test

HERE = Path(__file__).resolve().parent
Place = Callable[..., dict[str, Any]]  # keeps a figure and returns where the page draws it


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from what a sweep has left in `folder` so far; return its path.

    What is missing or damaged is left out, and the page says so. Raises UserError if the page
    cannot be written.
    """
    from plotly.offline import get_plotlyjs

    specs: list[figures.Figure] = []

    def place(spec: figures.Figure, name: str, least_width: int = 0) -> dict[str, Any]:
        specs.append(spec)
        about = {"name": name, "height": spec["layout"]["height"], "least_width": least_width}
        return {"index": len(specs) - 1, **about}

    sweep = tables.read_sweep(folder)
    models = [(part, rows) for part in sweep.parts if (rows := _architectures(sweep, part))]
    page = (
        _environment()
        .get_template("report.html")
        .render(
            sweep=sweep,
            written=time.strftime("%Y-%m-%d %H:%M"),
            counts={state: int((sweep.trials["state"] == state).sum()) for state in tables.STATES},
            architectures=[row for _, rows in models for row in rows],
            compared=[
                (part.name, place(_compared(part, rows), part.name)) for part, rows in models
            ],
            parts=[_part(part, sweep.trials_of(part), place) for part in sweep.parts],
            figures=json.dumps(specs, allow_nan=False).replace("<", "\\u003c"),
            plotly=get_plotlyjs() if specs else "",
        )
    )
    path = folder / "report.html"
    write_atomically(path, page.encode("utf-8", errors="replace"))  # a file may have "\ud800"
    return path


def _environment() -> Environment:
    loader = FileSystemLoader([HERE / "templates", HERE.parent / "templates"])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "brief": brief,
        "shown": shown,
        "number": number_text,
        "mean_sd": mean_text,
        "finite": tables.finite,
        "folder_address": lambda name: quote(f"trials/{name}/", errors="replace"),
    }
    environment.globals |= {"mean": np.mean, "on_test": on_test}
    return environment


def number_text(value: float, digits: int = 4) -> str:
    """Four decimals where they say enough, whole numbers with commas."""
    if isinstance(value, Integral):
        return f"{value:,}" if abs(value) < 1e15 else f"{value:.4g}"
    if value == 0 or 0.001 <= abs(value) < 10000:
        return f"{value:.{digits}f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.5g}"


def mean_text(values: list[float]) -> str:
    """Mean ± standard deviation, or a single value alone."""
    spread = f" ± {number_text(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return number_text(float(np.mean(values))) + spread


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts, with None for NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _architectures(sweep: SweepFolder, part: Part) -> list[dict[str, Any]]:
    """The best configuration of each model of a part; nothing where no model is named."""
    trials = counted(sweep.trials_of(part))
    fixed = part.fixed.get("model")
    models = [
        t.params.get("model") or t.results.get("model") or fixed
        for t in each(trials)
    ]  # fmt: skip
    rows = []
    for model, group in trials.groupby(pd.Series(models, trials.index).map(shown), sort=False):
        chosen = best(tables.configurations(part, group))
        if model == "null" or chosen is None:
            continue
        results = list(group[group["key"] == chosen["key"]]["results"])
        tasks = [r["task"] for r in results if isinstance(r.get("task"), str)]
        sizes, seconds = numbers_in(results, "parameters"), numbers_in(results, "train_seconds")
        rows.append(
            {
                **chosen,
                "task": tasks[0] if tasks else part.script.name,
                "part": part,
                "model": model,
                "test": numbers_in(results, on_test(part.metric)),
                "parameters": sizes[0] if sizes else None,
                "seconds": float(np.median(seconds)) if seconds else None,
            }
        )
    return sorted(rows, key=lambda row: row["mean"], reverse=part.direction == "maximize")


def _compared(part: Part, rows: list[dict[str, Any]]) -> figures.Figure:
    return figures.architectures(
        part.metric, [row["model"] for row in rows], [row["values"] for row in rows]
    )


def _part(part: Part, trials: pd.DataFrame, place: Place) -> dict[str, Any]:
    """What the template shows of one part."""
    names = tables.varied(part, trials)
    table = tables.configurations(part, trials)
    measured = table[table["n"] > 0]
    test = on_test(part.metric)
    chosen = best(table)
    winners = counted(trials[trials["key"] == chosen["key"]]) if chosen is not None else trials[:0]
    curves = figures.curves(part, trials, measured, names)
    everywhere = [name for name in names if all(name in p for p in measured["params"])]
    somewhere = [name for name in names if any(name in p for p in measured["params"])]
    shares, about_shares = importances(part, table, names)
    lines = len(everywhere) > 1 and len(measured) > 1
    return {
        "about": part,
        "names": names,
        "best": None if chosen is None else chosen.to_dict(),
        "better": None if chosen is None else measured.iloc[0].to_dict(),
        "best_test": numbers_in(winners["results"], test),
        "commands": [_command(part, t.params, t.seed) for t in each(winners)],
        "configurations": records(table),
        "trials": records(trials),
        "tested": bool(numbers_in(trials["results"], test)),
        "curves": curves and place(curves, "curves"),
        "epochs": max((max(curve) for curve in trials["curve"] if curve), default=0),
        "about_shares": about_shares,
        "shares": shares and place(figures.bars(shares), "importance"),
        "parallel": lines and place(
            figures.parallel(part, measured, everywhere), "parallel", 140 * (len(everywhere) + 1)
        ),
        "slices": [place(figures.slices(part, measured, n, names), n) for n in somewhere],
        "ablation": tables.ablation(part, table, names),
        "failed": records(trials[trials["state"] == "failed"]),
    }  # fmt: skip


def _command(part: Part, params: dict[str, Any], seed: object) -> str:
    """The shell command that repeats a trial."""
    script = part.script
    if script.is_relative_to(Path.cwd()):
        script = script.relative_to(Path.cwd())
    return shlex.join(["python", str(script), *part.arguments(params, seed)])
