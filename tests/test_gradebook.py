"""The gradebook, the pages, and results.json."""

import csv
import io
import re
import subprocess
import sys

from conftest import REPO
from course import ASSIGNMENT, HOSTILE, raising, read_page

from autograde.course.gradebook import GRADED, Row, gradebook, overview
from autograde.report import page
from autograde.results import Results, Verdict


def test_a_page_says_everything_and_runs_nothing_of_a_submission():
    results = Results(ASSIGNMENT, f"{HOSTILE}.zip")
    outputs = [
        (2, "Passed."),
        (0.5, f"Expected: {HOSTILE}\nGot: a\nb\nLikely cause: c"),
        (0, f"Your code raised {HOSTILE}"),
        (0, "This test was not reached."),
    ]
    for index, (score, output) in enumerate(outputs, 1):
        verdict = Verdict(f"1.{index}", f"T{index} {HOSTILE}", 2, "visible", score, output)
        results.verdicts[verdict.number] = verdict
    results.notes.append(HOSTILE)
    found = read_page(page(results))
    assert found.links == []
    assert found.text.count(HOSTILE) == 9  # title, heading, four tests, twice said, note
    for words in ("2.5", "of 8 points", "1 passed", "1 partly", "1 lost", "1 not graded"):
        assert words in found.text
    assert "Got: a\nb\nLikely cause: c" in found.text


def test_pytest_writes_the_page(tmp_path):
    source, report = raising(tmp_path / "one", HOSTILE), tmp_path / "page.html"
    grader = [sys.executable, "-m", "pytest", "grader", "--fast", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*grader, f"--submission={source}", f"--report={report}"], cwd=REPO, capture_output=True
    )
    assert done.returncode == 1
    found = read_page(report.read_text())
    assert HOSTILE in found.text and "Grading of one" in found.text and "of 60 points" in found.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "page.html"]


def test_no_cell_of_the_gradebook_is_a_formula():
    ids = ["=1+1", "+1", "-1", "@x", "\t=1", "ok", "a,b", '"', "'"]
    rows = [Row(name, "s", GRADED, 1.0, "=note", None) for name in ids]
    cells = [cell for row in csv.reader(io.StringIO(gradebook(ASSIGNMENT, rows))) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert {"ok", "a,b", '"', "'=1+1"} <= set(cells)


def test_the_overview_escapes_what_comes_from_students_and_gradings():
    verdict = Verdict("1.1", HOSTILE, 2, "visible", 0, f"Likely cause: {HOSTILE}")
    results = Results(ASSIGNMENT, verdicts={"1.1": verdict})
    found = read_page(
        overview(ASSIGNMENT, [Row(HOSTILE, "harmless", GRADED, 1.0, HOSTILE, results)])
    )
    assert found.text.count(HOSTILE) == 4 and found.links == ["results/harmless.html"]


def test_every_score_is_in_the_histogram():
    rows = []
    for score in (0, 0, 4.99, 5, 59.99, 60):
        verdict = Verdict("1.1", "t", 60, "visible", score)
        results = Results(ASSIGNMENT, verdicts={"1.1": verdict})
        rows.append(Row("a", "a", GRADED, 1.0, "", results))
    text = overview(ASSIGNMENT, rows)
    assert {"svg", "rect"} <= read_page(text).tags
    counts = re.findall(r'<text class="count"[^>]*>(\d+)</text>', text)
    assert counts == ["3", "1", "2"]


def test_results_are_read_as_they_were_written(tmp_path):
    results = Results(ASSIGNMENT, notes=["one", "two"], isolation="landlock")
    results.verdicts["1.1"] = Verdict("1.1", "t", 2, "visible", 0.5, "x\ny")
    results.write(tmp_path / "results.json")
    again = Results.read(tmp_path / "results.json", ASSIGNMENT)
    assert again.isolation == "landlock"
    assert (again.score, again.notes, again.parts) == (0.5, ["one", "two"], results.parts)
    assert list(again.verdicts.values()) == list(results.verdicts.values())
