"""Runs a Python script in a process of its own and waits for its end, without importing torch anew.

code = run_script(Script(Path("classification_main.py"), ["--model", "cnn"], log, lock))
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.2  # how often a running script is asked whether it should stop
KILLED = 137  # exit code of a process that SIGKILL has ended, as shells report it


@dataclass(frozen=True)
class Script:
    """What is to run. log: receives what it prints.

    lock: a file that is locked (flock) until the last process of the script has ended, also where
    the process that asked for it has not lived so long.
    """

    path: Path
    arguments: list[str]
    log: Path
    lock: Path
    cwd: Path = field(default_factory=Path.cwd)
    threads: int = 1


def run_script(script: Script, should_stop: Callable[[], bool] = lambda: False) -> int:
    """The script's exit code, 128 + signal where a signal ended it. May be called by many threads.

    should_stop: asked now and then; the script is killed, with all that it has started, when it
    answers true.
    """
    server = prepare(script.threads, "import pathlab" in script.path.read_text(errors="replace"))
    return server.run(script, should_stop) if server else _run_alone(script, should_stop)


def prepare(threads: int, plumbing: bool) -> "_Server | None":
    """Begin to import torch for scripts with so many threads. None where there is no fork.

    plumbing: the scripts are of this repository and will use `pathlab`. A server that has it serves
    all scripts.
    """
    if not hasattr(os, "fork"):
        return None
    with _lock:
        for kind in {plumbing, True}:
            server = _servers.get((threads, kind))
            if server and server.is_alive():
                return server
        server = _servers[threads, plumbing] = _Server(threads, plumbing)
        return server


class _Server:
    """One running pathlab.sweep.server."""

    def __init__(self, threads: int, plumbing: bool):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pathlab.sweep.server", *["plumbing"] * plumbing],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPO,
            env=_environment(threads),
            start_new_session=True,  # Ctrl-C is for the dispatcher alone
        )
        self._lock = threading.Lock()
        self._waiting: dict[int, Future] = {}
        self._count = 0
        threading.Thread(target=self._listen, name="script server", daemon=True).start()
        atexit.register(self.close)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def run(self, script: Script, should_stop: Callable[[], bool]) -> int:
        ended: Future = Future()
        with self._lock:
            self._count += 1
            number = self._count
            self._waiting[number] = ended
        request = {
            "id": number,
            "script": str(script.path),
            "arguments": script.arguments,
            "log": str(script.log),
            "lock": str(script.lock),
            "cwd": str(script.cwd),
        }
        self._send(request, ended)
        while True:
            try:
                return ended.result(POLL_SECONDS)
            except NotYet:
                if should_stop():
                    self._send({"kill": number}, ended)
                    return ended.result()

    def _send(self, message: dict, ended: Future) -> None:
        try:
            with self._lock:
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()
        except OSError:  # the server was killed, and its scripts with it
            _finish(ended, KILLED)

    def _listen(self) -> None:
        for line in self._process.stdout:
            message = json.loads(line)
            if "id" in message:
                with self._lock:
                    ended = self._waiting.pop(message["id"])
                _finish(ended, message["code"])
        self._process.wait()
        with self._lock:
            left, self._waiting = list(self._waiting.values()), {}
        for ended in left:
            _finish(ended, KILLED)

    def close(self) -> None:
        with self._lock:
            self._process.stdin.close()
        self._process.wait()


def _finish(ended: Future, code: int) -> None:
    with contextlib.suppress(InvalidStateError):  # both ends of a broken pipe may notice
        ended.set_result(code)


def _run_alone(script: Script, should_stop: Callable[[], bool]) -> int:
    """Where there is no fork (Windows): a fresh interpreter, which imports torch again."""
    with open(script.log, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(script.path), *script.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=script.cwd,
            env=_environment(script.threads),
        )
        try:
            while process.poll() is None:
                if should_stop():
                    process.kill()
                time.sleep(POLL_SECONDS / 4)
        finally:
            process.kill()
    return process.wait()


def _environment(threads: int) -> dict[str, str]:
    """OMP_NUM_THREADS is what torch takes as its number of threads."""
    paths = [str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
    }


_lock = threading.Lock()
_servers: dict[tuple[int, bool], _Server] = {}  # by threads, and whether with plumbing
