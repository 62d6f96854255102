"""python -m grader points | handout | class | gradescope: what an instructor does."""

from autograde.course.command import main
from grader.course import load_assignment
from pathlab.errors import run_command

if __name__ == "__main__":
    run_command(lambda: main(load_assignment()))
