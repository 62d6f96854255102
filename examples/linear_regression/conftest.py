from pathlib import Path

from autograde.assignment import read_assignment
from autograde.plugin import grading_options

FILE = Path(__file__).with_name("assignment.toml")
pytest_addoption = grading_options(lambda: read_assignment(FILE))
