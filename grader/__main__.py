"""python -m grader points | handout | class | gradescope: what an instructor does."""

from autograde.course.command import main
from pathlab.errors import run_command

if __name__ == "__main__":
    run_command(main)
