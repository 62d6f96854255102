"""The list of verdicts, in Gradescope's format; written by the trusted side alone."""

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from autograde.assignment import Assignment, GradedTest
from pathlab.files import write_json

MAX_TEXT = 4000  # characters that a test may say
NOT_REACHED, NOT_GRADED = "This test was not reached.", "Not graded: "


def plain(text: str, limit: int = MAX_TEXT) -> str:
    """Text that a submission may have had a say in, fit for a terminal, a page and a file: of
    bounded length, without control characters (escape sequences, right-to-left marks) and
    without halves of surrogate pairs."""
    text = text if len(text) <= limit else text[:limit] + " [...]"
    lines = (line.expandtabs(4) for line in text.split("\n"))
    return "\n".join("".join(c if c.isprintable() else "\ufffd" for c in line) for line in lines)


def in_order(number: str) -> tuple[int, ...]:
    """A key to sort the numbers of tests by: 1.2 before 1.10."""
    return tuple(int(digits) for digits in re.findall(r"\d+", number))


@dataclass
class Verdict:
    """One test's outcome. Until it ends, it is what a grading that stops now would say."""

    number: str
    title: str
    max_score: float
    visibility: str
    score: float = 0.0
    output: str = NOT_REACHED

    @classmethod
    def of(cls, test: GradedTest) -> "Verdict":
        """The verdict on a test that was not reached yet."""
        return cls(test.number, test.title, test.points, test.visibility)

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
    """All verdicts of one grading, by the tests' numbers.

    name: of the submission, plain text; notes: lines for people; isolation: in which the submission
    was run, "" if it was not.
    """

    assignment: Assignment
    name: str = ""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    isolation: str = ""
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def read(cls, file: Path, assignment: Assignment) -> "Results":
        """What `write` wrote. Raises OSError, ValueError, KeyError or TypeError for other files."""
        value = json.loads(file.read_text(encoding="utf-8"))
        names = ("number", "name", "max_score", "visibility", "score", "output")
        verdicts = [Verdict(*(test[name] for name in names)) for test in value["tests"]]
        return cls(
            assignment,
            verdicts={verdict.number: verdict for verdict in verdicts},
            notes=value["output"].splitlines(),
            isolation=value["extra_data"]["isolation"],
            began=time.monotonic() - value["execution_time"],
        )

    @property
    def score(self) -> float:
        """The points of all tests together."""
        return round(sum(verdict.score for verdict in self.verdicts.values()), 2)

    @property
    def max_score(self) -> float:
        """The most points that the tests of this grading give together."""
        return sum(verdict.max_score for verdict in self.verdicts.values())

    @property
    def by_part(self) -> dict[str, list[Verdict]]:
        """The verdicts of each part, by its name, in the order of their numbers."""
        verdicts = sorted(self.verdicts.values(), key=lambda verdict: in_order(verdict.number))
        return {
            part.name: [v for v in verdicts if v.number.split(".")[0] == part.key]
            for part in self.assignment.parts.values()
        }

    @property
    def parts(self) -> dict[str, tuple[float, float]]:
        """For each part, by its name, (points, most points)."""
        return {
            part: (round(sum(v.score for v in verdicts), 2), sum(v.max_score for v in verdicts))
            for part, verdicts in self.by_part.items()
        }

    def write(self, file: Path) -> None:
        """Write Gradescope's results.json, atomically."""
        tests = [
            {
                "name": verdict.title,
                "number": verdict.number,
                "score": round(verdict.score, 2),
                "max_score": verdict.max_score,
                "status": "passed" if verdict.state == "passed" else "failed",
                "output": verdict.output,
                "visibility": verdict.visibility,
            }
            for verdicts in self.by_part.values()
            for verdict in verdicts
        ]
        value = {
            "score": self.score,
            "output": "\n".join(self.notes),
            "execution_time": round(time.monotonic() - self.began, 1),
            "tests": tests,
            "leaderboard": [{"name": p, "value": points} for p, (points, _) in self.parts.items()],
            "extra_data": {"isolation": self.isolation},
        }
        write_json(file, value)
