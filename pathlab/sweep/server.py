"""A process that has imported torch and forks one process for each script that it is asked to run.

python -m pathlab.sweep.server [plumbing]     (started by pathlab.sweep.scripts, nobody else)

With "plumbing" it also imports what the two mains use beside torch.

A fork is as good as a fresh interpreter: nothing is left of an earlier script, and a crash costs
that script alone. It comes without the two seconds that `import torch` takes. Requests come as
lines of JSON on standard input, answers go to standard output: {"id", "code"}, as a shell gives
exit codes (128 + signal). At the end of the input (also when the asking process was killed) all
scripts are killed. Needs os.fork: not on Windows.
"""

import atexit
import contextlib
import ctypes
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import sys
import threading
import traceback
import weakref

import numpy as np

PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    import pathlab.sweep.preloaded

    if "plumbing" in sys.argv:
        pathlab.sweep.preloaded.plumbing()
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False  # torch would take its operators apart at the end of every script
    gc.collect()
    gc.freeze()  # pages that no collection touches stay shared with the forks
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}  # id of the request by pid
    rest = b""
    _answer({"ready": True})
    while True:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            _reap(running)
        if 0 in ready:
            chunk = os.read(0, 65536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in map(json.loads, lines):
                if "kill" in line:
                    _kill([pid for pid, number in running.items() if number == line["kill"]])
                else:
                    running[_fork(line, (reader, writer))] = line["id"]
    _kill(list(running))
    os._exit(0)  # nothing is left to do, and taking torch apart takes time


def _answer(message: dict) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        number = running.pop(pid)
        _kill([pid])  # what it has left behind, such as processes that load data
        _answer({"id": number, "code": 128 - code if code < 0 else code})


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # ended; macOS: a zombie
            os.killpg(pid, signal.SIGKILL)


def _fork(request: dict, inherited: tuple[int, int]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here too: _kill may come before the child has done it
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for kind in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(kind, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for end in inherited:
            os.close(end)
        code = _run(request)
        threading._shutdown()  # as at the end of an interpreter: wait for threads, then atexit
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(request: dict) -> int:
    """Become the script: its files, arguments and environment. Its exit code."""
    os.chdir(request["cwd"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, end in enumerate((nothing, log, log)):
        os.dup2(end, number)
    lock = os.open(request["lock"], os.O_WRONLY | os.O_CREAT, 0o666)
    os.set_inheritable(lock, True)  # for all that the script starts, too
    fcntl.flock(lock, fcntl.LOCK_EX)  # waits for one that a killed dispatcher has left behind
    # As in a fresh interpreter. (`random` does so itself; torch always begins with the same seed.)
    np.random.seed()  # noqa: NPY002
    sys.argv = [request["script"], *request["arguments"]]
    sys.path[0] = os.path.dirname(request["script"])
    try:
        runpy.run_path(request["script"], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # as the interpreter does, without the lines of this file
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename != request["script"]:
            frames = frames.tb_next
        traceback.print_exception(error.with_traceback(frames or error.__traceback__))
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


if __name__ == "__main__":
    main()
