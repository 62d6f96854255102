"""An assignment as its one file of numbers has it: files, limits, parts, and tests with points."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pathlab.errors import UserError, suggestion

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[1]
ENGINE = ("pyproject.toml", "autograde", "pathlab")  # what every grading needs
VISIBILITIES = ("visible", "hidden", "after_due_date", "after_published")  # Gradescope's words


@dataclass(frozen=True)
class Part:
    """A part of the assignment. key: how the numbers of its tests begin, before the dot.

    column: its title in the gradebook; the name in small letters, unless it is given.
    """

    key: str
    name: str
    points: float
    column: str = ""


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

    def fraction(self, score: float) -> float:
        """The share of the points, in [0, 1], that a score earns."""
        if self.threshold is None or self.floor is None:
            raise UserError(f"test {self.number} needs a threshold and a floor in assignment.toml")
        if score >= self.threshold:
            return 1.0
        return min(0.99, max(0.0, (score - self.floor) / (self.threshold - self.floor)))


@dataclass(frozen=True)
class FileSet:
    """What a handout or an autograder zip holds, by paths relative to the repository's root.

    files, folders: what is copied besides the engine and the course's folder; without: patterns of
    names that are left out.
    """

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Handout(FileSet):
    """readme_note: what README.md has below its title; readme_without: regular expressions of what
    it does not have."""

    readme_note: str = ""
    readme_without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gradescope(FileSet):
    """minutes: what a submission may take on Gradescope; install: the arguments of `pip install`
    there."""

    minutes: int = 10
    install: str = "-r requirements.txt"


@dataclass(frozen=True)
class GradingLimits:
    """seconds: for the submission's code in all tests together; the others are of its worker."""

    seconds: float = 1800
    threads: int = 2
    memory_mib: int = 3072


class Cause(NamedTuple):
    """A likely cause of an exception, from a causes.toml. kinds: names of exceptions separated by
    blanks, "" for any; pattern: a regular expression that is searched in the message."""

    cause: str
    kinds: str = ""
    pattern: str = ""


class Data(Protocol):
    """What a submission is trained and scored on, as a course draws it."""

    name: str  # of the data set, for people


@dataclass(frozen=True)
class Assignment:
    """What assignment.toml and causes.toml say, and what opens the data that --dataset names.

    folder: where that file and the graded tests lie; solution: the folder of the modules with the
    reference solution; operations: the files, beside assignment.toml, of what the worker can be
    asked to do; checkpoints: a pattern for the names of other files of a submission that are
    graded; dataset: the default of --dataset, "" for a course without data; settings: the course's
    own sections, such as [trainings], as they are.
    """

    folder: Path
    title: str
    modules: tuple[str, ...]
    solution: Path
    operations: tuple[Path, ...]
    parts: dict[str, Part]
    tests: dict[str, GradedTest]
    checkpoints: str
    handout: Handout
    gradescope: Gradescope
    limits: GradingLimits
    dataset: str
    settings: dict[str, dict[str, Any]]
    causes: tuple[Cause, ...] = ()
    open_data: Callable[[str], Data] | None = None

    @property
    def root(self) -> Path:
        """The repository: what the files of handout and zip are relative to."""
        return REPO

    @property
    def name(self) -> str:
        """The folder as it is given to pytest in the repository, such as "grader"."""
        return self.folder.relative_to(REPO).as_posix()

    @property
    def points(self) -> float:
        """Of all tests together, extra credit included."""
        return sum(test.points for test in self.tests.values())

    def points_table(self) -> str:
        """The tests and their points as a Markdown table."""
        tests = self.tests.values()
        rows = [(self.parts[t.part].name, f"{t.number} {t.title}", f"{t.points:g}") for t in tests]
        return _markdown([("part", "test", "points"), *rows])

    def targets_table(self) -> str:
        """The tests with a threshold, and where their points begin, as a Markdown table."""
        tests = [test for test in self.tests.values() if test.threshold is not None]
        rows = [(f"{t.number} {t.title}", f"{t.floor:.2f}", f"{t.points:g}") for t in tests]
        return _markdown([("target", "points begin above", "points"), *rows])


def read_toml(file: Path) -> dict[str, Any]:
    """The values in a TOML file. Raises UserError for one that cannot be read."""
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{file} is not valid TOML: {error}.") from error
    return values


def read_assignment(file: Path, open_data: Callable[[str], Data] | None = None) -> Assignment:
    """Read and check an assignment.toml, and a causes.toml beside it if there is one.

    open_data: opens what --dataset names, and raises UserError for what cannot be used. Raises
    UserError that names what is wrong in a file.
    """
    values, folder = read_toml(file), file.resolve().parent
    operations = values.pop("operations", "operations.py")
    operations = [operations] if isinstance(operations, str) else operations
    causes = [folder / "causes.toml", Path(__file__).with_name("causes.toml")]
    try:
        assignment = Assignment(
            folder=folder,
            title=values.pop("title"),
            modules=tuple(values.pop("modules")),
            solution=(folder / values.pop("solution", "..")).resolve(),
            operations=tuple(folder / name for name in operations),
            parts={key: Part(key, **part) for key, part in values.pop("parts").items()},
            tests={number: _test(number, test) for number, test in values.pop("tests").items()},
            checkpoints=values.pop("checkpoints", ""),
            handout=_section(Handout, "handout", values),
            gradescope=_section(Gradescope, "gradescope", values),
            limits=_section(GradingLimits, "limits", values),
            dataset=values.pop("data", {}).get("dataset", ""),
            settings=values,
            causes=tuple(
                Cause(**cause)
                for path in causes
                if path.exists()
                for cause in read_toml(path)["exceptions"]
            ),
            open_data=open_data,
        )
        _check_points(assignment)
    except KeyError as error:
        raise UserError(f"{file} lacks {error.args[0]!r}.") from error
    except (TypeError, ValueError, AttributeError, UserError) as error:
        raise UserError(f"{file}: {error}") from error
    for name, value in assignment.settings.items():
        if not isinstance(value, dict):
            raise UserError(f"{file}: {name!r} is unknown; a course's own values need a [section].")
    return assignment


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def _section(kind: type, name: str, values: dict[str, Any]) -> Any:
    """A section as its dataclass, whose defaults stand for what is not said."""
    section = values.pop(name, {})
    known = [field.name for field in fields(kind)]
    for key in section:
        if key not in known:
            raise UserError(f"[{name}] has {key!r}. {suggestion(key, known)}")
    lists = {key: tuple(value) for key, value in section.items() if isinstance(value, list)}
    return kind(**{**section, **lists})


def _test(number: str, values: dict[str, Any]) -> GradedTest:
    test: GradedTest = _section(GradedTest, "test", {"test": {"number": number, **values}})
    if test.visibility not in VISIBILITIES:
        raise UserError(f"test {number} is {test.visibility!r}; use {', '.join(VISIBILITIES)}.")
    if test.points < 0 or (test.threshold is None) != (test.floor is None):
        raise UserError(
            f"test {number} needs points of 0 or more, and a floor exactly if it has a threshold."
        )
    if test.threshold is not None and test.floor is not None and test.floor >= test.threshold:
        raise UserError(f"the floor of test {number} must be below its threshold.")
    return replace(test, title=test.title.format(threshold=test.threshold))


def _check_points(assignment: Assignment) -> None:
    """Every test belongs to a part, and the parts' points are the sums of their tests' points."""
    for number, test in assignment.tests.items():
        if test.part not in assignment.parts:
            raise UserError(f"test {number} belongs to no part; add [parts.{test.part}].")
    for part in assignment.parts.values():
        total = sum(test.points for test in assignment.tests.values() if test.part == part.key)
        if total != part.points:
            raise UserError(
                f"the tests of {part.name} have {total:g} points together, and "
                f"[parts.{part.key}] says {part.points:g}. Change one of them."
            )
