"""The report of a sweep: one page that opens offline, with all figures and tables.

Everything that comes from the sweep's files is untrusted text: it is escaped wherever it is shown.
"""

import json
import statistics
import time
from html import escape
from pathlib import Path
from string import Template

from pathlab.files import write_atomically
from pathlab.sweep import figures
from pathlab.sweep.page import EMPTY, cell, figure_place, mean_cell, numbers, table
from pathlab.sweep.report_data import (
    STATES,
    Configuration,
    Part,
    Sweep,
    best,
    metric_on_test,
    read_sweep,
    shown,
)
from pathlab.sweep.report_part import part_section

TEMPLATE = Path(__file__).with_name("report_template.html")


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from what a sweep has left in `folder` so far; return its path.

    What is missing or damaged is left out, and the page says so. Raises UserError if the page
    cannot be written.
    """
    from plotly.offline import get_plotlyjs

    sweep = read_sweep(folder)
    specs: list[dict] = []
    body = _overview(sweep) + _architectures(sweep, specs)
    body += "".join(part_section(part, i, specs) for i, part in enumerate(sweep.parts))
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Sweep report: {sweep.name}"),
        body=body,
        plotly=get_plotlyjs() if specs else "",
        figures=json.dumps(specs, allow_nan=False).replace("<", "\\u003c"),
    )
    path = folder / "report.html"
    write_atomically(path, page.encode("utf-8", errors="replace"))  # a file may have "\ud800"
    return path


def _overview(sweep: Sweep) -> str:
    trials = [trial for part in sweep.parts for trial in part.trials]
    counts = [
        f"<li><b>{sum(t.state == state for t in trials)}</b> {state}</li>" for state in STATES
    ]
    planned = [part.planned(sweep) for part in sweep.parts]
    if planned and None not in planned:
        counts.append(f"<li>of <b>{sum(planned)}</b> planned</li>")
    if sweep.unfinished:
        counts.append(f"<li><b>{sweep.unfinished}</b> running or interrupted</li>")
    about = f"search: {sweep.search}" + ("" if sweep.trials is None else f", {sweep.trials} trials")
    rows = [_searched(part) for part in sweep.parts]
    written = time.strftime("%Y-%m-%d %H:%M")
    notes = "".join(f"<li>{escape(note)}</li>" for note in sweep.notes)
    links = "".join(f'<a href="#part-{i}">{escape(p.name)}</a>' for i, p in enumerate(sweep.parts))
    return (
        f"<p class='quiet'>Written {written}; {escape(about)}; pruner: {escape(sweep.pruner)}.</p>"
        f"<ul class='counts'>{''.join(counts)}</ul>"
        + (f"<nav>{links}</nav>" if len(sweep.parts) > 1 else "")
        + (f"<details class='notes'><summary>Left out or unusual: {len(sweep.notes)}</summary>"
           f"<ul>{notes}</ul></details>" if notes else "")
        + "<h2>What was searched</h2>"
        + (table(["part", "script", "metric", "searched", "fixed", "seeds"], rows, "searched")
           if rows else "<p>No part of the sweep is known.</p>")
    )  # fmt: skip


def _searched(part: Part) -> list[str]:
    def listed(values: dict[str, object]) -> str:
        lines = []
        for name, value in values.items():
            text = ", ".join(map(shown, value)) if isinstance(value, list) else shown(value)
            if isinstance(value, dict) and {"low", "high"} <= set(value):
                text = f"{shown(value['low'])} to {shown(value['high'])}"
                text += " (log scale)" if value.get("log") is True else ""
            lines.append(f"<div><code>{escape(name)}</code>: {escape(text)}</div>")
        return f"<td class='wide'>{''.join(lines) or EMPTY}</td>"

    goal = f"{part.metric} ({'higher' if part.maximize else 'lower'} is better)"
    seeds = ", ".join(map(shown, part.seeds)) or "one run each"
    return [
        cell(part.name),
        cell(Path(part.script).name),
        cell(goal),
        listed(part.params),
        listed(part.fixed),
        cell(seeds),
    ]


def _architectures(sweep: Sweep, specs: list[dict]) -> str:
    """The best configuration of each model of each part; nothing where no model is named."""
    rows, drawn = [], ""
    for part in sweep.parts:
        points = []
        groups: dict[str, list[Configuration]] = {}
        for configuration in part.configurations():
            model = _model(part, configuration)
            if model is not None and configuration.values:
                groups.setdefault(shown(model), []).append(configuration)
        for model, configurations in groups.items():
            chosen = best(configurations)
            results = [trial.results for trial in chosen.counted]
            sizes = numbers(results, "parameters")
            seconds = numbers(results, "train_seconds")
            tests = numbers(results, metric_on_test(part.metric))
            tasks = [r["task"] for r in results if isinstance(r.get("task"), str)]
            rows.append(
                [
                    cell(tasks[0] if tasks else Path(part.script).name),
                    cell(part.name),
                    cell(model),
                    cell(part.metric),
                    mean_cell(chosen.values),
                    cell(len(chosen.values)),
                    mean_cell(tests),
                    cell(sizes[0] if sizes else None),
                    cell(statistics.median(seconds) if seconds else None, digits=1),
                    cell(chosen.number),
                ]
            )
            points.append((model, chosen.values))
        if points:
            figure = figure_place(specs, figures.architectures(part.metric, points), part.name)
            drawn += f"<div><h4>{escape(part.name)}</h4>{figure}</div>"
    if not rows:
        return ""
    head = ["task", "part", "model", "metric", "best mean ± sd", "n", "test mean ± sd"]
    head += ["parameters", "train s (median)", "#"]
    return (
        "<section id='architectures'><h2>Architectures</h2><p class='quiet'>The best configuration "
        "of each model, and its number (#). sd: standard deviation over n seeds; in the figures, "
        "points are seeds and a diamond with its bar is mean ± sd.</p>"
        f"{table(head, rows)}<div class='small'>{drawn}</div></section>"
    )


def _model(part: Part, configuration: Configuration) -> object:
    found = [configuration.params.get("model"), part.fixed.get("model")]
    found[1:1] = [trial.results.get("model") for trial in configuration.counted]
    return next((model for model in found if model is not None), None)
