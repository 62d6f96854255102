"""Runs a Python script in a process of its own and waits for it, without importing torch anew.

code = run_script(Script(Path("classification_main.py"), ["--model", "cnn"], log, lock))

The processes come from the standard library's fork server, which has imported torch before. A fork
is as good as a fresh interpreter: nothing is left of an earlier script, a crash costs that script
alone, and it comes without the two seconds that `import torch` takes. Where there is no fork
(Windows) each script starts an interpreter.
"""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
HAS_FORK = "forkserver" in multiprocessing.get_all_start_methods()
POLL_SECONDS = 0.2  # how often a running script is asked whether it should stop
KILLED = 137  # exit code of a process that SIGKILL has ended, as shells report it
PR_SET_PDEATHSIG = 1  # prctl(2)
server_pid = 0  # of the fork server, which preloaded.py fills in

_context: Any = multiprocessing.get_context("forkserver" if HAS_FORK else "spawn")
_prepared = threading.Event()
_lock = threading.Lock()  # multiprocessing reads an exit code wrongly where two threads look


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


def prepare(threads: int, scripts: Iterable[Path]) -> None:
    """Start the fork server: it imports what `scripts` need while this process goes on.

    threads: of torch, for all scripts that do not say otherwise. Changes this process's
    environment, which the server inherits. Does nothing when it is called again.
    """
    if _prepared.is_set():
        return
    _prepared.set()
    paths = [str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "agg"}
    if HAS_FORK:
        from multiprocessing import forkserver

        modules = ["pathlab"]  # before torch and its like: it says how their threads wait
        if any("import pathlab" in path.read_text(errors="replace") for path in scripts):
            modules.append("sklearn.metrics")  # which the two mains use
        _context.set_forkserver_preload([*modules, "pathlab.sweep.preloaded"])
        forkserver.ensure_running()


def run_script(script: Script, should_stop: Callable[[], bool] = lambda: False) -> int:
    """The script's exit code, 128 + signal where a signal ended it. May be called by many threads.

    should_stop: asked now and then; the script is killed, with all that it has started, when it
    returns True.
    """
    process = _context.Process(target=_become, args=(script,))
    try:
        with _lock, _without_main_module():
            prepare(script.threads, [script.path])
            process.start()
    except (OSError, EOFError):  # the server was killed at this moment; the next call starts one
        return KILLED
    while not connection.wait([process.sentinel], POLL_SECONDS):
        if should_stop():
            _kill(process)
    with _lock:
        code = process.exitcode or 0
    _kill(process)  # what it has left behind, such as processes that load data
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keeps multiprocessing from importing this process's main module in every new process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _kill(process: BaseProcess) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # ended; macOS: a zombie
        if HAS_FORK and process.pid:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


# ---- in the new process ----


def _become(script: Script) -> None:
    """Be the script: its files, arguments and environment. Ends with its exit code."""
    if HAS_FORK:
        _end_with_server()
    threading.Thread(target=_end_with_caller, daemon=True).start()
    os.chdir(script.cwd)
    _redirect(script.log)
    if HAS_FORK:
        _hold(script.lock)
    os.environ["OMP_NUM_THREADS"] = str(script.threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(script.threads)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # as fresh; `random` and torch see to that themselves
    sys.argv = [str(script.path), *script.arguments]
    sys.path.insert(0, str(script.path.parent))
    try:
        runpy.run_path(str(script.path), run_name="__main__")
    except Exception as error:  # shown as the interpreter does, without the lines of this file
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename != str(script.path):
            frames = frames.tb_next
        traceback.print_exception(error.with_traceback(frames or error.__traceback__))
        sys.exit(1)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as at the end of an interpreter
        atexit._run_exitfuncs()


def _end_with_server() -> None:
    """Leave the server's process group, but end when it ends."""
    os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:
        os._exit(KILLED)


def _end_with_caller() -> None:
    """Wait for the process that asked for the script to end, then kill all of the script."""
    if parent := multiprocessing.parent_process():
        parent.join()
    if HAS_FORK:
        os.killpg(0, signal.SIGKILL)
    os._exit(KILLED)


def _redirect(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number, end in enumerate((os.open(os.devnull, os.O_RDONLY), output, output)):
        os.dup2(end, number)


def _hold(lock: Path) -> None:
    """Lock a file, for this process and all that the script starts."""
    import fcntl

    file = os.open(lock, os.O_WRONLY | os.O_CREAT, 0o666)
    os.set_inheritable(file, True)
    fcntl.flock(file, fcntl.LOCK_EX)  # waits for one that a killed dispatcher has left behind
