"""A second assignment on the same engine, examples/linear_regression, and the guide to it."""

import csv
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPO, environment

EXAMPLE = "examples/linear_regression"
MODULE = "linear_regression.py"
SOLUTION = (REPO / EXAMPLE / MODULE).read_text()
GUIDE = (REPO / "docs" / "your-own-assignment.md").read_text()
# "`path/of/file`" and a fence; the code up to the next fence.
PRINTED = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDS = "import os\nos._exit(0)\n"
WRITES_RESULTS = """
import os, pathlib
full = '{"score": 10, "tests": [], "output": ""}'
paths = ["results.json", "/autograder/results/results.json"]
for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        words = process.read_text().split("\\0")
    except OSError:
        continue
    paths += [word.split("=", 1)[1] for word in words if word.startswith("--results=")]
for path in paths:
    try:
        pathlib.Path(path).write_text(full)
    except OSError:
        pass
os._exit(0)
"""
FORKS = """
import os, time
for _ in range(9):
    try:
        os.fork()
    except OSError:
        break
time.sleep(1000)
"""


def run(root: Path, *command: str | Path) -> "subprocess.CompletedProcess[str]":
    """A command in the folder `root`, with this Python's programs first."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [*map(str, command)],
        cwd=root,
        env=environment(PATH=programs),
        capture_output=True,
        text=True,
        timeout=300,
    )


def grade(root: Path, source: str, folder: Path, *flags: str, python: str = sys.executable) -> dict:
    """results.json of a submission whose module is `source`, graded by the repository at `root`."""
    (folder / "submission").mkdir(parents=True)
    (folder / "submission" / MODULE).write_text(source)
    results = folder / "results.json"
    paths = (f"--submission={folder / 'submission'}", f"--results={results}")
    pytest_ = (python, "-m", "pytest", EXAMPLE, "-q", "-p", "no:cacheprovider")
    done = run(root, *pytest_, *paths, *flags)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(results.read_text())


def outputs(results: dict) -> dict[str, str]:
    return {test["number"]: test["output"] for test in results["tests"]}


# ---- the example


@pytest.mark.quick
def test_the_right_solution_has_full_points(tmp_path):
    results = grade(REPO, SOLUTION, tmp_path)
    assert results["score"] == 10
    assert set(outputs(results).values()) == {"Passed."}


@pytest.mark.parametrize(
    ("right", "wrong", "number", "named"),
    [
        (" / len(y)", "", "1.3", "mean over all points, not their sum"),
        ("np.ones(len(x))", "np.zeros(len(x))", "1.2", "column of ones"),
        (" + weights[-1]", "", "1.1", "intercept is the last weight"),
        ("rcond=None)[0]", "rcond=None)", "1.2", "returned a tuple"),
        ("return x @ weights[:-1]", "return x[:-1] @ weights[:-1]", "1.1", "shape (199,)"),
        ("    return weights\n", "    raise NotImplementedError\n", "1.3", "not filled in yet"),
    ],
)
def test_a_wrong_solution_is_named(right, wrong, number, named, tmp_path):
    assert right in SOLUTION
    results = grade(REPO, SOLUTION.replace(right, wrong), tmp_path)
    assert 0 < results["score"] < 10
    assert named in outputs(results)[number]


def test_points_are_proportional_from_the_floor_to_the_threshold(tmp_path):
    slow = SOLUTION.replace("range(steps)", "range(steps // 25)")
    results = grade(REPO, slow, tmp_path)
    assert 6 < results["score"] < 10 and "Expected: R\u00b2 of 0.95" in outputs(results)["1.3"]


@pytest.mark.parametrize(
    "hostile", [ENDS, WRITES_RESULTS, pytest.param(FORKS, marks=pytest.mark.slow)]
)
def test_a_hostile_submission_has_no_points(hostile, tmp_path):
    results = grade(REPO, hostile, tmp_path, "--patience=0.05", "--seconds=60")
    assert results["score"] == 0
    assert [test["score"] for test in results["tests"]] == [0, 0, 0]
    assert "did not finish this test" in outputs(results)["1.1"]


def test_it_is_graded_where_there_is_no_torch(tmp_path):
    """Neither the engine nor this assignment's worker needs it."""
    packages = ("numpy", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "jinja2")
    packages += ("markupsafe", "filelock", "tqdm")
    if sys.version_info < (3, 11):
        packages += ("tomli", "exceptiongroup", "typing_extensions")
    made = run(tmp_path, sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    assert made.returncode == 0, made.stderr
    site = next((tmp_path / "venv").glob("lib*/python*/site-packages"))
    for package in packages:
        for file in importlib.metadata.files(package) or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), site / file)
    python = str(tmp_path / "venv" / "bin" / "python")
    assert run(tmp_path, python, "-c", "import numpy").returncode == 0
    assert "No module named 'torch'" in run(tmp_path, python, "-c", "import torch").stderr
    assert grade(REPO, SOLUTION, tmp_path / "right", python=python)["score"] == 10


def test_the_handout_has_blanks_and_no_solution(tmp_path):
    done = run(
        REPO, sys.executable, "-m", "examples.linear_regression", "handout", tmp_path / "new"
    )
    assert done.returncode == 0 and "3 blanks" in done.stdout, done.stderr
    module = (tmp_path / "new" / EXAMPLE / MODULE).read_text()
    assert module.count("raise NotImplementedError") == 3 and "lstsq" not in module
    assert not (tmp_path / "new" / "grader").exists()
    graded = run(tmp_path / "new", "pytest", EXAMPLE, "-p", "no:cacheprovider")
    assert graded.returncode == 1 and " 0 of 10 points" in graded.stdout, graded.stdout


def test_the_gradescope_zip_grades_anywhere(tmp_path):
    file, root = tmp_path / "autograder.zip", tmp_path / "autograder"
    done = run(REPO, sys.executable, "-m", "examples.linear_regression", "gradescope", file)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(file) as archive:
        assert not [name for name in archive.namelist() if name.endswith("/" + MODULE)]
        archive.extractall(root / "source")
    (root / "submission").mkdir()
    (root / "submission" / MODULE).write_text(SOLUTION)
    start, paths = root / "source" / "run_autograder", {"AUTOGRADER_ROOT": str(root)}
    paths["AUTOGRADER_PYTHON"] = sys.executable
    done = subprocess.run(["bash", start], env=environment(**paths), timeout=300)
    results = json.loads((root / "results" / "results.json").read_text())
    assert (done.returncode, results["score"]) == (0, 10)


def test_what_was_graded_without_isolation_says_so(tmp_path):
    source, out = tmp_path / "submissions", tmp_path / "out"
    (source / "ada").mkdir(parents=True)
    shutil.copy(REPO / EXAMPLE / MODULE, source / "ada")
    flags = ("class", source, "--out", out, "--isolation", "none")
    done = run(REPO, sys.executable, "-m", "examples.linear_regression", *flags)
    assert done.returncode == 0, done.stderr
    for name in ("gradebook.csv", "report.html", "results/ada.html", "results/ada.json"):
        assert "graded without isolation" in (out / name).read_text()


# ---- the guide


@pytest.mark.quick
def test_the_guide_prints_the_example():
    printed = dict(PRINTED.findall(GUIDE))
    files = [path for path in (REPO / "examples").rglob("*") if path.suffix in (".py", ".toml")]
    assert printed == {path.relative_to(REPO).as_posix(): path.read_text() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A repository in which the guide was followed to its end."""
    root = tmp_path_factory.mktemp("guide") / "repository"
    for name in ("autograde", "pathlab"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", root)
    for name, code in PRINTED.findall(GUIDE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(code)
    first, *others = COMMANDS.findall(GUIDE)
    done = run(root, "bash", "-ec", first)
    assert done.returncode == 0 and " 10 of 10 points" in done.stdout, done.stdout + done.stderr
    for commands in others:
        done = run(root, "bash", "-ec", commands)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.mark.slow
def test_the_guides_class_gets_the_points_that_it_says(built):
    with open(built.parent / "graded" / "gradebook.csv", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {name: row["score"] for name, row in rows.items()} == {
        "ada": "10",
        "bob": "6",
        "eve": "0",
    }
    assert {row["status"] for row in rows.values()} == {"graded"}
    said = re.search(r"^```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    bob = json.loads((built.parent / "graded" / "results" / "bob.json").read_text())
    assert said and outputs(bob)["1.3"] == said[1].strip()
    assert "10 <small>of 10 points" in (built.parent / "ada.html").read_text()


@pytest.mark.slow
def test_the_guides_handout_and_zip_are_there(built):
    module = (built.parent / "handout" / EXAMPLE / MODULE).read_text()
    assert module.count("raise NotImplementedError") == 3
    assert zipfile.is_zipfile(built.parent / "autograder.zip")


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [WRITES_RESULTS, FORKS])
def test_what_the_guide_builds_withstands_a_hostile_submission(hostile, built, tmp_path):
    results = grade(built, hostile, tmp_path, "--patience=0.05", "--seconds=60")
    assert results["score"] == 0 and len(results["tests"]) == 3
