"""Runs a hostile worker process where it can neither see, reach nor outlive anything.

    with start([python, "worker.py"], read_only={...}, isolation=best_isolation()) as worker:
        head, arrays = worker.exchange(message, deadline)
        ...
    print(worker.why_ended(), worker.usage)

Linux has bubblewrap, or what confine/ sets up with the kernel's own means. Elsewhere the worker is
a plain process. Nothing here reads what the worker writes except its messages, which protocol.py
checks, and stderr, which is kept as text. See namespaces(7), proc(5).
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

from autograde.sandbox.conversation import Conversation
from autograde.sandbox.launch import confined, interpreter, plain, python
from autograde.sandbox.limits import Isolation, Limits, SandboxError, Usage
from autograde.sandbox.processes import PROC
from autograde.sandbox.watch import Watch
from autograde.untrusted.protocol import MAX_ARRAYS, Message

__all__ = ["Isolation", "Limits", "SandboxError", "Usage", "Worker", "best_isolation"]
__all__ += ["interpreter", "python", "start", "works"]
LOOK_SECONDS = 0.05 if PROC else 0.2  # between two looks; without /proc each costs more
NO_ISOLATION = (  # for whoever asked for a grading where `best_isolation` is none
    "no isolation works on this machine, so a submission would run with all your rights. Install "
    "bubblewrap 0.8 or newer, or grade on Linux 5.13 or newer. For code that you trust, add "
    "--isolation none; every result will say so."
)


def start(
    argv: list[str],
    *,
    read_only: dict[str, str],
    limits: Limits | None = None,
    isolation: Isolation | None = None,
    env: dict[str, str] | None = None,
) -> "Worker":
    """Start argv, which can read the system's libraries and read_only and write its /tmp alone.

    read_only: host path -> path for the worker. They may differ only under bubblewrap, so use the
    same path for both. When the grader is root, the worker becomes another user
    if all of read_only can be read by others (o+rX); else it stays root, without capabilities.
    env: all it gets, besides PATH, HOME, TMPDIR, USER, LANG and OMP_WAIT_POLICY. isolation: None
    for the best that works here. Raises SandboxError when it cannot be had, ValueError for
    paths that are relative or not normal.
    """
    for path in [*read_only, *read_only.values()]:
        if not os.path.isabs(path) or os.path.normpath(path) != path:
            raise ValueError(f"not an absolute, normal path: {path}")
    return Worker(argv, read_only, limits or Limits(), isolation or best_isolation(), env or {})


@functools.cache
def best_isolation() -> Isolation:
    """The strongest isolation in which a Python really starts here; it may be none."""
    for isolation in (Isolation.BUBBLEWRAP, Isolation.LANDLOCK):
        if works(isolation):
            return isolation
    return Isolation.NONE


def works(isolation: Isolation) -> bool:
    """Whether a Python that does nothing runs to its end in this isolation."""
    if isolation is not Isolation.NONE and not sys.platform.startswith("linux"):
        return False
    try:
        command = [python(), "-I", "-S", "-c", "pass"]
        with start(command, read_only=interpreter(), isolation=isolation) as worker:
            return worker.wait(30.0) == 0
    except (SandboxError, OSError):
        return False


class Worker:
    """A sandboxed process. Use it in a with statement, or call kill() and then close()."""

    def __init__(
        self,
        argv: list[str],
        read_only: dict[str, str],
        limits: Limits,
        isolation: Isolation,
        env: dict[str, str],
    ):
        self.isolation, self.limits = isolation, limits
        self.returncode: int | None = None  # as in subprocess: -9 for a death by signal 9
        self._kill_reason: str | None = None  # the first that was given
        self._reason: str | None = None  # the same, if it was that which ended the worker
        self._stop, self._ready, self._ended = (threading.Event() for _ in range(3))
        self._error: BaseException | None = None
        self._watch: Watch | None = None
        self._conversation: Conversation | None = None
        self._tail = bytearray()
        self._scratch: str | None = None
        # The thread lives as long as the worker: PR_SET_PDEATHSIG is sent when the THREAD that
        # started a child ends, not when the process does (prctl(2)).
        target = functools.partial(self._run, argv, read_only, env)
        threading.Thread(target=target, name="sandbox", daemon=True).start()
        self._ready.wait()
        if self._error:
            self.close()
            raise self._error

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def usage(self) -> Usage:
        """What all processes of the worker have used until now."""
        return self._watch.usage if self._watch else Usage()

    @property
    def granted(self) -> dict[str, Any]:
        """What the kernel granted: files, landlock, pids, process_limit, user, user_namespace."""
        return self._watch.granted if self._watch else {}

    def exchange(self, message: bytes, deadline: float, max_arrays: int = MAX_ARRAYS) -> Message:
        """Send a message and return the reply: see Conversation.exchange. From the first time on,
        the pipes stdin and stdout are the conversation's alone."""
        self._conversation = self._conversation or Conversation(self.stdin, self.stdout)
        return self._conversation.exchange(message, deadline, max_arrays)

    def poll(self) -> int | None:
        """The return code, or None while anything of the worker may still run."""
        return self.returncode if self._ended.is_set() else None

    def wait(self, seconds: float | None = None) -> int | None:
        """As poll, after waiting for the end for at most so many seconds."""
        self._ended.wait(seconds)
        return self.poll()

    def kill(self, reason: str = "killed") -> None:
        """End every process of the sandbox; returns when none is left. No error if none was."""
        self._kill_reason = self._kill_reason or reason
        self._stop.set()
        self._ended.wait()

    def close(self) -> None:
        """Kill, close the pipes and remove the scratch folder."""
        self.kill()
        if self._conversation:
            self._conversation.close()
        elif self._watch:
            for pipe in (self.stdin, self.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._scratch:
            remove(self._scratch)

    def why_ended(self) -> str | None:
        """None while it runs, else: memory, processes, disk, killed (or the reason given to kill),
        "exit 3" or "signal 11"."""
        code = self.poll()
        if code is None:
            return None
        return self._reason or (f"exit {code}" if code >= 0 else f"signal {-code}")

    def stderr_tail(self) -> str:
        """The last limits.stderr_bytes of what was written to stderr, invalid UTF-8 replaced."""
        if self._ended.is_set():
            self._drain.join(1.0)
        return bytes(self._tail).decode("utf-8", "replace")

    # --- the thread that starts, watches and ends the process --------------------------------

    def _run(self, argv: list[str], read_only: dict[str, str], env: dict[str, str]) -> None:
        try:
            self._launch(argv, read_only, env)
        except BaseException as error:  # raised again in the thread that called start
            self._error = error
            self._stop.set()
        self._ready.set()
        try:
            if self._watch:
                self._look_until_the_end(self._watch)
        finally:
            self._ended.set()

    def _launch(self, argv: list[str], read_only: dict[str, str], env: dict[str, str]) -> None:
        scratch = None
        if self.isolation is not Isolation.BUBBLEWRAP:
            self._scratch = scratch = os.path.realpath(tempfile.mkdtemp(prefix="sandbox-"))
        with contextlib.ExitStack() as stack:
            if scratch and self.isolation is Isolation.NONE:
                plan = plain(argv, env, scratch)
            else:
                plan = confined(stack, argv, read_only, env, self.limits, scratch)
            process = plan.start()
            assert process.stdin and process.stdout
            self.stdin, self.stdout = process.stdin, process.stdout
            self._drain = threading.Thread(
                target=self._keep_tail, args=[process.stderr], daemon=True
            )
            self._drain.start()
            self._watch = Watch(process, self.isolation, self.limits, scratch)
            granted = plan.granted(self.limits.start_seconds)
            if granted is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(2.0)
                self._drain.join(1.0)
                raise SandboxError(f"no sandbox: {self.stderr_tail().strip() or 'no message'}")
            self._watch.begin(granted)

    def _keep_tail(self, pipe: IO[bytes]) -> None:
        with pipe:
            while chunk := pipe.read(65536):
                self._tail += chunk
                del self._tail[: -self.limits.stderr_bytes]
                time.sleep(0.005)  # an endless stderr costs the grader little: 13 MB/s at most

    def _look_until_the_end(self, watch: Watch) -> None:
        try:
            while not self._stop.is_set():
                excess = watch.excess()
                if watch.process.poll() is not None:
                    break
                if excess:
                    self._kill_reason = self._kill_reason or excess
                    break
                self._stop.wait(LOOK_SECONDS)
            if watch.process.poll() is None:
                self._reason = self._kill_reason
        except BaseException:  # never leave a worker unwatched
            self._reason = "internal error of the sandbox"
            raise
        finally:
            watch.end()
            code = watch.process.returncode
            # confine and bubblewrap report as a shell does: 128 + signal
            self.returncode = 128 - code if self.granted and 128 < code < 128 + 65 else code


def remove(folder: str) -> None:
    """Delete a scratch folder, however its owner has left it (deep, unreadable)."""
    with contextlib.suppress(OSError):
        os.rmdir(folder)
        return
    if os.name == "posix":  # shutil.rmtree recurses, at the mercy of the depth
        subprocess.run(["chmod", "-R", "u+rwX", folder], capture_output=True)
        subprocess.run(["rm", "-rf", folder], capture_output=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
