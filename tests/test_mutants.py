"""Known mistakes lose points and are named; correct code is never accused, whatever its style."""

import json
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import REPO, environment
from mutants import CM, CT, MUTANTS, SM, ST, Mutant
from variants import VARIANTS

TESTS = {  # number -> node of the graded test
    number: f"{path.relative_to(REPO)}::{name}"
    for path in sorted((REPO / "grader").glob("test_part*.py"))
    for number, name in re.findall(r'@graded\("([\d.]+)".*\ndef (\w+)', path.read_text())
}
NOT_FAST = {"1.11", "1.12", "1.13", "2.13", "2.14", "2.15", "2.16", "3.1"}

GRADINGS_AT_A_TIME = 2


def grade(folder: Path, numbers: list[str] | None = None) -> dict[str, dict]:
    """The tests of results.json by number, from a grading of these tests (all the fast ones)."""
    results = folder.with_suffix(".json")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [TESTS[number] for number in numbers] if numbers else ["grader"]
    command += ["--fast", "--threads", "1", "--submission", str(folder), "--results", str(results)]
    done = subprocess.run(
        command, cwd=REPO, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {test["number"]: test for test in json.loads(results.read_text())["tests"]}


def written(folder: Path, changes: dict[str, str | list[tuple[str, str]]]) -> Path:
    """The reference's four modules in `folder`, with files replaced, changed, or left out ([])."""
    folder.mkdir()
    for file in (CM, CT, SM, ST):
        text = (REPO / file).read_text()
        change = changes.get(file)
        if isinstance(change, str):
            text = change
        elif change is not None:
            for old, new in change:
                assert text.count(old) == 1, f"{text.count(old)} times in {file}: {old}"
                text = text.replace(old, new)
        if change != []:
            (folder / file).write_text(text)
    return folder


def label(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "_")


LABELS = [label(mutant) for mutant in MUTANTS]


@pytest.fixture(scope="module")
def gradings(request, tmp_path_factory) -> dict[str, Future]:
    """By mutant's name its graded tests, of all mutants that are selected, two at a time."""
    chosen = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}

    def run(number: int, mutant: Mutant) -> dict[str, dict]:
        folder = tmp_path_factory.getbasetemp() / f"mutant{number}"
        return grade(written(folder, {mutant.file: mutant.changes}), mutant.lost.split())

    with ThreadPoolExecutor(GRADINGS_AT_A_TIME) as pool:
        jobs = {
            mutant.name: pool.submit(run, number, mutant)
            for number, mutant in enumerate(MUTANTS)
            if label(mutant) in chosen
        }
        yield jobs
        pool.shutdown(cancel_futures=True)


# The others take long together: `make test-all`.
ALWAYS = ("softmax in the model", "no zero_grad", "no no_grad", "no sigmoid", "file missing")


def marked(mutant: Mutant):
    return pytest.param(mutant, marks=() if mutant.name in ALWAYS else pytest.mark.slow)


@pytest.mark.parametrize("mutant", [marked(mutant) for mutant in MUTANTS], ids=LABELS)
def test_a_known_mistake_loses_points_and_is_named(mutant: Mutant, gradings):
    numbers, tests = mutant.lost.split(), gradings[mutant.name].result()
    kept = [number for number in numbers if tests[number]["status"] == "passed"]
    said = tests[numbers[0]]["output"]
    assert not kept, f"no points are lost by {kept}"
    _, _, cause = said.partition("Likely cause: ")
    assert re.search(mutant.words, cause), f"not named: {said}"
    for output in (test["output"] for test in tests.values()):
        assert "Traceback" not in output and "grader itself" not in output, output


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_correct_code_is_not_accused(name: str, tmp_path):
    tests = grade(written(tmp_path / "submission", VARIANTS[name]))
    failed = {n: test["output"] for n, test in tests.items() if test["status"] != "passed"}
    assert set(failed) == NOT_FAST, "\n".join(f"{n}: {failed[n]}" for n in failed)
    assert sum(test["score"] for test in tests.values()) == 39


def test_the_points_of_each_part(tmp_path):
    tests = grade(written(tmp_path / "submission", dict.fromkeys((CM, CT, SM, ST), ""))).values()
    for part, points in (("1.", 25), ("2.", 25), ("3.", 10)):
        assert sum(t["max_score"] for t in tests if t["number"].startswith(part)) == points
    assert sum(test["score"] for test in tests) == 0
