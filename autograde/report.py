"""One grading as an HTML page: one file, no scripts, nothing loaded, fit for a phone and for paper.

Much of what a page says comes from a submission. All of it is escaped, nothing becomes a link, and
the browser is told to load and run nothing, in case of a mistake here.
"""

import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autograde.results import Results, Verdict

LABEL = re.compile(r"^(Expected|Got|Likely cause|Where): ", re.MULTILINE)
MARKS = {"passed": "✓", "partly": "◐", "lost": "✗", "not graded": "○"}
STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b2430; --soft: #5b6675;
  --line: #dce1e8; --passed: #14713d; --partly: #8a5a00; --lost: #b3261e; --bar: #3267b1; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b212a; --ink: #e6eaf0;
  --soft: #9aa6b5; --line: #323b48; --passed: #5fce8d; --partly: #e9b34b; --lost: #ff8b80;
  --bar: #78a9ec; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 52rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { margin: 0; font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .6rem; font-size: 1.1rem; }
h3 { margin: 0; font-size: 1rem; font-weight: 600; flex: 1; }
.total { margin: .2rem 0 .8rem; font-size: 2.6rem; font-weight: 700; line-height: 1.1; }
.total small, .soft { color: var(--soft); font-size: .95rem; font-weight: 400; }
.card { margin: .5rem 0; padding: .6rem .8rem; background: var(--card); border-radius: .5rem;
  border: 1px solid var(--line); border-left-width: .35rem; break-inside: avoid-page; }
.row { display: flex; gap: .6rem; align-items: baseline; }
.number { color: var(--soft); min-width: 2.2rem; font-variant-numeric: tabular-nums; }
.points { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.state { min-width: 5.6rem; text-align: right; white-space: nowrap; font-weight: 600; }
.passed { border-left-color: var(--passed); } .passed .state { color: var(--passed); }
.partly { border-left-color: var(--partly); } .partly .state { color: var(--partly); }
.lost { border-left-color: var(--lost); } .lost .state { color: var(--lost); }
.said { margin: .5rem 0 .1rem; white-space: pre-wrap; overflow-wrap: anywhere;
  unicode-bidi: isolate; }
.bar { height: .5rem; margin: .2rem 0 .6rem; background: var(--line); border-radius: .25rem; }
.bar div { height: 100%; background: var(--bar); border-radius: .25rem; }
@media (max-width: 34rem) { .row { flex-wrap: wrap; } h3 { flex-basis: 75%; }
  .points { flex: 1; text-align: left; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb;
  --passed: #14713d; --partly: #8a5a00; --lost: #b3261e; --bar: #3267b1; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  .bar, .bar div, .card { print-color-adjust: exact; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A whole page. title: plain text; body and style: trusted, with everything escaped."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def number(points: float) -> str:
    """Points as people write them: 2, 1.5, 0.33."""
    return f"{round(points, 2):g}"


def in_order(test: str) -> tuple[int, ...]:
    """A key to sort the numbers of tests by: 1.2 before 1.10."""
    return tuple(int(digits) for digits in re.findall(r"\d+", test))


def page(results: "Results") -> str:
    """The page of one grading, finished or not."""
    verdicts = sorted(results.verdicts.values(), key=lambda verdict: in_order(verdict.number))
    most = sum(verdict.max_score for verdict in verdicts)
    body = [
        f"<h1>Grading of {escape(results.name or 'a submission')}</h1>",
        f'<p class="total">{number(results.score)} <small>of {number(most)} points</small></p>',
        f'<p class="soft">{_counts(verdicts)}</p>',
    ]
    parts = {part: points for part, points in results.parts.items() if points[1]}
    for part, (points, full) in parts.items():
        body.append(f"<div>{part}: <b>{number(points)}</b> of {number(full)}</div>")
        body.append(f'<div class="bar"><div style="width: {100 * points / full:.1f}%"></div></div>')
    heading = None
    for verdict in verdicts:
        if verdict.number[:1] != heading:
            heading = verdict.number[:1]
            body.append(f"<h2>{f'Part {heading}' if heading in '12' else 'Extra credit'}</h2>")
        body.append(_card(verdict))
    if results.notes:
        body.append("<h2>Notes</h2>")
        body += [f'<p class="said soft">{escape(note)}</p>' for note in results.notes]
    return document(f"{number(results.score)} points: {results.name}", "\n".join(body))


def _counts(verdicts: list["Verdict"]) -> str:
    states = [verdict.state for verdict in verdicts]
    counts = {state: states.count(state) for state in MARKS if state in states}
    return " · ".join(f"{MARKS[state]} {count} {state}" for state, count in counts.items())


def _card(verdict: "Verdict") -> str:
    state = verdict.state
    said = LABEL.sub(r"<b>\1:</b> ", escape(verdict.output))
    return (
        f'<section class="card {state}"><div class="row">'
        f'<span class="number">{escape(verdict.number)}</span><h3>{escape(verdict.title)}</h3>'
        f'<span class="points">{number(verdict.score)} of {number(verdict.max_score)}</span>'
        f'<span class="state">{MARKS[state]} {state}</span></div>'
        + (f'<div class="said">{said}</div>' if state != "passed" else "")
        + "</section>"
    )
