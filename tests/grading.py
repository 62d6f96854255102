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
from typing import Any, NamedTuple

import pytest
from conftest import REPO, environment

from autograde.sandbox import start as sandbox
from autograde.sandbox.start import Isolation

MODULES = (
    "classification_models.py",
    "classification_train.py",
    "segmentation_models.py",
    "segmentation_train.py",
)
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]

# What --fast leaves out, and what needs a checkpoint: not passed by modules alone.
NOT_FAST = {"1.11", "1.12", "1.13", "2.13", "2.14", "2.15", "2.16", "3.1"}

# What attacks know of the grader, as marks of their texts: @REPLIES@.
INSIDE = {
    "TRUSTED_FOLDERS": "autograde grader",
    "TRUSTED_SOURCE": "grader/checks/models.py",
    "TRUSTED_MODULE": "grader.checks.models",
    "DATA_SOURCE": "pathlab/data/tissue.py",  # where the stand-in's labels come from
    "DATA_PARTS": "pathlab/data/patterns.py",  # what that imports
    "DATA_MODULE": "pathlab.data.tissue",
    # Beside the submission's copy, which is sys.argv[2] of a worker.
    "TOOLS": "tools",
    "WORKER_FILES": "worker.py protocol.py registry.py operations.py training_operations.py",
    "CHECKPOINTS": "checkpoints",
    # Inside of the worker.
    "PROTOCOL": 'sys.modules["protocol"]',  # reads and writes messages
    "OPERATIONS": 'sys.modules["registry"].OPERATIONS',  # what can be requested, by name
    "TO_ARRAYS": 'sys.modules["operations"].arrays_of',  # all tensors leave through it
    "REPLIES": 'sys.modules["registry"].REPLIES',  # a file descriptor
    "REQUEST": "request",  # a local variable of the function that replies: ({"id": ...}, arrays)
}


class GradedTest(NamedTuple):
    """One of the tests below grader/."""

    node: str  # pytest's id
    points: float


@functools.cache
def graded_tests() -> dict[str, GradedTest]:
    """The graded tests by number, as pytest collects them."""
    with tempfile.TemporaryDirectory() as folder:
        listed, results = Path(folder) / "listed.json", Path(folder) / "results.json"
        subprocess.run(
            [*PYTEST, "-p", "list_graded", "grader", "--collect-only", "--results", str(results)],
            cwd=REPO,
            env=environment(PYTHONPATH=str(Path(__file__).parent), GRADED_TESTS=str(listed)),
            check=True,
            capture_output=True,
            timeout=120,
        )
        nodes = json.loads(listed.read_text())
        tests = json.loads(results.read_text())["tests"]
    return {t["number"]: GradedTest(nodes[t["number"]], t["max_score"]) for t in tests}


def command(
    submission: Path, results: Path, numbers: Sequence[str] | None, *options: str
) -> list[str]:
    """A grading of these tests, or of all, as an instructor would call it."""
    nodes = [graded_tests()[number].node for number in numbers] if numbers else ["grader"]
    return [*PYTEST, *nodes, "--submission", str(submission), "--results", str(results), *options]


def grade(folder: Path, numbers: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
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
