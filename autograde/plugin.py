"""pytest COURSE [--submission FOLDER_OR_ZIP] [--results FILE] [--report FILE] [--fast]

The pytest plugin that grades. COURSE is a folder with an assignment.toml, graded tests and a
conftest.py that hands the course over:

    pytest_addoption = grading_options(load_assignment)

Without --submission, the modules of this repository are graded.
"""

import argparse
import secrets
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autograde.assignment import Assignment, Data, GradedTest
from autograde.feedback import Lost, describe_error
from autograde.report import number, write_page
from autograde.results import NOT_GRADED, Results, Verdict, plain
from autograde.sandbox.start import Isolation, Limits, best_isolation, works
from autograde.student import Session, StudentError, WorkerEnded
from autograde.submission import BadSubmission, copy_submission
from pathlab.errors import USER_ERROR, UserError


def graded(number: str) -> pytest.MarkDecorator:
    """The decorator of a graded test. Title and points stand in assignment.toml at this number."""
    return pytest.mark.graded(number)


def fresh_rng() -> np.random.Generator:
    """From the system's entropy: nothing that is asked in a grading can be known in advance."""
    return np.random.default_rng(secrets.randbits(128))


def grading_options(
    load: Callable[[], Assignment],
) -> Callable[[pytest.Parser, pytest.PytestPluginManager], None]:
    """The pytest_addoption of a course's conftest.py. load: reads the assignment, or raises
    UserError."""

    def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
        # Until this very function runs, pytest does not know --submission and takes its value for
        # one more folder of tests, whose conftest.py it would import next, into this trusted
        # process. After the course's own it may import none. (KeyError, and no grading, should
        # pytest rename that.)
        vars(pluginmanager)["_noconftest"]
        pluginmanager._noconftest = True
        try:
            grading = Grading(load())
        except UserError as error:
            _stop(str(error))
        if not pluginmanager.has_plugin("grading"):
            pluginmanager.register(grading, "grading")
            _add_options(parser, grading.assignment)

    return pytest_addoption


def _add_options(parser: pytest.Parser, assignment: Assignment) -> None:
    add, limits = parser.getgroup("grading").addoption, assignment.limits
    add("--submission", help="folder or zip to grade (default: the modules of this repository)")
    add("--results", help="write Gradescope's results.json here, after every test")
    add("--report", help="write the same as an HTML page here, after every test")
    add("--fast", action="store_true", help="leave the trainings out (no points)")
    add(
        "--isolation",
        choices=[kind.value for kind in Isolation],
        help="how the submission is kept apart (default: the strongest way that works here)",
    )
    if assignment.open_data:
        add(
            "--dataset",
            default=assignment.dataset,
            help="what private images are made of: a name, or a file (default: %(default)s)",
        )
    add("--threads", type=int, default=limits.threads, help="threads of the submission's process")
    add(
        "--seconds",
        type=float,
        default=limits.seconds,
        help="what the submission's code may take in all tests together (default: %(default)s)",
    )
    add("--patience", type=float, default=1.0, help=argparse.SUPPRESS)  # for tests


def _stop(message: str) -> Any:
    """End pytest, for a mistake of whoever started it."""
    pytest.exit(f"error: {message}", USER_ERROR)


class Grading:
    """One grading of one assignment: hooks and fixtures, as a plugin object."""

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
            self._write()
        except UserError as error:
            raise pytest.UsageError(str(error)) from error

    def _check_order(self, arguments: list[str]) -> None:
        """Refuse `pytest --submission FOLDER grader`: pytest looks for pytest.ini and conftest.py
        in its arguments from left to right, and takes the folder for one (see grading_options).
        This is said too late for a hostile folder, but to everybody, so that nobody gets used to
        it."""
        for argument in arguments:
            if Path(argument.split("::")[0]).resolve().is_relative_to(self.assignment.folder):
                return
            if argument in ("--submission", "--results", "--report"):
                name = self.assignment.name
                raise pytest.UsageError(f"write `{argument}=PATH`, or `{name}` before {argument}")

    def _write(self) -> None:
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
            number = _number(item)
            if number:
                self.results.verdicts[number] = Verdict.of(self.assignment.tests[number])
        items.sort(key=lambda item: "unless_fast" in getattr(item, "fixturenames", ()))
        self._write()

    def _check_entries(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Every graded test has one entry in assignment.toml, and every entry has its test."""
        seen: dict[str, str] = {}
        for item in items:
            number = _number(item)
            if number and number not in self.assignment.tests:
                _stop(f'{item.nodeid} has no entry [tests."{number}"] in assignment.toml; add one.')
            if number and number in seen:
                _stop(f"{item.nodeid} and {seen[number]} have the same number {number}.")
            seen[number] = item.nodeid
        whole = any(Path(argument).resolve() == self.assignment.folder for argument in config.args)
        missing = [number for number in self.assignment.tests if number not in seen]
        if whole and missing and not session.testsfailed:
            _stop(
                f"assignment.toml has {', '.join(missing)}, for which there is no test: write "
                f'@graded("{missing[0]}") over one, or remove the entry.'
            )

    @pytest.fixture(scope="session")
    def session(self, request: pytest.FixtureRequest) -> Iterator[Session]:
        """The conversation with the submission, in the strongest isolation that works here."""
        config, limits = request.config, self.assignment.limits
        isolation = self._choose_isolation(config)
        submission = Path(config.getoption("--submission") or self.assignment.solution)
        with tempfile.TemporaryDirectory(prefix="grading-") as workspace:
            session = Session(
                copy_submission(submission, Path(workspace), self.assignment),
                self.assignment.operations,
                isolation,
                Limits(memory_bytes=limits.memory_mib << 20),
                config.getoption("--threads"),
                config.getoption("--seconds"),
                config.getoption("--patience"),
            )
            try:
                yield session
            finally:
                session.end()
                self.results.notes.append(
                    f"isolation: {isolation.value}; the submission used "
                    f"{session.cpu_seconds:.0f} CPU seconds and {session.peak_bytes >> 20} MiB"
                )
                self._write()

    def _choose_isolation(self, config: pytest.Config) -> Isolation:
        """What was asked for, or the best that works. Somebody else's code runs without any only
        where that was asked for."""
        chosen = config.getoption("--isolation")
        if chosen:
            isolation = Isolation(chosen)
            if not works(isolation):
                _stop(f"--isolation {chosen} does not work here; leave it out.")
        else:
            isolation = best_isolation()
        self.results.isolation = isolation.value
        if isolation is Isolation.NONE and not chosen and config.getoption("--submission"):
            _stop(
                "no isolation works on this machine, so the submission would run with all your "
                "rights. Install bubblewrap 0.8 or newer, or grade on Linux 5.13 or newer. For "
                "code that you trust, add --isolation none; every result will say so."
            )
        if isolation is Isolation.NONE:
            whose = "the submission" if chosen else "your own repository"
            self.results.notes.append(f"WARNING: {whose} was graded without isolation.")
        return isolation

    @pytest.fixture(scope="session")
    def data(self, request: pytest.FixtureRequest) -> Data:
        """What a submission is trained and scored on."""
        assert self.assignment.open_data, "this course has no data"
        try:
            data = self.assignment.open_data(request.config.getoption("--dataset"))
        except UserError as error:  # the instructor's mistake, not the submission's
            _stop(str(error))
        self.results.notes.append(f"data: {data.name}")
        return data

    @pytest.fixture(scope="session", name="assignment")
    def assignment_fixture(self) -> Assignment:
        """The numbers of the course."""
        return self.assignment

    @pytest.fixture
    def target(self, request: pytest.FixtureRequest) -> GradedTest:
        """The test's own entry in assignment.toml, with its threshold."""
        return self.assignment.tests[_number(request.node)]

    @pytest.fixture
    def unless_fast(self, request: pytest.FixtureRequest) -> None:
        """Named by a test that trains; `--fast` leaves it out."""
        if request.config.getoption("--fast"):
            pytest.skip("trainings are left out with --fast")

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        """A generator of random numbers that nobody can know in advance."""
        return fresh_rng()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn the outcome into points, and the report into words for the student."""
        report = yield
        verdict = self.results.verdicts.get(_number(item))
        error = call.excinfo.value if call.excinfo else None
        if verdict is None or call.when == "teardown" or (call.when == "setup" and not error):
            return report
        fraction, text = self._judge(error)
        text = plain(text)
        verdict.score, verdict.output = verdict.max_score * fraction, text
        self._write()
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


def _number(item: pytest.Item) -> str:
    """The number of a graded test; "" for other tests."""
    mark = item.get_closest_marker("graded")
    return str(mark.args[0]) if mark else ""
