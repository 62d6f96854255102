"""Conversations with workers, for this process or one in which much is missing."""

import sys
import tempfile
import time
from pathlib import Path

import pytest

from autograde.sandbox.start import Isolation, Limits, Usage, Worker, interpreter, start
from autograde.student import Session
from autograde.submission import copy_submission
from autograde.untrusted import protocol
from grader.course import load_assignment

MIB = 1 << 20


def launch(kind: Isolation, code: str, *folders: Path, argv=(), **limits) -> Worker:
    """A worker that runs Python code and can read the folders."""
    read_only = interpreter() | {str(path): str(path) for path in folders}
    command = [sys.executable, "-c", code, *map(str, argv)]
    return start(command, read_only=read_only, isolation=kind, limits=Limits(**limits), env={})


def converse(kind: Isolation) -> Usage:
    """A conversation with a worker about this repository's own modules."""
    assignment = load_assignment()
    with tempfile.TemporaryDirectory() as workspace:
        submission = copy_submission(assignment.solution, Path(workspace), assignment)
        session = Session(submission, assignment.operations, kind, Limits(), threads=1)
        try:
            session.request("load", {"module": "classification_models"})
            question = {"module": "classification_models", "names": ["CNNModel"]}
            found = session.request("members", question).value
            usage = session.worker.usage
        finally:
            session.end()
    assert found["CNNModel"][0] == "class"
    return usage


def time_out(kind: Isolation) -> None:
    """Deadlines hold for a worker that neither reads nor writes, and for a child that keeps its
    pipes open."""
    child = "import time; time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}])"
    with launch(kind, f"{code}\ntime.sleep(60)") as worker:
        for message in (b"short", bytes(10 * MIB)):
            began = time.monotonic()
            with pytest.raises(protocol.Timeout):
                worker.exchange(message, began + 0.3)
            assert time.monotonic() - began < 20
    assert worker.why_ended() == "killed"
