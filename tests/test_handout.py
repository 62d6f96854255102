"""The handout: what students get."""

import json
import re
import subprocess
import sys

import pytest
from conftest import REPO, assert_user_error
from course import run

from autograde.course.handout import remove_solutions


def test_only_what_stands_between_the_marks_is_taken_out():
    source = "def f():\n    ### BEGIN SOLUTION\n    x = 1\n\n    ### END SOLUTION\n    return 2\n"
    stripped, count = remove_solutions(source * 2)
    assert count == 2 and "x = 1" not in stripped and stripped.count("return 2") == 2
    assert stripped.count("    raise NotImplementedError(") == 2
    for broken in (
        source.replace("    ### END SOLUTION\n", ""),
        source.replace("    ### BEGIN SOLUTION\n", ""),
        source.replace("x = 1", "### BEGIN SOLUTION"),
        source.replace("    ### END", "  ### END"),
    ):
        with pytest.raises(ValueError, match="stands alone"):
            remove_solutions(broken + source)


def test_the_handout_has_what_students_need_and_nothing_else(handout):
    for name in (
        "pathlab/data/sets.py",
        "grader/operations.py",
        "docs/grader.md",
        "requirements.txt",
    ):
        assert (handout / name).read_bytes() == (REPO / name).read_bytes()
    unwanted = ("tests", "benchmarks", "capstones", "examples", "data", "runs")
    assert {path.name for path in handout.iterdir()}.isdisjoint(unwanted)
    assert {path.name for path in handout.rglob("*")}.isdisjoint((".git", "__pycache__"))
    assert (handout / "README.md").read_text().startswith("# PathLab\n\n> **This folder")
    readme = (handout / "README.md").read_text()
    assert "the blanks are filled in" not in readme
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert links and [link for link in links if not (handout / link).exists()] == []


def test_the_handout_is_graded_with_zero_points_and_says_not_written_yet(handout):
    results = handout.parent / "results.json"
    grading = [sys.executable, "-m", "pytest", "grader", "--fast", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*grading, f"--results={results}"], cwd=handout, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    value = json.loads(results.read_text())
    assert value["score"] == 0
    for test in value["tests"]:
        output = test["output"]
        alone = output.startswith("Not graded: trainings") or "checkpoints/" in output
        assert alone or "not written yet" in output, test
    assert sum("not written yet" in test["output"] for test in value["tests"]) > 20


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    assert_user_error(run("handout", tmp_path), "not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert_user_error(run("handout", tmp_path / "mine.txt"), "not empty")
