"""Grades a folder of submissions, each in a process of its own, and goes on where it was stopped.

OUT/results/ID.json, ID.html   what pytest wrote for a student
OUT/records/ID.json            that this grading has ended, of which submission, and how
OUT/logs/ID.txt                what the grading printed
OUT/work/                      gradings that run; a grading ends when its folder here is gone
OUT/gradebook.csv, report.html the class, after every student

Whatever a grading writes comes to OUT/results only when it has ended, and its record after the
rest: it names their digests, so that a result that is half-written, damaged or of another
submission is never taken for a finished one.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from autograde.assignment import Assignment
from autograde.course.gradebook import FAILED, GRADED, UNREADABLE, WAITING, Row, gradebook, overview
from autograde.course.roster import Student, submission_digest
from autograde.report import write_page
from autograde.results import Results, plain
from pathlab.errors import UserError, check_interrupt
from pathlab.files import make_folder, write_atomically, write_json
from pathlab.settings import check_same

POLL_SECONDS = 0.5  # how often a grading looks whether it is still wanted
END_SECONDS = 10.0  # what pytest may take to end its worker and remove its temporary files
# A grading must not outlive the process that waits for it (SIGKILL, a machine's scheduler): Linux
# sends SIGINT then (PR_SET_PDEATHSIG). SIGINT is ignored below `nohup` and `&`, so it is set anew.
LAUNCH = """
import ctypes, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGINT)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Grading:
    """How everybody is graded: plain values, since it may travel to another machine.

    options: those of pytest that change points, by name; True, False or a text, "" for none.
    limit: seconds for the whole grading of one submission.
    """

    assignment: Assignment
    out: Path
    options: dict[str, str | bool]
    threads: int
    limit: float


def grade(grading: Grading, student: Student, work_folder: Path) -> None:
    """Grade one submission, from its digest to its record.

    Returns without a result when work_folder is removed. Raises OSError and UserError for a disk
    that is full and the like, nothing for what a submission does.
    """
    work = work_folder / student.stem
    with contextlib.suppress(FileNotFoundError):  # the command has ended before this began
        work.mkdir()
        try:
            began = time.monotonic()
            submission, problem = submission_digest(student.source, grading.assignment)
            code = _run(grading, student, work)
            if work.exists():
                record: dict[str, Any] = {"submission": submission, "options": grading.options}
                record["status"], record["note"] = _judge(grading, student, code, problem)
                record["seconds"] = round(time.monotonic() - began, 1)
                _hand_over(grading, student, record, work)
        except (OSError, UserError):
            if work_folder.exists():
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _run(grading: Grading, student: Student, work: Path) -> int | None:
    """The exit code of a grading; None for one that is ended, at the limit or with `work`."""
    root, deadline = grading.assignment.root, time.monotonic() + grading.limit
    pytest = ["-m", "pytest", "-c", str(root / "pyproject.toml"), "--rootdir", str(root)]
    pytest += [str(grading.assignment.folder), f"--submission={student.source}"]
    pytest += [f"--results={work / 'results.json'}", f"--report={work / 'report.html'}"]
    for name, value in grading.options.items():
        pytest += [f"--{name}" if value is True else f"--{name}={value}"] if value else []
    pytest += [f"--threads={grading.threads}", "-q", "-p", "no:cacheprovider"]
    with open(work / "log.txt", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *pytest],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTEST_ADDOPTS": ""},  # everybody is graded alike
            start_new_session=True,  # Ctrl-C is for the command alone, which ends this one
        )
        try:
            while process.poll() is None and time.monotonic() < deadline and work.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(POLL_SECONDS, grading.limit))
            return process.poll()
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask pytest to clean up and end, then end its whole process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _judge(grading: Grading, student: Student, code: int | None, problem: str) -> tuple[str, str]:
    """(status, note) of a grading that ended with this exit code."""
    if code is None:
        return FAILED, f"the whole grading took longer than {grading.limit:g} seconds"
    if code not in (0, 1):  # pytest: all tests passed, some failed
        return FAILED, f"the grader ended with exit code {code}; see logs/{student.stem}.txt"
    if problem:
        return UNREADABLE, f"cannot be graded: {problem}"
    return GRADED, "graded without isolation" if grading.options.get("isolation") == "none" else ""


def _hand_over(grading: Grading, student: Student, record: dict[str, Any], work: Path) -> None:
    """Move what a grading has written to where it stays; the record of it comes last."""
    out, written, report = grading.out, work / "results.json", work / "report.html"
    try:
        results = Results.read(written, grading.assignment)
        if not results.verdicts:
            raise ValueError("no tests")
    except (OSError, ValueError, KeyError, TypeError) as error:
        results = Results(grading.assignment)
        if record["status"] != FAILED:
            record |= {"status": FAILED, "note": f"the grader left no results ({error})"}
    # Written anew: with the student's name, and with the note where there is one.
    results.name = student.id
    results.notes += [record["note"]] if record["note"] else []
    results.write(written)
    write_page(results, report)
    digests = {}
    for path, suffix in ((written, ".json"), (report, ".html")):
        final = out / "results" / f"{student.stem}{suffix}"
        digests[final.name] = _sha256(path)
        os.replace(path, final)
    os.replace(work / "log.txt", out / "logs" / f"{student.stem}.txt")
    write_json(_record_file(out, student), record | {"files": digests})


def read_row(grading: Grading, student: Student) -> tuple[Row, dict[str, Any]] | None:
    """A student's row and the record it rests on; None without an undamaged result."""
    out = grading.out
    try:
        record = json.loads(_record_file(out, student).read_text())
        for name in (f"{student.stem}.json", f"{student.stem}.html"):
            if _sha256(out / "results" / name) != record["files"][name]:
                return None
        results = Results.read(out / "results" / f"{student.stem}.json", grading.assignment)
        status, seconds, note = str(record["status"]), float(record["seconds"]), record["note"]
        row = Row(student.id, student.stem, status, seconds, plain(note), results)
        return row, {**record, "options": dict(record["options"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _record_file(out: Path, student: Student) -> Path:
    return out / "records" / f"{student.stem}.json"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Classroom:
    """All students with what is known about each.

    rows: by the students' stems; waiting: whoever has no result, or one of another submission, or
    one that failed to be graded. Raises UserError where OUT has results with other options.
    """

    def __init__(self, grading: Grading, students: list[Student]):
        self.grading, self.out = grading, grading.out
        self.rows = {s.stem: Row(s.id, s.stem, WAITING, 0.0, "", None) for s in students}
        self.waiting = []
        for student in students:
            found = read_row(self.grading, student)
            if found and self._is_finished(student, found[1]):
                self.rows[student.stem] = found[0]
            else:
                self.waiting.append(student)
        for folder in ("results", "records", "logs"):
            make_folder(self.out / folder)
        self.write()

    def _is_finished(self, student: Student, record: dict[str, Any]) -> bool:
        """Whether the record is of this very submission. A failure of the grader itself is no end:
        it is tried again."""
        if record["status"] not in (GRADED, UNREADABLE):
            return False
        check_same(
            record["options"],
            self.grading.options,
            problem=f"{self.out} holds gradings with other options",
            advice="Give the same options, or name another --out.",
        )
        digest, _ = submission_digest(student.source, self.grading.assignment)
        return digest == str(record["submission"])

    def run(self, engine: Executor) -> None:
        """Grade whoever waits. Ctrl-C ends the gradings that run, and comes through."""
        with self._work_folder() as work:
            try:
                futures = {engine.submit(grade, self.grading, s, work): s for s in self.waiting}
                bar = tqdm(as_completed(futures), total=len(futures), unit="student", disable=None)
                for future in bar:
                    self._read_result(futures[future], future.exception())
                    check_interrupt()
                    failed = sum(row.status == FAILED for row in self.rows.values())
                    bar.set_postfix(failed_to_grade=failed)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)  # every grading sees it, wherever it runs
                engine.shutdown(wait=True, cancel_futures=True)
                raise

    def _read_result(self, student: Student, error: BaseException | None) -> None:
        found = None if error else read_row(self.grading, student)
        note = plain(str(error) if error else "no result was left", 300)
        failed = Row(student.id, student.stem, FAILED, 0.0, note, None)
        self.rows[student.stem] = found[0] if found else failed
        self.write()

    @contextlib.contextmanager
    def _work_folder(self) -> Iterator[Path]:
        """This command's folder in OUT/work; whatever still runs for a killed one ends."""
        shutil.rmtree(self.out / "work", ignore_errors=True)
        work = self.out / "work" / secrets.token_hex(4)
        make_folder(work)
        try:
            yield work
        finally:
            shutil.rmtree(self.out / "work", ignore_errors=True)

    def write(self) -> None:
        """Write gradebook.csv and report.html."""
        rows, assignment = list(self.rows.values()), self.grading.assignment
        write_atomically(self.out / "gradebook.csv", gradebook(assignment, rows).encode())
        write_atomically(self.out / "report.html", overview(assignment, rows).encode())
