"""Grades a folder of submissions, each in a process of its own, and goes on where it was stopped.

OUT/results/ID.json, ID.html   what `pytest grader` wrote for a student
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

from tqdm import tqdm

from autograde.course.gradebook import FAILED, GRADED, UNREADABLE, WAITING, Row, gradebook, overview
from autograde.course.roster import Student, digest_of
from autograde.results import Results, plain
from pathlab.errors import UserError, check_interrupt
from pathlab.files import make_folder, write_atomically, write_json

REPO = Path(__file__).resolve().parents[2]
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
class Job:
    """One grading: plain values, since it may travel to another machine.

    options: those of `pytest grader` that change points; limit: seconds for the whole grading.
    """

    id: str
    stem: str
    source: str
    out: str
    work: str
    options: tuple[str, ...]
    threads: int
    limit: float


def grade(job: Job) -> None:
    """Grade one submission, from its digest to its record.

    Returns without a result when job.work is removed. Raises OSError and UserError for a disk that
    is full and the like, nothing for what a submission does.
    """
    work = Path(job.work) / job.stem
    with contextlib.suppress(FileNotFoundError):  # the command has ended before this began
        work.mkdir()
        try:
            _grade(job, work)
        except (OSError, UserError):
            if Path(job.work).exists():
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _grade(job: Job, work: Path) -> None:
    submission, problem = digest_of(Path(job.source))
    results, report, log = work / "results.json", work / "report.html", work / "log.txt"
    began = time.monotonic()
    with open(log, "wb") as output:
        arguments = [f"--submission={job.source}", f"--results={results}", f"--report={report}"]
        arguments += [*job.options, f"--threads={job.threads}", "-q", "-p", "no:cacheprovider"]
        pytest = ["-m", "pytest", "-c", str(REPO / "pyproject.toml"), "--rootdir", str(REPO)]
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *pytest, str(REPO / "grader"), *arguments],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTEST_ADDOPTS": ""},  # everybody is graded alike
            start_new_session=True,  # Ctrl-C is for the command alone, which ends this one
        )
        try:
            while process.poll() is None and time.monotonic() - began < job.limit and work.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(POLL_SECONDS, job.limit))
            code = process.poll()
        finally:
            _end(process)
    if not work.exists():
        return
    status, note = (UNREADABLE, f"cannot be graded: {problem}") if problem else (GRADED, "")
    if code is None:
        status, note = FAILED, f"the whole grading took longer than {job.limit:g} seconds"
    elif code not in (0, 1):  # pytest: all tests passed, some failed
        status, note = FAILED, f"the grader ended with exit code {code}; see logs/{job.stem}.txt"
    about = {"submission": submission, "options": list(job.options), "status": status}
    about |= {"seconds": round(time.monotonic() - began, 1), "note": note}
    _hand_over(job, about, results, report, log)


def _hand_over(job: Job, about: dict, results: Path, report: Path, log: Path) -> None:
    """Move what a grading has written to where it stays; the record of it comes last."""
    out = Path(job.out)
    try:
        verdicts = Results.read(results)
        if not verdicts.verdicts:
            raise ValueError("no tests")
    except (OSError, ValueError, KeyError, TypeError) as error:
        verdicts = Results(None)
        if about["status"] != FAILED:
            about |= {"status": FAILED, "note": f"the grader left no results ({error})"}
    # Written anew: with the student's name, and with the note where there is one.
    verdicts.file, verdicts.report, verdicts.name = results, report, job.id
    verdicts.notes += [about["note"]] if about["note"] else []
    verdicts.write()
    digests = {}
    for written, suffix in ((results, ".json"), (report, ".html")):
        final = out / "results" / f"{job.stem}{suffix}"
        digests[final.name] = _sha256(written)
        os.replace(written, final)
    os.replace(log, out / "logs" / f"{job.stem}.txt")
    write_json(_record(out, job.stem), about | {"files": digests})


def _end(process: subprocess.Popen) -> None:
    """Ask pytest to clean up and end, then end its whole process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_row(out: Path, student: Student) -> tuple[Row, dict] | None:
    """A student's row and the record it rests on; None without an undamaged result."""
    try:
        record = json.loads(_record(out, student.stem).read_text())
        for name in (f"{student.stem}.json", f"{student.stem}.html"):
            if _sha256(out / "results" / name) != record["files"][name]:
                return None
        results = Results.read(out / "results" / f"{student.stem}.json")
        status, seconds, note = str(record["status"]), float(record["seconds"]), record["note"]
        row = Row(student.id, student.stem, status, seconds, plain(note), results)
        return row, record
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_finished(record: dict, student: Student, options: tuple[str, ...]) -> bool:
    """Whether the record is of this very submission, graded like this. A failure of the grader
    itself is no end: it is tried again."""
    if record.get("status") not in (GRADED, UNREADABLE) or record.get("options") != list(options):
        return False
    return record.get("submission") == digest_of(student.source)[0]


def _record(out: Path, stem: str) -> Path:
    return out / "records" / f"{stem}.json"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Classroom:
    """All students with what is known about each."""

    def __init__(self, students: list[Student], out: Path, options: tuple[str, ...]):
        self.students, self.out, self.options = students, out, options
        self.rows = {s.stem: Row(s.id, s.stem, WAITING, 0.0, "", None) for s in students}
        for folder in (out, out / "results", out / "records", out / "logs", out / "work"):
            make_folder(folder)
        self.waiting = []
        for student in students:
            found = read_row(out, student)
            if found and _is_finished(found[1], student, options):
                self.rows[student.stem] = found[0]
            else:
                self.waiting.append(student)
        self.write()

    def run(self, engine: Executor, threads: int, limit: float) -> None:
        """Grade whoever waits. Ctrl-C ends the gradings that run, and comes through."""
        with self._work() as work:
            futures = {}
            try:
                for student in self.waiting:
                    job = Job(
                        student.id,
                        student.stem,
                        str(student.source),
                        str(self.out),
                        str(work),
                        self.options,
                        threads,
                        limit,
                    )
                    futures[engine.submit(grade, job)] = student
                bar = tqdm(as_completed(futures), total=len(futures), unit="student", disable=None)
                for future in bar:
                    self._finished(futures[future], future.exception())
                    check_interrupt()
                    bar.set_postfix(failed_to_grade=self.count(FAILED))
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)  # every grading sees it, wherever it runs
                engine.shutdown(wait=True, cancel_futures=True)
                raise

    def _finished(self, student: Student, error: BaseException | None) -> None:
        found = None if error else read_row(self.out, student)
        note = plain(str(error) if error else "no result was left", 300)
        failed = Row(student.id, student.stem, FAILED, 0.0, note, None)
        self.rows[student.stem] = found[0] if found else failed
        self.write()

    @contextlib.contextmanager
    def _work(self) -> Iterator[Path]:
        """This command's folder in OUT/work; whatever still runs for a killed one ends."""
        shutil.rmtree(self.out / "work", ignore_errors=True)
        work = self.out / "work" / secrets.token_hex(4)
        make_folder(work)
        try:
            yield work
        finally:
            shutil.rmtree(self.out / "work", ignore_errors=True)

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.rows.values())

    def write(self) -> None:
        """gradebook.csv and report.html."""
        rows = list(self.rows.values())
        write_atomically(self.out / "gradebook.csv", gradebook(rows).encode())
        write_atomically(self.out / "report.html", overview(rows).encode())
