"""One grading as an HTML page: one file, no scripts, nothing loaded, fit for a phone and for paper.

Much of what a page says comes from a submission. All of it is escaped, nothing becomes a link, and
the browser is told to load and run nothing, in case of a mistake here.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from autograde.assignment import REPO
from autograde.results import Results
from pathlab.files import write_atomically

HERE = Path(__file__).resolve().parent
MARKS = {"passed": "✓", "partly": "◐", "lost": "✗", "not graded": "○"}


def number(points: float) -> str:
    """Points as people write them: 2, 1.5, 0.33."""
    return f"{round(points, 2):g}"


def render(template: str, **values: Any) -> str:
    """A page from a template of autograde/templates or autograde/course/templates, in the style
    of all pages."""
    folders = [HERE / "templates", HERE / "course" / "templates", REPO / "pathlab" / "templates"]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["points"] = number
    return environment.get_template(template).render(marks=MARKS, **values)


def page(results: Results) -> str:
    """The page of one grading, finished or not."""
    states = Counter(verdict.state for verdict in results.verdicts.values())
    counts = {state: states[state] for state in MARKS if states[state]}
    return render("grading.html", results=results, counts=counts)


def write_page(results: Results, file: Path) -> None:
    """Write the page of one grading, atomically."""
    write_atomically(file, page(results).encode())
