"""Pieces of the report's HTML. All text that is given is escaped."""

import statistics
from html import escape

from pathlab.sweep.report_data import STATES, brief, number

EMPTY = "\N{EN DASH}"


def quiet(text: str) -> str:
    return f"<p class='quiet'>{escape(text)}</p>"


def number_text(value: float, digits: int = 4) -> str:
    """Four decimals where they say enough, whole numbers with commas."""
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 1e15 else f"{value:.4g}"
    if value == 0 or 0.001 <= abs(value) < 10000:
        return f"{value:.{digits}f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.5g}"


def mean_text(values: list[float]) -> str:
    spread = f" ± {number_text(statistics.stdev(values))}" if len(values) > 1 else ""
    return number_text(statistics.fmean(values)) + spread


def cell(value: object, sign: bool = False, digits: int = 4) -> str:
    """A table's cell. data-value has the exact number to sort by; an empty cell sorts last."""
    if value is None:
        return f"<td data-value=''>{EMPTY}</td>"
    if number(value) is None:
        return f"<td>{escape(brief(value))}</td>"
    text = ("+" if sign and value > 0 else "") + number_text(value, digits)
    return f"<td class='number' data-value='{value!r}'>{text}</td>"


def mean_cell(values: list[float]) -> str:
    if not values:
        return cell(None)
    mean = statistics.fmean(values)
    return f"<td class='number' data-value='{mean!r}'>{mean_text(values)}</td>"


def param_cell(params: dict[str, object], name: str) -> str:
    if name not in params:
        return cell(None)
    value = params[name]
    exact = f"<td class='number' data-value='{value!r}'>{escape(brief(value))}</td>"
    return f"<td>{escape(brief(value))}</td>" if number(value) is None else exact


def table(
    head: list[str], rows: list[list[str]], kind: str = "", states: list[str] | None = None
) -> str:
    titles = "".join(f"<th scope='col'>{escape(title)}</th>" for title in head)
    marks = [f" data-state='{state}'" for state in states] if states else [""] * len(rows)
    lines = "".join(f"<tr{m}>{''.join(row)}</tr>" for m, row in zip(marks, rows, strict=True))
    return (
        f"<div class='scroll'><table class='{kind}'><thead><tr>{titles}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )


def explorer(head: list[str], rows: list[list[str]], states: list[str] | None = None) -> str:
    """A table that the page's script makes sortable, with boxes to filter it."""
    choice = ""
    if states:
        options = "".join(f"<option>{state}</option>" for state in STATES)
        choice = f"<label>State <select><option value=''>all</option>{options}</select></label>"
    return (
        "<div class='explorer'><div class='controls'><label>Filter "
        "<input type='search' placeholder='words in a row'></label>"
        f"{choice}<output aria-live='polite'></output></div>"
        f"{table(head, rows, 'sortable', states)}</div>"
    )


def figure_place(specs: list[dict], spec: dict, name: str, least_width: int = 0) -> str:
    """The place where the page's script draws `spec`."""
    specs.append(spec)
    height = spec["layout"]["height"]
    style = f"height:{height}px" + (f";min-width:{least_width}px" if least_width else "")
    return (
        f"<div class='scroll'><div class='figure' role='img' aria-label='{escape(name)}' "
        f"data-figure='{len(specs) - 1}' style='{style}'></div></div>"
    )


def numbers(results: list[dict], name: str) -> list[float]:
    return [v for v in (number(r.get(name)) for r in results) if v is not None]
