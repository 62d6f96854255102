"""pytest COURSE [--submission FOLDER_OR_ZIP] [--results FILE] [--report FILE] [--fast]

The pytest plugin that grades. COURSE is a folder with an assignment.toml, graded tests and a
conftest.py that hands the course over:

    pytest_addoption = grading_options(load_assignment)

Without --submission, the modules of this repository are graded.
"""

import argparse
import sys
from collections.abc import Callable

import pytest

from autograde import fixtures
from autograde.assignment import Assignment
from autograde.grading import Grading
from autograde.sandbox.start import Isolation
from pathlab.errors import USER_ERROR, UserError


def graded(number: str) -> pytest.MarkDecorator:
    """The decorator of a graded test. Title and points stand in assignment.toml at this number."""
    return pytest.mark.graded(number)


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
            print(f"error: {error}", file=sys.stderr)  # too early for pytest.exit
            sys.exit(USER_ERROR)
        if not pluginmanager.has_plugin("grading"):
            pluginmanager.register(grading, "grading")
            pluginmanager.register(fixtures, "grading fixtures")
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
