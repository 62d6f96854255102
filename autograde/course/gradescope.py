"""The autograder zip that Gradescope takes.

Gradescope unpacks it to /autograder/source, runs setup.sh once when the image is built (as root on
Ubuntu, with network), and for each submission /autograder/source/run_autograder. The submission
lies in /autograder/submission; /autograder/results/results.json is what it shows.
Source: https://gradescope-autograders.readthedocs.io/en/latest/specs/
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from autograde.assignment import Assignment
from autograde.course.handout import read_files
from autograde.report import render
from pathlab.files import write_atomically

DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same files, the same bytes


def write_autograder(
    assignment: Assignment, file: Path, minutes: int, options: Sequence[str] = ()
) -> None:
    """Write the zip, atomically; the same repository gives the same bytes.

    minutes: what Gradescope is set to allow a submission, at least 2. options: for every grading,
    as `pytest` takes them. Raises UserError.
    """
    entries = read_files(assignment, assignment.gradescope)
    start = " ".join([assignment.name, *options])
    scripts = {
        "setup.sh": render("setup.sh", install=assignment.gradescope.install),
        "run_autograder": render("run_autograder", start=start, seconds=60 * minutes - 60),
    }
    entries |= {name: text.encode() for name, text in scripts.items()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(entries.items()):
            entry = zipfile.ZipInfo(name, DATE)
            entry.create_system = 3  # Unix: the mode below is understood
            entry.external_attr = (0o100000 | (0o755 if name in scripts else 0o644)) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    write_atomically(file, packed.getvalue())
