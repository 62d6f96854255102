"""The sections of a sweep's report on one of its parts."""

import statistics
from html import escape
from urllib.parse import quote

from pathlab.sweep import figures, parameter_figures
from pathlab.sweep.importance import importances
from pathlab.sweep.page import (
    cell,
    explorer,
    figure_place,
    mean_cell,
    mean_text,
    numbers,
    param_cell,
    quiet,
    table,
)
from pathlab.sweep.report_data import (
    Configuration,
    Part,
    Trial,
    best,
    brief,
    key,
    metric_on_test,
    number,
    shown,
)


def part_section(part: Part, place: int, specs: list[dict]) -> str:
    """All about one part. The figures' specs are appended to `specs`."""
    configurations = part.configurations()
    measured = [c for c in configurations if c.values]
    names = part.varied()
    sections = [
        ("Best configuration", _best(part, measured)),
        ("Configurations", _configurations(part, configurations, names)),
        ("Trials", _trials(part, names)),
    ]
    curves = figures.curves(part, configurations)
    if curves:
        longest = max(epoch for trial in part.trials for epoch, _ in trial.curve)
        text = "The six best configurations in colour: mean over the seeds, and a band from the "
        text += f"lowest to the highest. Names show {', '.join(names) or 'the number only'}."
        text += " No run had more than one epoch, so each is a single point." * (longest <= 1)
        sections.append(("Learning curves", quiet(text) + figure_place(specs, curves, "curves")))
    if measured:
        sections += _parameters(part, measured, names, specs)
        sections.append(("Ablation", _ablation(part, measured, names)))
    failed = [trial for trial in part.trials if trial.state == "failed"]
    if failed:
        sections.append(("Failed trials", _failures(failed)))
    inner = "".join(f"<section><h3>{title}</h3>{text}</section>" for title, text in sections)
    return f"<section class='part' id='part-{place}'><h2>{escape(part.name)}</h2>{inner}</section>"


def _best(part: Part, measured: list[Configuration]) -> str:
    chosen = best(measured)
    if chosen is None:
        return "<p>No trial is complete yet.</p>"
    params = ", ".join(f"{n} = {brief(v)}" for n, v in chosen.params.items()) or "no parameter"
    commands = "\n".join(part.command(chosen.params, trial.seed) for trial in chosen.counted)
    tests = numbers([trial.results for trial in chosen.counted], metric_on_test(part.metric))
    n = len(chosen.values)
    about = f"mean ± standard deviation, n = {n}" if n > 1 else "n = 1"
    lines = f"<p class='result'><b>{escape(part.metric)} {mean_text(chosen.values)}</b> "
    lines += f"<span class='quiet'>({about})</span></p>"
    lines += f"<p>Configuration #{chosen.number}: {escape(params)}.</p>"
    if tests:
        lines += (
            f"<p>On the test split: {escape(metric_on_test(part.metric))} {mean_text(tests)}.</p>"
        )
    if measured[0] is not chosen:
        lines += quiet(
            f"Configuration #{measured[0].number} has a better mean, from fewer seeds "
            f"({len(measured[0].values)}); it is not counted as the best before it has as many."
        )
    return f"<div class='best'>{lines}<pre class='command'>{escape(commands)}</pre></div>"


def _configurations(part: Part, configurations: list[Configuration], names: list[str]) -> str:
    rows = []
    for configuration in configurations:
        values = configuration.values
        rows.append(
            [
                cell(configuration.number),
                *(param_cell(configuration.params, name) for name in names),
                cell(statistics.fmean(values) if values else None),
                cell(statistics.stdev(values) if len(values) > 1 else None),
                cell(min(values, default=None)),
                cell(max(values, default=None)),
                cell(len(values)),
            ]
        )
    head = ["#", *names, f"mean {part.metric}", "standard deviation", "min", "max", "n"]
    return explorer(head, rows) if rows else "<p>None yet.</p>"


def _trials(part: Part, names: list[str]) -> str:
    test = metric_on_test(part.metric)
    tested = any(number(trial.results.get(test)) is not None for trial in part.trials)
    head = ["#", *names, "seed", "state", part.metric, *([test] if tested else []), "seconds"]
    rows = []
    for trial in part.trials:
        rows.append(
            [
                cell(trial.number),
                *(param_cell(trial.params, name) for name in names),
                cell(trial.seed),
                f"<td><span class='state {trial.state}'>{trial.state}</span></td>",
                cell(trial.value),
                *([cell(number(trial.results.get(test)))] if tested else []),
                cell(trial.seconds, digits=1),
                f"<td>{_link(trial)}</td>",
            ]
        )
    states = [trial.state for trial in part.trials]
    return explorer([*head, "folder"], rows, states) if rows else "<p>None yet.</p>"


def _parameters(
    part: Part, measured: list[Configuration], names: list[str], specs: list[dict]
) -> list[tuple[str, str]]:
    """The sections on importance, parallel coordinates and slices."""
    shares = importances(part, measured)
    if isinstance(shares, dict):
        text = "The share of the variance between configurations that a parameter accounts for on "
        text += f"its own (fANOVA on the means of {len(measured)} configurations). "
        text += "A rough figure where they are few." if len(measured) < 30 else ""
        shares = quiet(text) + figure_place(specs, figures.bars(shares), "importance")
    else:
        shares = quiet(shares)
    sections = [("Importance of the parameters", shares)]
    everywhere = [name for name in names if all(name in c.params for c in measured)]
    if len(everywhere) > 1 and len(measured) > 1:
        text = "A line is a configuration, the darker the better. Click on a point to keep only "
        text += (
            "the lines through its value, on more points to narrow further; click again to undo."
        )
        drawn = parameter_figures.parallel(part, measured, everywhere)
        drawn = figure_place(specs, drawn, "parallel", 140 * (len(everywhere) + 1))
        sections.append(("Parallel coordinates", quiet(text) + drawn))
    drawn = "".join(
        f"<div>{figure_place(specs, parameter_figures.slices(part, measured, name), name)}</div>"
        for name in names
        if any(name in c.params for c in measured)
    )
    if drawn:
        text = "Each complete trial against each parameter, those of the best configuration in "
        text += (
            "orange. A diamond is the mean over all trials with the value, whatever their others."
        )
        sections.append(("Slices", f"{quiet(text)}<div class='small'>{drawn}</div>"))
    return sections


def _ablation(part: Part, measured: list[Configuration], names: list[str]) -> str:
    """The best configuration with one parameter changed, for all such that are measured."""
    chosen = best(measured)
    found = {key(c.params): c for c in measured}
    trials = [trial for trial in part.trials if trial.counts]
    rows = [
        [
            "<td>best</td>",
            cell(None),
            cell(None),
            "<td class='number' data-value='0'>0</td>",
            mean_cell(chosen.values),
            cell(len(chosen.values)),
            cell(chosen.number),
        ]
    ]
    for name in names:
        if name not in chosen.params:
            continue
        for value in part.values_of(name, trials):
            other = found.get(key({**chosen.params, name: value}))
            if other is None or other is chosen:
                continue
            rows.append(
                [
                    cell(name),
                    f"<td>{escape(brief(chosen.params[name]))}</td>",
                    f"<td>{escape(brief(value))}</td>",
                    cell(other.mean - chosen.mean, sign=True),
                    mean_cell(other.values),
                    cell(len(other.values)),
                    cell(other.number),
                ]
            )
    if len(rows) == 1:
        return quiet("No configuration was measured that differs from the best in one parameter.")
    head = ["parameter", "in the best", "changed to", "difference", "mean ± sd", "n", "#"]
    text = f"The best configuration (#{chosen.number}) with one parameter changed, as far as tried."
    return quiet(text) + table(head, rows, "ablation")


def _failures(failed: list[Trial]) -> str:
    items = "".join(
        f"<h4>#{trial.number}, seed {escape(shown(trial.seed))}: "
        f"{escape(', '.join(f'{n} = {brief(v)}' for n, v in trial.params.items()))}</h4>"
        f"<pre>{escape(trial.error or 'No log was kept.')}</pre>"
        for trial in failed
    )
    return f"<details class='failures'><summary>{len(failed)} failed, with the last lines of " \
           f"their logs</summary>{items}</details>"  # fmt: skip


def _link(trial: Trial) -> str:
    address = quote(f"trials/{trial.name}/", errors="replace")
    return f"<a href='{address}'>{escape(trial.name)}</a>"
