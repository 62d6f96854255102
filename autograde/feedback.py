"""Words for a student at midnight: what was expected, what came, the likely cause, and where."""

import re
from dataclasses import dataclass
from pathlib import Path

from autograde.assignment import ENGINE, Assignment

MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")


class Lost(Exception):
    """Points that were not earned. fraction: the share in [0, 1) that was, all the same."""

    def __init__(self, expected: str, got: object, cause: str = "", fraction: float = 0.0):
        lines = [f"Expected: {_indented(expected)}", f"Got: {_indented(got)}"]
        if cause:
            lines.append(f"Likely cause: {_indented(cause)}")
        super().__init__("\n".join(lines))
        self.fraction = fraction


@dataclass(frozen=True)
class Frame:
    """One line of a submission that an exception went through, as the worker claims."""

    file: str
    line: str
    text: str


@dataclass(frozen=True)
class Problem:
    """An exception of a submission, as the worker claims. refused: what was raised is the worker's
    own refusal of a value that cannot be used, which `message` describes."""

    kind: str = "Exception"
    message: str = ""
    refused: bool = False
    frames: tuple[Frame, ...] = ()


def _indented(text: object) -> str:
    """Text that a submission may have had a say in, so that none of its lines looks like ours."""
    return str(text).replace("\n", "\n    ")


def find_definition(folder: Path, module: str, name: str) -> str:
    """A last line for a message: where a submission defines a function or class; "" if nowhere."""
    try:
        lines = (folder / f"{module}.py").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    pattern = re.compile(rf"(async )?(def|class) {re.escape(name)}\b")
    for number, line in enumerate(lines, 1):
        if pattern.match(line):
            return f"\nWhere: {module}.py, line {number}: {line[:200]}"
    return ""


def describe_error(problem: Problem, assignment: Assignment) -> str:
    """What a student is told about an exception of the submission."""
    lines = [f"Your code raised {problem.kind}: {problem.message}".rstrip(": ")]
    if problem.refused:
        lines = [f"What your code returned cannot be used: {problem.message}."]
    lines += [f"Where: {f.file}, line {f.line}: {f.text}" for f in problem.frames[-1:]]
    cause = _likely_cause(problem, assignment)
    if cause:
        lines.append(f"Likely cause: {cause}")
    return "\n".join(map(_indented, lines))


def _likely_cause(problem: Problem, assignment: Assignment) -> str:
    missing = MISSING_MODULE.search(problem.message)
    if missing:
        return _why_missing(missing[1], assignment)
    for cause, kinds, pattern in assignment.causes:
        if (not kinds or problem.kind in kinds.split()) and re.search(pattern, problem.message):
            return cause
    return ""


def _why_missing(module: str, assignment: Assignment) -> str:
    name = module.split(".")[0]
    if f"{name}.py" in assignment.modules:
        return f"the file {name}.py is missing from the submission."
    folders = (*ENGINE, assignment.name, *assignment.handout.folders)
    if f"{name}.py" in assignment.handout.files or name in folders:
        return (
            f"the handout's {module} is not there where submissions are graded, since the graded "
            "functions need none of it; import it inside the function that does."
        )
    return (
        f"the package {module!r} is not installed where submissions are graded; use only what the "
        "handout installs, and your own files."
    )
