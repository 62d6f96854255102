"""A whole class: the gradebook as CSV, and an overview as an HTML page."""

import csv
import io
import math
import statistics
from collections import Counter
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from autograde.report import document, in_order, number
from autograde.results import PARTS, Results, Verdict

# UNREADABLE: the submission itself cannot be graded, 0 points. FAILED: the grading went wrong.
GRADED, UNREADABLE, FAILED, WAITING = "graded", "unreadable", "failed to grade", "waiting"
BARS = 12  # of the histogram
CAUSES = 3  # most frequent ones that are shown for a test
LABEL = "Likely cause: "
STYLE = """
body { max-width: 75rem; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.text { text-align: left; overflow-wrap: anywhere; }
.text:first-child { min-width: min(17rem, 45vw); }
.text:last-child { min-width: 13rem; }
a { color: var(--bar); }
svg { width: 100%; max-width: 40rem; height: auto; fill: var(--ink); font-size: 13px; }
svg rect { fill: var(--bar); } svg line { stroke: var(--soft); }
ul { margin: 0; padding-left: 1.1rem; }
"""


@dataclass(frozen=True)
class Row:
    """One student. id and note: plain text; stem: a harmless file name, see classroom.Student."""

    id: str
    stem: str
    status: str
    seconds: float
    note: str
    results: Results | None


def gradebook(rows: list[Row]) -> str:
    """CSV with a row for each student; points are empty where nothing was graded.

    The columns of the tests are called "test 1.10": a spreadsheet would read 1.10 as 1.1.
    """
    tests = _numbers(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ["part 1", "part 2", "extra"]
    tests_named = [f"test {test}" for test in tests]
    writer.writerow(["id", "score", *parts, *tests_named, "status", "seconds", "note"])
    for row in rows:
        points = [""] * (1 + len(parts) + len(tests))
        if row.results and row.results.verdicts:
            scores = {verdict.number: verdict.score for verdict in row.results.verdicts.values()}
            points = [number(row.results.score)]
            points += [number(row.results.parts[part][0]) for part in PARTS]
            points += [number(scores[test]) if test in scores else "" for test in tests]
        seconds = number(row.seconds) if row.status != WAITING else ""
        texts = [_harmless(text) for text in (row.id, row.status, row.note)]
        writer.writerow([texts[0], *points, texts[1], seconds, texts[2]])
    return out.getvalue()


def _harmless(cell: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _numbers(rows: list[Row]) -> list[str]:
    graded = [row.results for row in rows if row.results]
    found = {verdict.number for results in graded for verdict in results.verdicts.values()}
    return sorted(found, key=in_order)


def overview(rows: list[Row]) -> str:
    """The page of a class, finished or not."""
    counts = Counter(row.status for row in rows)
    said = [f"{counts[s]} {s}" for s in (GRADED, UNREADABLE, FAILED, WAITING) if counts[s]]
    body = [f"<h1>{len(rows)} submissions</h1>", f'<p class="soft">{" · ".join(said)}</p>']
    graded = [row for row in rows if row.results and row.results.verdicts]
    if graded:
        scores = [row.results.score for row in graded]
        most = sum(v.max_score for v in graded[0].results.verdicts.values())
        body.append(
            f'<p class="total">{number(statistics.mean(scores))} <small>points of {number(most)} '
            f"on average; median {number(statistics.median(scores))}, lowest "
            f"{number(min(scores))}, highest {number(max(scores))}</small></p>"
        )
        body += ["<h2>Scores</h2>", histogram(scores, most)]
    body += ["<h2>Students</h2>", _students(rows)]
    if graded:
        body += ["<h2>Tests</h2>", _tests([row.results for row in graded])]
    return document(f"{len(rows)} submissions", "\n".join(body), STYLE)


def histogram(scores: list[float], most: float) -> str:
    """How many students have how many points, as SVG. The last bar holds full points too."""
    width = max(1, math.ceil(most / BARS))
    bars = max(1, math.ceil(most / width))
    counts = Counter(min(bars - 1, int(score // width)) for score in scores)
    step, height, base = 600 / bars, 120, 145
    shapes = [f'<line x1="0" y1="{base}" x2="600" y2="{base}"/>']
    for bar in range(bars):
        x, count = bar * step, counts[bar]
        tall = height * count / max(counts.values())
        shapes.append(f'<text x="{x:.0f}" y="{base + 17}">{bar * width}</text>')
        if count:
            shapes.append(
                f'<rect x="{x + 2:.1f}" y="{base - tall:.1f}" width="{step - 4:.1f}" '
                f'height="{tall:.1f}"/><text x="{x + step / 2:.1f}" y="{base - tall - 5:.1f}" '
                f'text-anchor="middle">{count}</text>'
            )
    shapes.append(f'<text x="600" y="{base + 17}" text-anchor="end">{number(most)}</text>')
    label = f"Histogram: students by points, {width} points to a bar"
    return f'<svg viewBox="0 0 600 170" role="img" aria-label="{label}">{"".join(shapes)}</svg>'


def _students(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        name, points = escape(row.id), ["&ndash;"] * (1 + len(PARTS))
        if row.results:
            name = f'<a href="results/{quote(row.stem)}.html">{name}</a>'
        if row.results and row.results.verdicts:
            points = [number(row.results.score)]
            points += [number(row.results.parts[part][0]) for part in PARTS]
        cells = "".join(f"<td>{cell}</td>" for cell in points)
        lines.append(
            f'<tr><td class="text">{name}</td>{cells}<td>{row.seconds:.0f}</td>'
            f'<td class="text">{escape(row.status)}</td><td class="text">{escape(row.note)}</td>'
        )
    heads = "".join(f"<th>{part}</th>" for part in ("Score", *PARTS, "Seconds"))
    heads = f'<th class="text">Id</th>{heads}<th class="text">Status</th><th class="text">Note</th>'
    return _table(heads, lines)


def _tests(graded: list[Results]) -> str:
    """For each test how many passed, and what cost the others their points."""
    verdicts: dict[str, list[Verdict]] = {}
    for results in graded:
        for verdict in results.verdicts.values():
            verdicts.setdefault(verdict.number, []).append(verdict)
    lines = []
    for test in sorted(verdicts, key=in_order):
        states = Counter(verdict.state for verdict in verdicts[test])
        causes = Counter(
            cause_of(verdict) for verdict in verdicts[test] if verdict.state in ("partly", "lost")
        )
        items = [f"<li>{count} &times; {escape(c)}</li>" for c, count in causes.most_common(CAUSES)]
        cells = "".join(
            f"<td>{states[state] or '&ndash;'}</td>"
            for state in ("passed", "partly", "lost", "not graded")
        )
        lines.append(
            f'<tr><td>{escape(test)}</td><td class="text">{escape(verdicts[test][0].title)}</td>'
            f'{cells}<td class="text"><ul>{"".join(items)}</ul></td>'
        )
    heads = '<th></th><th class="text">Test</th><th>✓ passed</th><th>◐ partly</th><th>✗ lost</th>'
    heads += '<th>○ not graded</th><th class="text">Most frequent causes</th>'
    return _table(heads, lines)


def _table(heads: str, lines: list[str]) -> str:
    rows = "\n".join(f"{line}</tr>" for line in lines)
    return f'<div class="wide"><table>\n<tr>{heads}</tr>\n{rows}\n</table></div>'


def cause_of(verdict: Verdict) -> str:
    """Why a test lost points, in words that are the same for many: the likely cause if the grader
    has one, else the first line."""
    lines = verdict.output.split("\n")
    causes = [line.removeprefix(LABEL) for line in lines if line.startswith(LABEL)]
    text = causes[-1] if causes else lines[0]
    return text if len(text) <= 200 else f"{text[:200]} …"
