"""Gradings by a real process, and all that the corpora know of the grader's inside.

Where the grader moves or renames something, this file and list_graded.py follow.
"""

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import REPO, environment

from grader import sandbox
from grader.sandbox import Isolation

MODULES = (
    "classification_models.py",
    "classification_train.py",
    "segmentation_models.py",
    "segmentation_train.py",
)
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]

# What attacks know of the grader, as marks of their texts: @ANSWERS@.
INSIDE = {
    "GRADER": "grader",  # the folder of trusted code
    "GRADER_SOURCE": "grader/checks.py",  # some of it
    "GRADER_MODULE": "grader.checks",
    "DATA_SOURCE": "pathlab/data/tissue.py",  # where the stand-in's labels come from
    "DATA_MODULE": "pathlab.data.tissue",
    # The worker's own files, and what lies beside the submission's copy (sys.argv[2] of a worker).
    "TOOLS": "tools",
    "WORKER_FILE": "worker.py",
    "PROTOCOL_FILE": "protocol.py",
    "CHECKPOINTS": "checkpoints",
    # Names inside of the worker, which is its process' __main__.
    "PROTOCOL": "protocol",  # the module that reads and writes messages
    "OPERATIONS": "OPS",  # a dict of what the trusted side can ask for
    "TO_ARRAYS": "arrays_of",  # the function through which all tensors leave
    "ANSWERS": "ANSWERS",  # the file descriptor of the replies
    "REQUEST": "request",  # a local variable of the function that replies: ({"id": ...}, arrays)
}


class GradedTest(NamedTuple):
    """One of the tests below grader/."""

    node: str  # pytest's id
    points: float
    trains: bool  # left out by --fast


@functools.cache
def graded_tests() -> dict[str, GradedTest]:
    """The graded tests by number, as pytest collects them."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "graded.json"
        here = str(Path(__file__).parent)
        subprocess.run(
            [*PYTEST, "-p", "list_graded", "grader", "--collect-only", "-q"],
            cwd=REPO,
            env=environment(PYTHONPATH=here, GRADED_TESTS=str(listed)),
            check=True,
            capture_output=True,
            timeout=120,
        )
        return {
            number: GradedTest(**test) for number, test in json.loads(listed.read_text()).items()
        }


def command(
    submission: Path, results: Path, numbers: Sequence[str] | None, *options: str
) -> list[str]:
    """A grading of these tests, or of all, as an instructor would call it."""
    nodes = [graded_tests()[number].node for number in numbers] if numbers else ["grader"]
    return [*PYTEST, *nodes, "--submission", str(submission), "--results", str(results), *options]


def grade(folder: Path, numbers: Sequence[str] | None = None) -> dict[str, dict]:
    """The tests of results.json by number, from a fast grading of these tests, or of all."""
    results = folder.with_suffix(".json")
    done = subprocess.run(
        command(folder, results, numbers, "-q", "--fast", "--threads", "1"),
        cwd=REPO,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {test["number"]: test for test in json.loads(results.read_text())["tests"]}


@functools.cache
def isolation_works(kind: Isolation) -> bool:
    return sandbox.works(kind)


def skip_without(kind: Isolation) -> None:
    """Skip the test where this isolation does not work."""
    if not isolation_works(kind):
        pytest.skip(f"{kind.value} does not work here")
