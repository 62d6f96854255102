"""What the tests of the course tooling share: the commands as processes, submissions, pages."""

import csv
import io
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

from conftest import REPO, environment

from autograde.assignment import read_assignment

ASSIGNMENT = read_assignment(REPO / "grader" / "assignment.toml")
HOSTILE = "</div><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"
WAIT = 120  # seconds until a test gives up on a process
ALLOWED = (
    "html head meta title style body main h1 h2 h3 p small div span section b table tr th td a"
)
ALLOWED += " ul li svg line rect text"


def command(*arguments: str | Path) -> list[str]:
    """`python -m grader` with these arguments."""
    return [sys.executable, "-m", "grader", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run `python -m grader` with these arguments, and wait for it to finish."""
    return subprocess.run(
        command(*arguments),
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


def raising(folder: Path, message: str) -> Path:
    """A submission whose every module raises this."""
    folder.mkdir(parents=True)
    for name in ASSIGNMENT.modules:
        (folder / name).write_text(f"raise ValueError({message!r})\n")
    return folder


def zipped(folder: Path, file: Path) -> None:
    """Pack a folder, under its own name."""
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))


def table(out: Path) -> dict[str, dict[str, str]]:
    """gradebook.csv by id."""
    rows = csv.DictReader(io.StringIO((out / "gradebook.csv").read_text()))
    return {row["id"]: row for row in rows}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [v for name, v in attributes if name in ("href", "src")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


def read_page(text: str) -> Page:
    """A page of ours, which loads nothing and runs nothing."""
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text
    found = Page(text)
    assert found.tags <= set(ALLOWED.split())
    return found
