"""The folder that students get: the repository without solutions, tests and measurements."""

import fnmatch
import re
from pathlib import Path

from autograde.assignment import ENGINE, Assignment, FileSet, Handout
from pathlab.errors import UserError
from pathlab.files import folder_written_atomically

LEFT_OUT = (".*", "__pycache__", "*.pyc", "*.tmp")  # of every folder
BLANK = re.compile(
    r"^( *)### BEGIN SOLUTION\n(?:(?! *### BEGIN SOLUTION\n).*\n)*?\1### END SOLUTION\n",
    re.MULTILINE,
)
MARK = re.compile(r"^ *### (?:BEGIN|END) SOLUTION *$", re.MULTILINE)
BLANK_TEXT = r"""\1### BEGIN SOLUTION
\1raise NotImplementedError("not written yet")
\1### END SOLUTION
"""


def remove_solutions(source: str) -> tuple[str, int]:
    """(the source with every solution replaced by `raise NotImplementedError`, their number).

    The marks stay, since they show a student where to write. Raises ValueError for a mark without
    its partner: half a solution must not be handed out.
    """
    stripped, count = BLANK.subn(BLANK_TEXT, source)
    if len(MARK.findall(stripped)) != 2 * count:
        raise ValueError("a line ### BEGIN SOLUTION or ### END SOLUTION stands alone")
    return stripped, count


def read_files(assignment: Assignment, wanted: FileSet) -> dict[str, bytes]:
    """The engine, the course's folder and what is wanted, by paths relative to the repository.

    Never one of the assignment's modules. Raises UserError for what is not there.
    """
    root, left_out = assignment.root, (*LEFT_OUT, *wanted.without)
    tops = [root / name for name in (*ENGINE, assignment.name, *wanted.files, *wanted.folders)]
    packages = [folder for folder in assignment.folder.parents if root in folder.parents]
    tops += [file for folder in packages if (file := folder / "__init__.py").exists()]
    found: dict[str, bytes] = {}
    try:
        for top in tops:
            for path in top.rglob("*") if top.is_dir() else [top]:
                name = path.relative_to(root)
                hidden = any(fnmatch.fnmatch(part, p) for part in name.parts for p in left_out)
                if not hidden and not path.is_dir():
                    found[name.as_posix()] = path.read_bytes()
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error
    for module in assignment.modules:
        found.pop((assignment.solution / module).relative_to(root).as_posix(), None)
    return found


def write_handout(assignment: Assignment, folder: Path) -> int:
    """Write the handout into a new or empty folder, whole or not at all.

    Returns the number of blanks. Raises UserError for a folder that holds something, and for
    whatever prevents reading or writing.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: name a new folder for the handout.")
    files, blanks = read_files(assignment, assignment.handout), 0
    for module in assignment.modules:
        path = assignment.solution / module
        try:
            stripped, count = remove_solutions(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}. Fix it; nothing was written.") from None
        files[path.relative_to(assignment.root).as_posix()] = stripped.encode()
        blanks += count
    if "README.md" in files:
        files["README.md"] = _for_students(assignment.handout, files["README.md"])
    with folder_written_atomically(folder) as new:
        for name, data in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(data)
    return blanks


def _for_students(handout: Handout, readme: bytes) -> bytes:
    """The README with a note below its title, and without what is not in the handout."""
    title, rest = readme.decode().split("\n", 1)
    for pattern in handout.readme_without:
        rest = re.sub(pattern, "", rest, flags=re.DOTALL)
    return f"{title}\n{handout.readme_note}{rest}".encode()
