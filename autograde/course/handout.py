"""The folder that students get: this repository without solutions, tests and measurements."""

import re
import shutil
from pathlib import Path

from pathlab.errors import UserError
from pathlab.files import folder_written_atomically

REPO = Path(__file__).resolve().parents[2]
FILES = (
    "classification_models.py",
    "classification_train.py",
    "segmentation_models.py",
    "segmentation_train.py",
    "classification_dataset.py",
    "classification_main.py",
    "segmentation_main.py",
    "synthetic_data.py",
    "check_installation.py",
    "dispatcher.py",
    "requirements.txt",
    "pyproject.toml",  # tells pytest how to run
    "README.md",
    "LICENSE",
)
FOLDERS = ("pathlab", "grader", "autograde", "docs", "sweeps")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "*.tmp", "capstones.md")
BLANK = re.compile(
    r"^( *)### BEGIN SOLUTION\n(?:(?! *### BEGIN SOLUTION\n).*\n)*?\1### END SOLUTION\n",
    re.MULTILINE,
)
MARK = re.compile(r"^ *### (?:BEGIN|END) SOLUTION *$", re.MULTILINE)
BLANK_TEXT = r"""\1### BEGIN SOLUTION
\1raise NotImplementedError("not written yet")
\1### END SOLUTION
"""
NOTE = """
> **This folder is the handout.** The blanks are yours to fill. What belongs to `make`, `tests/` and
> `benchmarks/` stays with your instructor; begin with `pip install -r requirements.txt`, then
> `python check_installation.py`, then `pytest grader --fast`.
"""


def without_solutions(source: str) -> tuple[str, int]:
    """(the source with every solution replaced by `raise NotImplementedError`, their number).

    The marks stay, since they show a student where to write. Raises ValueError for a mark without
    its partner: half a solution must not be handed out.
    """
    stripped, count = BLANK.subn(BLANK_TEXT, source)
    if len(MARK.findall(stripped)) != 2 * count:
        raise ValueError("a line ### BEGIN SOLUTION or ### END SOLUTION stands alone")
    return stripped, count


def write_handout(folder: Path) -> int:
    """Write the handout into a new or empty folder, whole or not at all.

    Returns the number of blanks. Raises UserError for a folder that holds something, and for
    whatever prevents writing.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: name a new folder for the handout.")
    blanks = 0
    with folder_written_atomically(folder) as new:
        for name in FILES:
            source = REPO / name
            if not source.exists():
                continue
            text = source.read_text(encoding="utf-8")
            if source.suffix == ".py":
                text, count = _stripped(source, text)
                blanks += count
            elif name == "README.md":
                title, rest = text.split("\n", 1)
                rest = rest.replace(" (In this repository the blanks are filled in.)", "")
                rest = re.sub(r"## Where it leads.*?(?=## )", "", rest, flags=re.DOTALL)
                rest = re.sub(r"- \[[^]]*\]\((CONTRIBUTING|docs/capstones).*\n", "", rest)
                text = f"{title}\n{NOTE}{rest}"
            (new / name).write_text(text, encoding="utf-8")
        for name in FOLDERS:
            if (REPO / name).is_dir():
                shutil.copytree(REPO / name, new / name, ignore=LEFT_OUT)
    return blanks


def _stripped(source: Path, text: str) -> tuple[str, int]:
    try:
        return without_solutions(text)
    except ValueError as error:
        raise UserError(f"{source}: {error}. Mend it; nothing was written.") from None
