"""The trusted end of a conversation with one worker."""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from autograde.sandbox.start import Isolation, Limits, Worker, interpreter, start
from autograde.untrusted import protocol

MAX_ANSWER = 32 << 20  # bytes of arrays; the largest right answer has 6 MB

Batches = Callable[[str, int], dict[str, np.ndarray]]  # (split, number) -> images and targets


class StudentError(Exception):
    """The submission's code raised something, or answered something that cannot be used.

    problem: the worker's description: type, refused, message, frames, name (all claims).
    """

    def __init__(self, problem: dict):
        super().__init__(str(problem.get("message", "")))
        self.problem = problem


class WorkerEnded(Exception):
    """The worker died, was killed for a limit, took too long, or spoke nonsense. Says which."""


class Session:
    """One worker with one submission. After a WorkerEnded, the next request starts a new worker.

    seconds: what the submission's code may take in all requests together. patience: a factor on
    the limits of time of every request; tests make it small.
    """

    def __init__(
        self,
        submission: Path,
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

    def ask(
        self,
        op: str,
        args: dict | None = None,
        arrays: dict[str, np.ndarray] | None = None,
        *,
        seconds: float = 60.0,
        batches: Batches | None = None,
    ) -> tuple[object, dict[str, np.ndarray]]:
        """The worker's answer to one request: (result, arrays), both mere claims.

        batches: called for every batch that the submission takes; each call is one batch given.
        Raises StudentError and WorkerEnded.
        """
        seconds *= self.patience
        left = self.seconds - self.seconds_used
        if left <= 0:
            self.end()
            raise WorkerEnded(f"all tests together took longer than {self.seconds:.0f} seconds")
        worker = self._running()
        began = time.monotonic()
        deadline = began + min(seconds, left)
        number = secrets.token_hex(8)
        try:
            request = protocol.encode({"id": number, "op": op, "args": args or {}}, arrays)
            protocol.send(worker.stdin.fileno(), request, deadline)
            while True:
                head, out = protocol.receive(worker.stdout.fileno(), deadline, MAX_ANSWER)
                self._check_cpu()
                if not isinstance(head, dict):
                    raise protocol.ProtocolError("the head is no object")
                if "want" in head and batches is not None:
                    batch = batches(str(head["want"]), head.get("batch"))
                    protocol.send(worker.stdin.fileno(), protocol.encode({}, batch), deadline)
                elif head.get("id") != number:
                    raise protocol.ProtocolError("an answer to something else")
                elif "error" in head:
                    raise StudentError(_checked(head["error"]))
                else:
                    return head.get("result"), out
        except StudentError:
            raise
        except protocol.Timeout:
            self.end()
            raise WorkerEnded(f"it took longer than {min(seconds, left):.3g} seconds") from None
        except protocol.ProtocolError as error:
            self.end()
            raise WorkerEnded(f"it answered nonsense: {error}") from None
        except (EOFError, OSError):
            worker.wait(2.0)  # the watcher needs a moment to see why
            reason = worker.why_ended() or "it closed the pipe"
            tail = worker.stderr_tail()
            self.end()
            raise WorkerEnded(f"it ended ({reason}){_last_line(tail)}") from None
        except BaseException:  # of `batches`, or Ctrl-C: the worker still waits for its batch
            self.end()
            raise
        finally:
            self.seconds_used += time.monotonic() - began

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

    def _check_cpu(self) -> None:
        limit = self.cpu_limit
        if limit is not None and self.worker.usage.cpu_seconds > limit:
            self.end()
            raise WorkerEnded(f"it used more than {limit:.3g} CPU seconds")

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
            tools = self.submission.parent / "tools"
            arguments = map(str, (tools / "worker.py", self.threads, self.submission))
            self.worker = start(
                [sys.executable, "-I", *arguments],
                read_only={path: path for path in (str(tools), str(self.submission))}
                | interpreter(),
                limits=self.limits,
                isolation=self.isolation,
                env={"OMP_NUM_THREADS": str(self.threads)},
            )
            os.set_blocking(self.worker.stdin.fileno(), False)
        return self.worker


def _checked(problem: object) -> dict:
    """A worker's description of an error, reduced to strings and numbers of bounded length."""
    if not isinstance(problem, dict):
        return {"type": "Exception", "message": "", "frames": [], "refused": False, "name": ""}
    frames = problem.get("frames") if isinstance(problem.get("frames"), list) else []
    return {
        "type": str(problem.get("type", ""))[:100],
        "message": str(problem.get("message", ""))[:1000],
        "name": str(problem.get("name", ""))[:100],
        "refused": problem.get("refused") is True,
        "frames": [
            {key: str(frame.get(key, ""))[:200] for key in ("file", "line", "text")}
            for frame in frames[:3]
            if isinstance(frame, dict)
        ],
    }


def _last_line(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return f"; it last printed: {lines[-1][:200]}" if lines else ""
