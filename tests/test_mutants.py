"""Known mistakes lose points and are named; correct code is never accused, whatever its style."""

import re
from pathlib import Path

import pytest
from conftest import REPO
from edits import Case, Edit, EditError, read_corpus, write_submission
from grading import MODULES, NOT_FAST, grade

HERE = Path(__file__).parent
MUTANTS = [m for part in ("part1", "part2") for m in read_corpus(HERE / f"mutants/{part}.edits")]
VARIANTS = read_corpus(HERE / "variants/variants.edits")

# The others take long together: `make slow`.
ALWAYS = ("softmax in the model", "no zero_grad", "no no_grad", "no sigmoid", "file missing")


def cases(corpus: list[Case], always: tuple[str, ...] = ()):
    for case in corpus:
        marks = () if case.name in always else pytest.mark.slow
        yield pytest.param(case, id=case.name.replace(" ", "_"), marks=marks)


def submission(case: Case, folder: Path) -> Path:
    """The modules of `case` in `folder`; the test fails with one line if they cannot be made."""
    try:
        return write_submission(case, REPO, MODULES, folder / "submission")
    except EditError as error:
        pytest.fail(f"{case.name}: the edit no longer applies: {error}", pytrace=False)


@pytest.mark.quick
def test_every_edit_still_applies(tmp_path):
    for number, case in enumerate(MUTANTS + VARIANTS):
        (tmp_path / str(number)).mkdir()
        submission(case, tmp_path / str(number))


@pytest.mark.parametrize("mutant", list(cases(MUTANTS, ALWAYS)))
def test_a_known_mistake_loses_points_and_is_named(mutant: Case, tmp_path: Path):
    lost, cause = mutant.fields
    numbers = lost.split()
    tests = grade(submission(mutant, tmp_path), numbers)
    kept = [number for number in numbers if tests[number]["status"] == "passed"]
    assert not kept, f"no points are lost by {kept}"
    said = tests[numbers[0]]["output"]
    assert re.search(cause, said.partition("Likely cause: ")[2]), f"not named: {said}"
    for output in (test["output"] for test in tests.values()):
        assert "Traceback" not in output and "grader itself" not in output, output


@pytest.mark.parametrize("variant", list(cases(VARIANTS)))
def test_correct_code_is_not_accused(variant: Case, tmp_path: Path):
    tests = grade(submission(variant, tmp_path))
    failed = {number: t["output"] for number, t in tests.items() if t["status"] != "passed"}
    assert set(failed) == NOT_FAST, "\n".join(f"{n}: {failed[n]}" for n in failed)
    possible = sum(test["max_score"] for n, test in tests.items() if n not in NOT_FAST)
    assert sum(test["score"] for test in tests.values()) == possible


def test_the_points_of_each_part(tmp_path):
    empty = [Edit(name.removesuffix(".py"), new="\n") for name in MODULES]
    tests = grade(submission(Case("empty", [], None, empty), tmp_path)).values()
    for part, points in (("1.", 25), ("2.", 25), ("3.", 10)):
        assert sum(t["max_score"] for t in tests if t["number"].startswith(part)) == points
    assert sum(test["score"] for test in tests) == 0
