"""The autograder zip that Gradescope takes."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import environment
from course import ASSIGNMENT, WAIT, run


def unpacked(file: Path, root: Path) -> Path:
    """The root of an autograder as Gradescope lays it out, without a submission."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            path = Path(archive.extract(entry, root / "source"))
            path.chmod(entry.external_attr >> 16 & 0o777)
    return root


@pytest.fixture(scope="module")
def autograder(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("gradescope") / "autograder.zip"
    done = run("gradescope", file)
    assert done.returncode == 0, done.stderr
    return file


def test_the_zip_is_the_same_every_time_and_holds_no_solutions(autograder):
    before = autograder.read_bytes()
    assert run("gradescope", autograder).returncode == 0
    assert autograder.read_bytes() == before
    with zipfile.ZipFile(autograder) as archive:
        names = archive.namelist()
        texts = [archive.read(name) for name in names if name.endswith(".py")]
        setup, start = archive.read("setup.sh"), archive.read("run_autograder")
    assert names == sorted(names)
    assert {"grader/conftest.py", "pathlab/files.py", "requirements.txt"} <= set(names)
    assert not [n for n in names if Path(n).name in ASSIGNMENT.modules or n.startswith("tests/")]
    assert not [text for text in texts if b"    ### BEGIN SOLUTION\n" in text]
    assert b"540" in start and b"{{" not in start
    for script in (setup, start):
        assert subprocess.run(["bash", "-n"], input=script).returncode == 0


def test_run_autograder_grades_and_leaves_a_result_whatever_happens(autograder, handout, tmp_path):
    root = unpacked(autograder, tmp_path / "autograder")
    (root / "submission").mkdir()
    for name in ASSIGNMENT.modules:
        shutil.copy(handout / name, root / "submission")
    results = root / "results" / "results.json"

    def start(python: str) -> dict:
        program = root / "source" / "run_autograder"
        paths = {"AUTOGRADER_ROOT": str(root), "AUTOGRADER_PYTHON": python}
        assert subprocess.run([program], env=environment(**paths), timeout=WAIT).returncode == 0
        return json.loads(results.read_text())

    value = start(sys.executable)
    assert value["score"] == 0 and len(value["tests"]) == len(ASSIGNMENT.tests)
    assert any("not written yet" in test["output"] for test in value["tests"])
    results.write_text('{"score": 60, "tests": []}')  # of another submission
    value = start("/nowhere/python")
    assert value["score"] == 0 and "exit code 127" in value["output"]
    (root / "source" / "grader" / "conftest.py").write_text("raise RuntimeError\n")
    value = start(sys.executable)
    assert value["score"] == 0 and "The grading itself failed" in value["output"]
