"""One grading: from the collected tests to points and words, in files after every test."""

from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import pytest

from autograde.assignment import Assignment
from autograde.feedback import Lost, describe_error
from autograde.report import number, write_page
from autograde.results import NOT_GRADED, Results, Verdict, plain
from autograde.student import StudentError, WorkerEnded
from autograde.submission import BadSubmission
from pathlab.errors import USER_ERROR, UserError


def stop(message: str) -> NoReturn:
    """End pytest, for a mistake of whoever started it."""
    pytest.exit(f"error: {message}", USER_ERROR)


class Grading:
    """One grading of one assignment, as a plugin object. The fixtures are in fixtures.py."""

    def __init__(self, assignment: Assignment):
        self.assignment = assignment
        self.results = Results(assignment)
        self.file: Path | None = None
        self.report: Path | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Leave nothing of an earlier grading in the files, before anything can fail."""
        self._check_order([str(argument) for argument in config.invocation_params.args])
        config.addinivalue_line("markers", "graded(number): a test with points")
        submission = config.getoption("--submission") or self.assignment.solution
        self.results.name = plain(Path(submission).absolute().name)
        files = (config.getoption(option) for option in ("--results", "--report"))
        self.file, self.report = (Path(file).absolute() if file else None for file in files)
        try:
            self.write()
        except UserError as error:
            raise pytest.UsageError(str(error)) from error

    def _check_order(self, arguments: list[str]) -> None:
        """Refuse `pytest --submission FOLDER grader`: pytest looks for pytest.ini and conftest.py
        in its arguments from left to right, and takes the folder for one (see plugin.py).
        This is said too late for a hostile folder, but to everybody, so that nobody gets used to
        it."""
        for argument in arguments:
            if Path(argument.split("::")[0]).resolve().is_relative_to(self.assignment.folder):
                return
            if argument in ("--submission", "--results", "--report"):
                name = self.assignment.name
                raise pytest.UsageError(f"write `{argument}=PATH`, or `{name}` before {argument}")

    def write(self) -> None:
        """Write the files that are wanted, with how far the grading is."""
        if self.file:
            self.results.write(self.file)
        if self.report:
            write_page(self.results, self.report)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None]:
        """Match the tests with assignment.toml, and put the trainings last: each has a worker of
        its own, and the others share one."""
        self._check_entries(session, config, items)
        yield
        for item in items:
            number = number_of(item)
            if number:
                self.results.verdicts[number] = Verdict.of(self.assignment.tests[number])
        items.sort(key=lambda item: "unless_fast" in getattr(item, "fixturenames", ()))
        self.write()

    def _check_entries(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Every graded test has one entry in assignment.toml, and every entry has its test."""
        seen: dict[str, str] = {}
        for item in items:
            number = number_of(item)
            if number and number not in self.assignment.tests:
                stop(f'{item.nodeid} has no entry [tests."{number}"] in assignment.toml; add one.')
            if number and number in seen:
                stop(f"{item.nodeid} and {seen[number]} have the same number {number}.")
            seen[number] = item.nodeid
        whole = any(Path(argument).resolve() == self.assignment.folder for argument in config.args)
        missing = [number for number in self.assignment.tests if number not in seen]
        if whole and missing and not session.testsfailed:
            stop(
                f"assignment.toml has {', '.join(missing)}, for which there is no test: write "
                f'@graded("{missing[0]}") over one, or remove the entry.'
            )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn the outcome into points, and the report into words for the student."""
        report = yield
        verdict = self.results.verdicts.get(number_of(item))
        error = call.excinfo.value if call.excinfo else None
        if verdict is None or call.when == "teardown" or (call.when == "setup" and not error):
            return report
        fraction, text = self._judge(error)
        text = plain(text)
        verdict.score, verdict.output = verdict.max_score * fraction, text
        self.write()
        if isinstance(error, (Lost, StudentError, WorkerEnded, BadSubmission)):
            report.longrepr = f"{verdict.title}: {verdict.score:.2f} of {verdict.max_score}\n{text}"
        elif report.failed:
            report.longrepr = plain(str(report.longrepr), 20_000)
        return report

    def _judge(self, error: BaseException | None) -> tuple[float, str]:
        """The share of the points that a test has earned, and what its student is told."""
        if error is None:
            return 1.0, "Passed."
        if isinstance(error, Lost):
            return error.fraction, str(error)
        if isinstance(error, StudentError):
            return 0.0, describe_error(error.problem, self.assignment)
        if isinstance(error, WorkerEnded):
            return 0.0, f"The process that ran your code did not finish this test: {error}."
        if isinstance(error, BadSubmission):
            return 0.0, f"The submission cannot be graded: {error}."
        if isinstance(error, pytest.skip.Exception):
            return 0.0, f"{NOT_GRADED}{error}"
        # Also what becomes of replies that have another form than the worker gives them: forged.
        return 0.0, (
            f"The grader received an unexpected reply ({type(error).__name__}). If your code does "
            "nothing unusual, tell your instructor: this may be the grader's fault."
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Points and notes, as the last lines."""
        results = self.results
        if results.verdicts:
            points = f"{number(results.score)} of {number(results.max_score)} points"
            terminalreporter.write_sep("=", points)
            for note in results.notes:
                terminalreporter.write_line(note)


def number_of(item: pytest.Item) -> str:
    """The number of a graded test; "" for other tests."""
    mark = item.get_closest_marker("graded")
    return str(mark.args[0]) if mark else ""
