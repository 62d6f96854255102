"""pytest grader [--submission FOLDER_OR_ZIP] [--results FILE] [--report FILE] [--fast]

Without --submission, the modules of this repository are graded.
"""

import argparse
import tempfile
from pathlib import Path

import pytest

from autograde.feedback import Lost, explain
from autograde.results import NOT_GRADED, Results, Verdict, plain
from autograde.sandbox.start import Isolation, Limits, best_isolation, works
from autograde.student import Session, StudentError, WorkerEnded
from autograde.submission import BadSubmission, take
from grader.checks.images import PrivateImages
from grader.checks.models import fresh_rng
from pathlab.errors import UserError

REPO = Path(__file__).resolve().parents[1]
HERE = REPO / "grader"
RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser, pluginmanager):
    # Until this very function runs, pytest does not know --submission and takes its value for one
    # more folder of tests, whose conftest.py it would import next, into this trusted process. After
    # this file it may import none. (KeyError, and no grading, should pytest rename that.)
    vars(pluginmanager)["_noconftest"]
    pluginmanager._noconftest = True
    group = parser.getgroup("grader")
    group.addoption("--submission", default=str(REPO), help="folder or zip to grade")
    group.addoption("--results", help="write Gradescope's results.json here, after every test")
    group.addoption("--report", help="write the same as an HTML page here, after every test")
    group.addoption("--fast", action="store_true", help="leave the trainings out (no points)")
    group.addoption("--isolation", choices=[kind.value for kind in Isolation])
    group.addoption(
        "--dataset",
        default="auto",
        help="what private images are made of: auto (PathMNIST if it is in ./data, else fresh "
        "stand-in images), synthetic, or any data set of nine classes",
    )
    group.addoption("--threads", type=int, default=2, help="of the worker")
    group.addoption(
        "--seconds",
        type=float,
        default=1800,
        help="what the submission's code may take in all tests together",
    )
    group.addoption("--patience", type=float, default=1.0, help=argparse.SUPPRESS)  # for tests


def pytest_configure(config):
    _check_order(config.invocation_params.args)
    config.addinivalue_line("markers", "graded(number, title, points): a test with points")
    files = (config.getoption(option) for option in ("--results", "--report"))
    config.stash[RESULTS] = Results(
        *(Path(file).absolute() if file else None for file in files),
        plain(Path(config.getoption("--submission")).absolute().name),
    )
    try:
        config.stash[RESULTS].write()  # no points yet, and nothing left of an earlier grading
    except UserError as error:
        raise pytest.UsageError(str(error)) from error


def _check_order(arguments) -> None:
    """Refuse `pytest --submission FOLDER grader`: pytest looks for pytest.ini and conftest.py in
    its arguments from left to right, and takes the folder for one (see pytest_addoption). This is
    said too late for a hostile folder, but to everybody, so that nobody gets used to it."""
    for argument in map(str, arguments):
        if Path(argument.split("::")[0]).resolve().is_relative_to(HERE):
            return
        if argument in ("--submission", "--results", "--report"):
            raise pytest.UsageError(f"write `{argument}=PATH`, or `grader` before {argument}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    results = config.stash[RESULTS]
    for item in items:
        mark = item.get_closest_marker("graded")
        if mark:
            number, title, points = mark.args
            results.verdicts[item.nodeid] = Verdict(number, title, points, "visible")
    # The trainings last: each has a worker of its own, and the others share one.
    items.sort(key=lambda item: "unless_fast" in getattr(item, "fixturenames", ()))
    results.write()


@pytest.fixture(scope="session")
def student(request):
    """The conversation with the submission, in the strongest isolation that works here."""
    config = request.config
    results = config.stash[RESULTS]
    chosen = config.getoption("--isolation")
    isolation = Isolation(chosen) if chosen else best_isolation()
    if chosen and not works(isolation):
        pytest.exit(f"error: --isolation {chosen} does not work here; leave it out.", 2)
    if isolation is Isolation.NONE:
        results.notes.append("WARNING: the submission was not isolated on this machine.")
    with tempfile.TemporaryDirectory(prefix="grading-") as workspace:
        folder = take(Path(config.getoption("--submission")), Path(workspace))
        session = Session(
            folder,
            isolation,
            Limits(),
            config.getoption("--threads"),
            config.getoption("--seconds"),
            config.getoption("--patience"),
        )
        try:
            yield session
        finally:
            session.end()
            results.notes.append(
                f"isolation: {isolation.value}; the submission used "
                f"{session.cpu_seconds:.0f} CPU seconds and {session.peak_bytes >> 20} MiB"
            )
            results.write()


@pytest.fixture(scope="session")
def private(request):
    """What a submission is trained and scored on."""
    try:
        images = PrivateImages(request.config.getoption("--dataset"))
    except UserError as error:  # the instructor's mistake, not the submission's
        pytest.exit(f"error: {error}", 2)
    request.config.stash[RESULTS].notes.append(f"images: {images.name}")
    return images


@pytest.fixture
def unless_fast(request):
    """Named by a test that trains; `--fast` leaves it out."""
    if request.config.getoption("--fast"):
        pytest.skip("trainings are left out with --fast")


@pytest.fixture
def rng():
    return fresh_rng()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the outcome into points, and the report into words for the student."""
    report = yield
    results = item.config.stash[RESULTS]
    verdict = results.verdicts.get(item.nodeid)
    if verdict is None or call.when == "teardown" or (call.when == "setup" and not call.excinfo):
        return report
    error = call.excinfo.value if call.excinfo else None
    fraction, text = 0.0, ""
    if error is None:
        fraction, text = 1.0, "Passed."
    elif isinstance(error, Lost):
        fraction, text = error.fraction, str(error)
    elif isinstance(error, StudentError):
        text = explain(error.problem)
    elif isinstance(error, WorkerEnded):
        text = f"The process that ran your code did not finish this test: {error}."
    elif isinstance(error, BadSubmission):
        text = f"The submission cannot be graded: {error}."
    elif isinstance(error, pytest.skip.Exception):
        text = f"{NOT_GRADED}{error}"
    else:
        # Also the way of answers that have another form than the worker gives them: forged ones.
        text = (
            f"The grader could not make sense of what it was answered ({type(error).__name__}). If "
            "your code does nothing unusual, tell your instructor: this may be the grader's fault."
        )
    text = plain(text)
    verdict.score, verdict.output = verdict.max_score * fraction, text
    results.write()
    known = (Lost, StudentError, WorkerEnded, BadSubmission)
    if isinstance(error, known):
        report.longrepr = f"{verdict.title}: {verdict.score:.2f} of {verdict.max_score}\n{text}"
    elif report.failed:
        report.longrepr = plain(str(report.longrepr), 20_000)
    return report


def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[RESULTS]
    if results.verdicts:
        total = sum(v.max_score for v in results.verdicts.values())
        terminalreporter.write_sep("=", f"{results.score:g} of {total:g} points")
        for note in results.notes:
            terminalreporter.write_line(note)
