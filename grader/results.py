"""The list of verdicts, in Gradescope's format; written by the trusted side alone."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from pathlab.files import write_json

MAX_TEXT = 4000  # characters that a test may say


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
    output: str = "This test was not reached."


@dataclass
class Results:
    """All verdicts, in order, and the file that always tells how far the grading is."""

    file: Path | None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def score(self) -> float:
        return round(sum(verdict.score for verdict in self.verdicts.values()), 2)

    def write(self) -> None:
        """Atomically; does nothing without a file."""
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
        parts = [("Part 1", "1."), ("Part 2", "2."), ("Extra credit", "3.")]
        board = [
            {
                "name": name,
                "value": round(
                    sum(v.score for v in self.verdicts.values() if v.number.startswith(start)), 2
                ),
            }
            for name, start in parts
        ]
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
