"""The list of verdicts, in Gradescope's format; written by the trusted side alone."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from autograde.report import page
from pathlab.files import write_atomically, write_json

MAX_TEXT = 4000  # characters that a test may say
PARTS = {"Part 1": "1.", "Part 2": "2.", "Extra credit": "3."}  # how their tests' numbers begin
NOT_REACHED, NOT_GRADED = "This test was not reached.", "Not graded: "


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """Text that a submission may have had a say in, fit for a terminal, a page and a file: of
    bounded length, without control characters (escape sequences, right-to-left marks) and
    without halves of surrogate pairs."""
    text = text if len(text) <= limit else text[:limit] + " [...]"
    lines = (line.expandtabs(4) for line in text.split("\n"))
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in lines)


@dataclass
class Verdict:
    """One test's outcome. Until it ends, it is what a grading that stops now would say."""

    number: str
    title: str
    max_score: float
    visibility: str
    score: float = 0.0
    output: str = NOT_REACHED

    @property
    def state(self) -> str:
        """ "passed", "partly", "lost" or "not graded"."""
        if self.score >= self.max_score:
            return "passed"
        if self.score > 0:
            return "partly"
        return "not graded" if self.output.startswith((NOT_REACHED, NOT_GRADED)) else "lost"


@dataclass
class Results:
    """All verdicts, in order, and the files that always tell how far the grading is.

    file: results.json; report: the same as an HTML page; name: of the submission, plain text.
    """

    file: Path | None
    report: Path | None = None
    name: str = ""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, file: Path) -> "Results":
        """What `write` wrote. Raises OSError, ValueError, KeyError or TypeError for other files."""
        value = json.loads(file.read_text())
        names = ("number", "name", "max_score", "visibility", "score", "output")
        verdicts = [Verdict(*(test[name] for name in names)) for test in value["tests"]]
        verdicts = {verdict.number: verdict for verdict in verdicts}
        notes = value["output"].splitlines()
        return cls(None, None, "", verdicts, notes, time.monotonic() - value["execution_time"])

    @property
    def score(self) -> float:
        return round(sum(verdict.score for verdict in self.verdicts.values()), 2)

    @property
    def parts(self) -> dict[str, tuple[float, float]]:
        """For each part (points, most points)."""
        parts = {}
        for part, start in PARTS.items():
            verdicts = [v for v in self.verdicts.values() if v.number.startswith(start)]
            points = round(sum(verdict.score for verdict in verdicts), 2)
            parts[part] = (points, sum(verdict.max_score for verdict in verdicts))
        return parts

    def write(self) -> None:
        """Atomically; only the files that are wanted."""
        if self.report is not None:
            write_atomically(self.report, page(self).encode())
        if self.file is None:
            return
        tests = [
            {
                "name": verdict.title,
                "number": verdict.number,
                "score": round(verdict.score, 2),
                "max_score": verdict.max_score,
                "status": "passed" if verdict.score >= verdict.max_score else "failed",
                "output": verdict.output,
                "visibility": verdict.visibility,
            }
            for verdict in self.verdicts.values()
        ]
        board = [{"name": part, "value": points} for part, (points, _) in self.parts.items()]
        write_json(
            self.file,
            {
                "score": self.score,
                "output": "\n".join(self.notes),
                "execution_time": round(time.monotonic() - self.began, 1),
                "tests": tests,
                "leaderboard": board,
            },
        )
