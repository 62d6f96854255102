"""All numbers of the course come from its one file, and everything that shows them follows."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, environment

from autograde.assignment import read_assignment
from autograde.report import page
from autograde.results import Results, Verdict
from pathlab.errors import UserError

FILE = REPO / "grader" / "assignment.toml"
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in (REPO / "docs").glob("*.md"))]


def block(text: str, name: str) -> str | None:
    """What stands between <!-- name --> and <!-- /name -->, None where there is no such mark."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    return found and found[1]


def old_tables(folder: Path, file: Path) -> list[str]:
    """The documents of a folder whose tables say something else than the assignment."""
    assignment = read_assignment(file)
    tables = {"points": assignment.points_table(), "targets": assignment.targets_table()}
    shown = {
        (document, name): block((folder / document).read_text(encoding="utf-8"), name)
        for document in DOCUMENTS
        for name in tables
    }
    assert {name for (_, name), table in shown.items() if table} == set(tables)
    return [
        f"{document}: its table is old. It should be:\n{tables[name]}"
        for (document, name), table in shown.items()
        if table not in (None, tables[name])
    ]


def changed(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """A copy of assignment.toml with these changes."""
    text = FILE.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "operations.py").touch()
    (tmp_path / "assignment.toml").write_text(text, encoding="utf-8")
    return tmp_path / "assignment.toml"


@pytest.mark.quick
def test_the_tables_in_the_documents_are_those_of_the_assignment():
    assert not old_tables(REPO, FILE)


@pytest.mark.quick
def test_a_changed_threshold_shows_everywhere_and_makes_the_tables_old(tmp_path):
    file = changed(tmp_path, ("threshold = 0.54", "threshold = 0.61"))
    assignment = read_assignment(file)
    test = assignment.tests["1.12"]
    assert test.title == "CNN after 100 steps: accuracy 0.61"
    assert test.title in assignment.points_table()
    assert (test.fraction(0.61), test.fraction(0.6099)) == (1.0, 0.99)
    assert 0 < test.fraction(0.54) < 0.99 and test.fraction(0.1) == 0
    results = Results(assignment, verdicts={"1.12": Verdict.of(test)})
    assert "accuracy 0.61" in page(results)
    old = old_tables(REPO, file)
    assert {line.split(":")[0] for line in old} == {"README.md", "docs/grader.md"}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("points = 25", "points = 26", r"25 points together, and \[parts.1\] says 26"),
        ("floor = 0.28", "floor = 0.6", "the floor of test 1.12 must be below"),
        ("floor = 0.28", "", "a floor exactly if it has a threshold"),
        ("floor = 0.28", "flor = 0.28", "Did you mean 'floor'"),
        ("floor = 0.28", 'floor = 0.28\nvisibility = "never"', "1.12 is 'never'"),
        ('[tests."1.2"]', '[tests."4.2"]', r"4.2 belongs to no part; add \[parts.4\]"),
        ("title = ", "title ", "is not valid TOML"),
        ('title = "PathLab"', "", "lacks 'title'"),
        ("seconds = 1800", "second = 1800", r"\[limits\] has 'second'. Did you mean 'seconds'"),
        ('title = "PathLab"', 'title = "PathLab"\nmodels = 1', "'models' is unknown"),
    ],
)
def test_a_mistake_in_the_file_is_named(old, new, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read_assignment(changed(tmp_path, (old, new)))


# ---- in a copy of the repository


@pytest.fixture
def copy(tmp_path) -> Path:
    """What `pytest grader` needs."""
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("autograde", "grader", "pathlab", "docs"):
        shutil.copytree(REPO / folder, tmp_path / folder, ignore=ignore)
    for file in [*REPO.glob("*.py"), REPO / "pyproject.toml", REPO / "README.md"]:
        shutil.copy(file, tmp_path)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)


def code_below(mark: str) -> str:
    """The lines of code that docs/grader.md prints below <!-- mark -->."""
    text = (REPO / "docs" / "grader.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_a_new_test_is_ten_lines_in_two_files_as_the_guide_prints_them(copy):
    entry, test = code_below("new entry"), code_below("new test")
    assert len((entry + test).strip().splitlines()) <= 10
    toml, tests = copy / "grader/assignment.toml", copy / "grader/test_part1_classification.py"
    edit(toml, "points = 25", "points = 26")
    toml.write_text(f"{toml.read_text(encoding='utf-8')}\n{entry}", encoding="utf-8")
    tests.write_text(f"{tests.read_text(encoding='utf-8')}\n\n{test}", encoding="utf-8")
    done = run_pytest(copy, "grader", "--results=out.json", "--fast", "-k", "small or logits")
    assert done.returncode == 0, done.stdout + done.stderr
    graded = json.loads((copy / "out.json").read_text())["tests"]
    titles = {t["number"]: (t["name"], t["score"], t["max_score"]) for t in graded}
    assert titles["1.14"] == ("The CNN has fewer than 500,000 parameters", 1, 1)
    assert {line.split(":")[0] for line in old_tables(copy, toml)} == {"docs/grader.md"}
    edit(copy / "classification_models.py", "width: int = 32", "width: int = 128")
    done = run_pytest(copy, "grader", "--results=out.json", "--fast", "-k", "small")
    assert done.returncode == 1 and "use fewer channels" in done.stdout


def test_a_changed_threshold_and_visibility_reach_the_grading(copy):
    new = 'threshold = 0.61\nvisibility = "after_due_date"'
    edit(copy / "grader/assignment.toml", "threshold = 0.54", new)
    done = run_pytest(copy, "grader", "--results=out.json", "--collect-only")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = {t["number"]: t for t in json.loads((copy / "out.json").read_text())["tests"]}
    assert tests["1.12"]["name"] == "CNN after 100 steps: accuracy 0.61"
    assert (tests["1.12"]["visibility"], tests["1.11"]["visibility"]) == (
        "after_due_date",
        "visible",
    )


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("test_part1_classification.py", '@graded("1.4")', '@graded("1.40")', "has no entry"),
        ("test_part1_classification.py", '@graded("1.4")', '@graded("1.5")', "same number 1.5"),
        ("test_part1_classification.py", '@graded("1.4")\n', "", "1.4, for which there is no test"),
        ("assignment.toml", "floor = 0.28", "floor = 0.6", "must be below its threshold"),
    ],
)
def test_tests_and_entries_that_do_not_match_are_named_at_collection(file, old, new, words, copy):
    edit(copy / "grader" / file, old, new)
    done = run_pytest(copy, "grader", "--fast")
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_without_isolation_only_the_own_repository_is_graded_unasked(copy):
    """What the two ways to find isolation say on such a machine is put into the copy."""
    with open(copy / "grader" / "conftest.py", "a", encoding="utf-8") as conftest:
        conftest.write("import autograde.fixtures as fixtures\n")
        conftest.write("fixtures.best_isolation = lambda: fixtures.Isolation.NONE\n")
    test, results = "grader/test_part1_classification.py::test_names", copy / "out.json"
    done = run_pytest(copy, test, f"--submission={copy}", f"--results={results}")
    assert done.returncode == 2 and "add --isolation none" in done.stdout + done.stderr
    for arguments in ([f"--submission={copy}", "--isolation=none"], []):
        done = run_pytest(copy, test, f"--results={results}", *arguments)
        assert done.returncode == 0, done.stdout
        value = json.loads(results.read_text())
        assert value["extra_data"]["isolation"] == "none"
        assert "without isolation" in value["output"] and "without isolation" in done.stdout
