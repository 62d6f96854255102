"""What graded tests name as arguments: the submission's session, data, thresholds."""

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autograde.assignment import Assignment, Data, GradedTest
from autograde.grading import Grading, number_of, stop
from autograde.sandbox.start import NO_ISOLATION, Isolation, Limits, best_isolation, works
from autograde.student import Session
from autograde.submission import copy_submission
from pathlab.errors import UserError


def fresh_rng() -> np.random.Generator:
    """From the system's entropy: nothing that is asked in a grading can be known in advance."""
    return np.random.default_rng(secrets.randbits(128))


@pytest.fixture(scope="session")
def grading(pytestconfig: pytest.Config) -> Grading:
    """The grading that these tests belong to."""
    grading = pytestconfig.pluginmanager.get_plugin("grading")
    assert isinstance(grading, Grading)
    return grading


@pytest.fixture(scope="session")
def assignment(grading: Grading) -> Assignment:
    """The numbers of the course."""
    return grading.assignment


@pytest.fixture
def target(request: pytest.FixtureRequest, assignment: Assignment) -> GradedTest:
    """The test's own entry in assignment.toml, with its threshold."""
    return assignment.tests[number_of(request.node)]


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of random numbers that nobody can know in advance."""
    return fresh_rng()


@pytest.fixture
def unless_fast(pytestconfig: pytest.Config) -> None:
    """Named by a test that trains; `--fast` leaves it out."""
    if pytestconfig.getoption("--fast"):
        pytest.skip("trainings are left out with --fast")


@pytest.fixture(scope="session")
def session(pytestconfig: pytest.Config, grading: Grading) -> Iterator[Session]:
    """The conversation with the submission, in the strongest isolation that works here."""
    option, assignment = pytestconfig.getoption, grading.assignment
    isolation = _choose_isolation(pytestconfig, grading)
    submission = Path(option("--submission") or assignment.solution)
    with tempfile.TemporaryDirectory(prefix="grading-") as workspace:
        session = Session(
            copy_submission(submission, Path(workspace), assignment),
            assignment.operations,
            isolation,
            Limits(memory_bytes=assignment.limits.memory_mib << 20),
            option("--threads"),
            option("--seconds"),
            option("--patience"),
        )
        try:
            yield session
        finally:
            session.end()
            grading.results.notes.append(
                f"isolation: {isolation.value}; the submission used "
                f"{session.cpu_seconds:.0f} CPU seconds and {session.peak_bytes >> 20} MiB"
            )
            grading.write()


def _choose_isolation(config: pytest.Config, grading: Grading) -> Isolation:
    """What was asked for, or the best that works. Somebody else's code runs without any only where
    that was asked for."""
    chosen, results = config.getoption("--isolation"), grading.results
    if chosen:
        isolation = Isolation(chosen)
        if not works(isolation):
            stop(f"--isolation {chosen} does not work here; leave it out.")
    else:
        isolation = best_isolation()
    if isolation is Isolation.NONE and not chosen and config.getoption("--submission"):
        stop(NO_ISOLATION)
    if isolation is Isolation.NONE:
        whose = "the submission" if chosen else "your own repository"
        results.notes.append(f"WARNING: {whose} was graded without isolation.")
    results.isolation = isolation.value
    return isolation


@pytest.fixture(scope="session")
def data(pytestconfig: pytest.Config, grading: Grading) -> Data:
    """What a submission is trained and scored on, as the course opens it."""
    assert grading.assignment.open_data, "this course has no data"
    try:
        data = grading.assignment.open_data(pytestconfig.getoption("--dataset"))
    except UserError as error:  # the instructor's mistake, not the submission's
        stop(str(error))
    grading.results.notes.append(f"data: {data.name}")
    return data
