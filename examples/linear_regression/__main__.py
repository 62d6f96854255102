from pathlib import Path

from autograde.assignment import read_assignment
from autograde.course.command import main
from pathlab.errors import run_command

run_command(lambda: main(read_assignment(Path(__file__).with_name("assignment.toml"))))
