"""An assignment as its one file of numbers has it: files, limits, parts, and tests with points."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pathlab.errors import UserError, suggestion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VISIBILITIES = ("visible", "hidden", "after_due_date", "after_published")  # Gradescope's words
SECTIONS = {"title", "modules", "checkpoints", "operations", "handout", "gradescope", "limits"}
SECTIONS |= {"parts", "tests"}


@dataclass(frozen=True)
class Part:
    """A part of the assignment. key: how the numbers of its tests begin, before the dot."""

    key: str
    name: str
    points: float


@dataclass(frozen=True)
class GradedTest:
    """One test. From `floor` to `threshold` (None where there is none) points are proportional."""

    number: str
    title: str
    points: float
    threshold: float | None = None
    floor: float | None = None
    visibility: str = "visible"

    @property
    def part(self) -> str:
        """The key of the part that it belongs to."""
        return self.number.split(".")[0]


@dataclass(frozen=True)
class Assignment:
    """What assignment.toml says. folder: where that file lies; root: the repository around it.

    settings: the sections that are the course's own, such as [trainings], as they are.
    """

    folder: Path
    title: str
    modules: tuple[str, ...]
    operations: str
    parts: dict[str, Part]
    tests: dict[str, GradedTest]
    checkpoints: str = ""
    handout: dict[str, Any] = field(default_factory=dict)
    gradescope: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The folder that the modules, and the files of handout and zip, are relative to."""
        return self.folder.parent

    @property
    def points(self) -> float:
        """Of all tests together, extra credit included."""
        return sum(test.points for test in self.tests.values())

    def points_table(self) -> str:
        """The tests and their points as a Markdown table."""
        lines = ["| part | test | points |", "| --- | --- | --- |"]
        for test in self.tests.values():
            part = self.parts[test.part].name
            lines.append(f"| {part} | {test.number} {test.title} | {test.points:g} |")
        return "\n".join(lines)


def read_assignment(file: Path) -> Assignment:
    """Read and check an assignment.toml. Raises UserError that names what is wrong in it."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file} is not valid TOML: {error}.") from error
    try:
        parts = {key: Part(key, **about) for key, about in values.pop("parts").items()}
        tests = {n: _read_test(file, n, about) for n, about in values.pop("tests").items()}
        own = {name: values.pop(name) for name in list(values) if name not in SECTIONS}
        modules = tuple(values.pop("modules"))
        assignment = Assignment(
            file.resolve().parent, modules=modules, parts=parts, tests=tests, settings=own, **values
        )
    except KeyError as error:
        raise UserError(f"{file} lacks {error.args[0]!r}.") from error
    except TypeError as error:
        raise UserError(f"{file}: {error}.") from error
    _check_points(file, assignment)
    return assignment


def _read_test(file: Path, number: str, about: dict[str, Any]) -> GradedTest:
    known = ("title", "points", "threshold", "floor", "visibility")
    for name in about:
        if name not in known:
            raise UserError(f"{file}: test {number} has {name!r}. {suggestion(name, known)}")
    test = GradedTest(number, **about)
    if test.visibility not in VISIBILITIES:
        raise UserError(
            f"{file}: test {number} is {test.visibility!r}; expected {', '.join(VISIBILITIES)}."
        )
    if test.points < 0 or (test.threshold is None) != (test.floor is None):
        raise UserError(
            f"{file}: test {number} needs points of 0 or more, and a floor exactly if "
            "it has a threshold."
        )
    if test.threshold is not None and test.floor is not None and test.floor >= test.threshold:
        raise UserError(f"{file}: the floor of test {number} must be below its threshold.")
    return replace(test, title=test.title.format(threshold=test.threshold))


def _check_points(file: Path, assignment: Assignment) -> None:
    """Every test belongs to a part, and the parts' points are the sums of their tests' points."""
    for number, test in assignment.tests.items():
        if test.part not in assignment.parts:
            raise UserError(f"{file}: test {number} belongs to no part; add [parts.{test.part}].")
    for part in assignment.parts.values():
        total = sum(test.points for test in assignment.tests.values() if test.part == part.key)
        if total != part.points:
            raise UserError(
                f"{file}: the tests of {part.name} have {total:g} points together, and "
                f"[parts.{part.key}] says {part.points:g}. Change one of them."
            )
