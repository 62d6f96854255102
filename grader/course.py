"""What this course hands over to the engine: its numbers, its data, its likely causes."""

from pathlib import Path

from autograde.assignment import Assignment, read_assignment
from grader.checks.causes import CAUSES
from grader.checks.images import PrivateImages


def load_assignment() -> Assignment:
    """This course as assignment.toml has it. Raises UserError for a mistake in that file."""
    return read_assignment(Path(__file__).with_name("assignment.toml"), CAUSES, PrivateImages)
