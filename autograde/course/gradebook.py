"""A whole class: the gradebook as CSV, and an overview as an HTML page."""

import csv
import io
import math
import statistics
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from autograde.assignment import Assignment, GradedTest
from autograde.report import number, render
from autograde.results import Results, Verdict

# UNREADABLE: the submission itself cannot be graded, 0 points. FAILED: the grading went wrong.
GRADED, UNREADABLE, FAILED, WAITING = "graded", "unreadable", "failed to grade", "waiting"
BARS = 12  # at most, of the histogram
CAUSES = 3  # most frequent ones that are shown for a test
LABEL = "Likely cause: "


@dataclass(frozen=True)
class Row:
    """One student. id and note: plain text; stem: a harmless file name, see roster.Student."""

    id: str
    stem: str
    status: str
    seconds: float
    note: str
    results: Results | None

    def points(self, parts: Collection[str]) -> list[str]:
        """The score, then the points of each part; empty texts where nothing was graded."""
        if not (self.results and self.results.verdicts):
            return [""] * (1 + len(parts))
        of_parts = self.results.parts
        return [number(self.results.score), *(number(of_parts[part][0]) for part in parts)]

    def points_of_test(self, test: str) -> str:
        """The points of one test, by its number; "" where it was not graded."""
        verdict = self.results.verdicts.get(test) if self.results else None
        return number(verdict.score) if verdict else ""


def gradebook(assignment: Assignment, rows: list[Row]) -> str:
    """CSV with a row for each student; points are empty where nothing was graded.

    The columns of the tests are called "test 1.10": a spreadsheet would read 1.10 as 1.1.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = [part.name for part in assignment.parts.values()]
    columns = [part.column or part.name.lower() for part in assignment.parts.values()]
    columns += [f"test {test}" for test in assignment.tests]
    writer.writerow(["id", "score", *columns, "status", "seconds", "note"])
    for row in rows:
        points = row.points(parts) + [row.points_of_test(test) for test in assignment.tests]
        seconds = number(row.seconds) if row.status != WAITING else ""
        texts = [_harmless(text) for text in (row.id, row.status, row.note)]
        writer.writerow([texts[0], *points, texts[1], seconds, texts[2]])
    return out.getvalue()


def _harmless(cell: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def overview(assignment: Assignment, rows: list[Row]) -> str:
    """The page of a class, finished or not."""
    counts = Counter(row.status for row in rows)
    graded = [row.results for row in rows if row.results and row.results.verdicts]
    scores, most = [results.score for results in graded], assignment.points
    return render(
        "class.html",
        rows=rows,
        statuses=[f"{counts[s]} {s}" for s in (GRADED, UNREADABLE, FAILED, WAITING) if counts[s]],
        parts=[part.name for part in assignment.parts.values()],
        scores=scores,
        mean=statistics.mean(scores or [0]),
        median=statistics.median(scores or [0]),
        most=most,
        histogram=histogram(scores, most),
        tests=[summarize_test(graded, test) for test in assignment.tests.values() if graded],
    )


def histogram(scores: list[float], most: float) -> tuple[int, list[int]]:
    """(points to a bar, students in each bar from 0 to `most`). The last holds full points too."""
    width = max(1, math.ceil(most / BARS))
    bars = max(1, math.ceil(most / width))
    counts = Counter(min(bars - 1, int(score // width)) for score in scores)
    return width, [counts[bar] for bar in range(bars)]


def summarize_test(graded: list[Results], test: GradedTest) -> dict[str, object]:
    """How a class did in one test: how many verdicts there are of each state, and the most frequent
    causes of lost points as (cause, times)."""
    found = [r.verdicts[test.number] for r in graded if test.number in r.verdicts]
    causes = Counter(cause_of(verdict) for verdict in found if verdict.state in ("partly", "lost"))
    return {
        "number": test.number,
        "title": test.title,
        "states": Counter(verdict.state for verdict in found),
        "causes": causes.most_common(CAUSES),
    }


def cause_of(verdict: Verdict) -> str:
    """Why a test lost points, in words that are the same for many: the likely cause if the grader
    has one, else the first line."""
    lines = verdict.output.split("\n")
    causes = [line.removeprefix(LABEL) for line in lines if line.startswith(LABEL)]
    text = causes[-1] if causes else lines[0]
    return text if len(text) <= 200 else f"{text[:200]} …"
