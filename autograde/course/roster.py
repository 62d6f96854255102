"""Who has handed in what: a folder with a folder or a zip for each student."""

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autograde.assignment import Assignment
from autograde.results import plain
from autograde.submission import CHECKPOINTS, copy_submission
from pathlab.errors import UserError


@dataclass(frozen=True)
class Student:
    """id: plain text, for people; stem: the same as a harmless file name; source: folder or zip."""

    id: str
    stem: str
    source: Path


def find_students(folder: Path) -> tuple[list[Student], list[str]]:
    """(students in the order of their ids, names of what is neither a folder nor a zip).

    Raises UserError where there is no submission, or where two would have the same id.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}. Name a folder with a folder or a zip for each student."
        ) from error
    students: dict[str, Student] = {}
    others = []
    for path in entries:
        if path.name.startswith((".", "__MACOSX")):
            continue
        is_zip = path.suffix.lower() == ".zip" and path.is_file()
        if not (is_zip or path.is_dir()):
            others.append(_one_line(path.name))
            continue
        raw = path.stem if is_zip else path.name
        student = Student(_one_line(raw), _file_name(raw), path)
        twin = students.setdefault(student.stem.lower(), student)  # some disks ignore case
        if twin is not student:
            names = f"{_one_line(twin.source.name)} and {_one_line(path.name)}"
            raise UserError(f"{names} give the same id. Remove or rename one of them.")
    if not students:
        raise UserError(f"{folder} has no submissions: a folder or a zip for each student.")
    return list(students.values()), others


def _one_line(raw: str) -> str:
    return plain(raw).replace("\n", "\ufffd")


def _file_name(raw: str) -> str:
    """A name without anything special; one that had to be changed ends in a digest of itself."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", raw)[:80]
    digest = hashlib.sha256(os.fsencode(raw)).hexdigest()[:8]
    return name if name == raw and name[0] not in ".-" else f"s{name}-{digest}"


def submission_digest(source: Path, assignment: Assignment) -> tuple[str, str]:
    """(digest of all that a grading takes of a submission, why it cannot be graded or "")."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="digest-") as folder:
        try:
            copied = copy_submission(source, Path(folder), assignment)
        except Exception as error:  # mostly BadSubmission; never may one student stop the others
            text = plain(str(error), 300)
            return hashlib.sha256(text.encode()).hexdigest(), text
        for path in sorted([*copied.iterdir(), *(copied.parent / CHECKPOINTS).iterdir()]):
            name = path.relative_to(copied.parent)
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest(), ""
