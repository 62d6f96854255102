"""pytest grader: the engine's plugin grades this folder's tests."""

import pytest

from autograde.assignment import Assignment
from autograde.fixtures import fresh_rng
from autograde.plugin import grading_options
from autograde.student import Session
from grader.checks.student import Student
from grader.checks.trainings import Schedule
from grader.course import load_assignment

pytest_addoption = grading_options(load_assignment)


@pytest.fixture(scope="module")
def student(session: Session, request: pytest.FixtureRequest) -> Student:
    """The submission's modules of one part: each file of tests says which TASK."""
    return Student(session, request.module.TASK, fresh_rng())


@pytest.fixture(scope="session")
def schedule(assignment: Assignment) -> Schedule:
    """How long a model is trained, and how often."""
    return Schedule(**assignment.settings["trainings"])
