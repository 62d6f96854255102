"""The trusted end of the conversation with a worker, which runs a submission's code."""

import contextlib
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from autograde.feedback import Problem
from autograde.replies import Reply, read_problem
from autograde.sandbox.start import Isolation, Limits, Worker, interpreter, start
from autograde.untrusted import protocol

MAX_REPLY = 32 << 20  # bytes of arrays; the largest right reply has 6 MB
UNTRUSTED = Path(protocol.__file__).resolve().parent
WORKER_FILES = ("worker.py", "registry.py", "protocol.py")

# (split, number of the batch, as the worker asks for them) -> arrays by name
Batches = Callable[[str, object], dict[str, np.ndarray]]


class StudentError(Exception):
    """The submission's code raised something, or returned something that cannot be used."""

    def __init__(self, problem: Problem):
        super().__init__(problem.message)
        self.problem = problem


class WorkerEnded(Exception):
    """The worker died, was killed for a limit, took too long, or sent what is no message; which."""


class Session:
    """One worker with one submission. After a WorkerEnded, the next request starts a new worker.

    submission: a copy by copy_submission; operations: the course's files of operations, which the
    worker imports in this order. seconds: what the submission's code may take in all requests
    together. patience: a factor on the limits of time of every request; tests make it small.
    """

    def __init__(
        self,
        submission: Path,
        operations: Sequence[Path],
        isolation: Isolation,
        limits: Limits,
        threads: int,
        seconds: float = 1800.0,
        patience: float = 1.0,
    ):
        self.submission, self.isolation, self.limits = submission, isolation, limits
        self.threads, self.seconds, self.patience = threads, seconds, patience
        self.seconds_used = 0.0
        self.cpu_limit: float | None = None  # of this worker, see fresh
        self.worker: Worker | None = None
        self.cpu_seconds = 0.0  # of the workers that have ended
        self.peak_bytes = 0
        self.tools = submission.parent / "tools"  # what enters the sandbox beside the submission
        self.tools.mkdir()
        self.operations = [file.stem for file in operations]
        for file in (*(UNTRUSTED / name for name in WORKER_FILES), *operations):
            shutil.copyfile(file, self.tools / file.name)
        for path in (self.tools, *self.tools.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)  # the worker may be another user

    def request(
        self,
        operation: str,
        arguments: Mapping[str, object] | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        *,
        seconds: float = 60.0,
        batches: Batches | None = None,
    ) -> Reply:
        """Let the worker do one of the course's operations; what it claims the outcome is.

        batches: called for every batch that the submission takes; each call is one batch given.
        Raises StudentError and WorkerEnded.
        """
        left = self.seconds - self.seconds_used
        if left <= 0:
            self.end()
            raise WorkerEnded(f"all tests together took longer than {self.seconds:.0f} seconds")
        seconds = min(seconds * self.patience, left)
        worker = self._running()
        request: dict[str, object] = {"op": operation, "args": dict(arguments or {})}
        began = time.monotonic()
        try:
            with self._ending_explained(worker, seconds):
                return self._exchange(worker, request, arrays, began + seconds, batches)
        finally:
            self.seconds_used += time.monotonic() - began

    def _exchange(
        self,
        worker: Worker,
        request: dict[str, object],
        arrays: dict[str, np.ndarray] | None,
        deadline: float,
        batches: Batches | None,
    ) -> Reply:
        """Send a request, hand out the batches that it takes, and receive the reply to it."""
        number = secrets.token_hex(8)
        message = protocol.encode({"id": number, **request}, arrays)
        while True:
            head, out = worker.exchange(message, deadline, MAX_REPLY)
            self._check_cpu(worker)
            if not isinstance(head, dict):
                raise protocol.ProtocolError("the head is not an object")
            if "want" in head and batches is not None:
                message = protocol.encode({}, batches(str(head["want"]), head.get("batch")))
            elif head.get("id") != number:
                raise protocol.ProtocolError("a reply to something else")
            elif "error" in head:
                raise StudentError(read_problem(head["error"]))
            else:
                return Reply(head.get("result"), out)

    @contextlib.contextmanager
    def _ending_explained(self, worker: Worker, seconds: float) -> Iterator[None]:
        """Turn what went wrong inside into a WorkerEnded that says so. Only after a StudentError
        does the worker live on."""
        try:
            yield
        except StudentError:
            raise
        except protocol.Timeout:
            self.end()
            raise WorkerEnded(f"it took longer than {seconds:.3g} seconds") from None
        except protocol.ProtocolError as error:
            self.end()
            raise WorkerEnded(f"it sent a malformed reply: {error}") from None
        except (EOFError, OSError):
            worker.wait(2.0)  # the watcher needs a moment to see why
            reason = worker.why_ended() or "it closed the pipe"
            tail = worker.stderr_tail()
            self.end()
            raise WorkerEnded(f"it ended ({reason}){_last_line(tail)}") from None
        except BaseException:  # of `batches`, or Ctrl-C: the worker still waits for its batch
            self.end()
            raise

    @contextlib.contextmanager
    def fresh(self, cpu_seconds: float) -> Iterator[None]:
        """A worker of its own, which may use so many CPU seconds (of all its processes, measured
        from outside) from its start to its end. A request that finds them used up raises
        WorkerEnded."""
        self.end()
        self.cpu_limit = cpu_seconds * self.patience
        try:
            yield
        finally:
            self.cpu_limit = None
            self.end()

    def _check_cpu(self, worker: Worker) -> None:
        if self.cpu_limit is not None and worker.usage.cpu_seconds > self.cpu_limit:
            self.end()
            raise WorkerEnded(f"it used more than {self.cpu_limit:.3g} CPU seconds")

    def end(self) -> None:
        """Kill the worker with everything that it started, and take its usage down."""
        if self.worker is not None:
            self.worker.close()
            self.cpu_seconds += self.worker.usage.cpu_seconds
            self.peak_bytes = max(self.peak_bytes, self.worker.usage.peak_memory_bytes)
            self.worker = None

    def _running(self) -> Worker:
        if self.worker is None or self.worker.poll() is not None:
            self.end()
            paths = (str(self.tools), str(self.submission))
            worker, threads = str(self.tools / "worker.py"), str(self.threads)
            self.worker = start(
                [sys.executable, "-I", worker, threads, str(self.submission), *self.operations],
                read_only={path: path for path in paths} | interpreter(),
                limits=self.limits,
                isolation=self.isolation,
                env={"OMP_NUM_THREADS": str(self.threads)},
            )
        return self.worker


def _last_line(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return f"; it last printed: {lines[-1][:200]}" if lines else ""
