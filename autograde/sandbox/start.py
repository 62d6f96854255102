"""Runs a hostile worker process where it can neither see, reach nor outlive anything.

    with start([python, "worker.py"], read_only={...}, limits=Limits(), env={}) as worker:
        worker.stdin.write(...)          # raw pipes; the caller keeps time and calls kill()
        ...
    print(worker.why_ended(), worker.usage)

Linux only: bubblewrap, or what confine.py sets up with the kernel's own means. Elsewhere the
worker is a plain process, with a warning. Standard library only; nothing here reads what the worker
writes except stderr, which is kept as text. docs of the kernel: namespaces(7), proc(5), cgroups(7).
"""

import contextlib
import functools
import itertools
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from autograde.sandbox.watch import is_alive, look, proportional, scratch_use, tasks_of, tree

CONFINE = str(Path(__file__).resolve().with_name("confine.py"))
POLL_SECONDS = 0.05
DISK_POLL_SECONDS = 0.25
TRY_NAMESPACES = True  # tests switch it off, to see what is left where the kernel grants none
# What a Python with PyTorch needs of the system, where it exists.
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/alternatives",  # Debian's libblas.so.3 and the like
    "/etc/localtime",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
)
# linux/capability.h: bits of CAP_CHOWN, KILL, SETGID, SETUID (to become another user) and SYS_ADMIN
CAN_CHANGE_USER = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7
CAN_MOUNT = 1 << 21
FIRST_UID, UIDS = 61184, 4336  # the range that systemd reserves for users made on the fly


class SandboxError(Exception):
    """The sandbox could not be set up; no worker was started."""


class Isolation(str, Enum):
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"  # confine.py: namespaces where granted, Landlock, seccomp
    NONE = "none"


@dataclass(frozen=True)
class Limits:
    """What a worker and all its children may use together, unless "each" is said."""

    memory_bytes: int = 3 << 30  # resident and swapped, shared pages counted once
    processes: int = 256  # threads included: BLAS starts one per core on import
    file_bytes: int = 256 << 20  # each file
    disk_bytes: int = 512 << 20  # of /tmp; /dev/shm has at most 64 MiB more
    files: int = 20_000  # files and folders in /tmp
    stderr_bytes: int = 64 << 10  # the last of it that is kept
    start_seconds: float = 30.0  # to set up the sandbox, not to import anything


@dataclass(frozen=True)
class Usage:
    """Of all processes of the sandbox, to within one look (every 50 ms) of the truth."""

    cpu_seconds: float = 0.0  # user and system, children that have ended included
    peak_memory_bytes: int = 0
    peak_processes: int = 0  # threads included


def start(
    argv: list[str],
    *,
    read_only: dict[str, str],
    limits: Limits | None = None,
    isolation: Isolation | None = None,
    env: dict[str, str] | None = None,
) -> "Worker":
    """Start argv, which can read the system's libraries and read_only and write its /tmp alone.

    read_only: host path -> path for the worker. They may differ only under bubblewrap and with own
    mounts, so use the same path for both. When the grader is root, the worker becomes another user
    if all of read_only can be read by others (o+rX); else it stays root, without capabilities.
    env: all it gets, besides PATH, HOME, TMPDIR, USER, LANG and OMP_WAIT_POLICY. isolation: None
    for the best that works here. Raises SandboxError when it cannot be had, ValueError for
    paths that are relative or not normal.
    """
    return Worker(argv, read_only, limits or Limits(), isolation or best_isolation(), env or {})


@functools.cache
def best_isolation() -> Isolation:
    """The strongest isolation in which a Python really starts here. Warns if that is none."""
    for isolation in (Isolation.BUBBLEWRAP, Isolation.LANDLOCK):
        if works(isolation):
            return isolation
    warnings.warn(
        "The submission is NOT isolated: it runs with all your rights, because neither "
        "bubblewrap nor namespaces nor Landlock work here. Grade only code that you trust.",
        RuntimeWarning,
        stacklevel=2,
    )
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


def python() -> str:
    """This interpreter itself, not a link to it."""
    return os.path.realpath(sys.executable)


def interpreter(*prefixes: str) -> dict[str, str]:
    """The folders of this Python and of its virtual environment, to be passed as read_only."""
    folders = set(prefixes or (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix))
    folders |= {os.path.realpath(folder) for folder in folders}
    return {folder: folder for folder in sorted(folders - {"/", "/usr"})}


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
        for path in [*read_only, *read_only.values()]:
            if not os.path.isabs(path) or os.path.normpath(path) != path:
                raise ValueError(f"not an absolute, normal path: {path}")
        self.isolation = isolation
        self.granted: dict[str, object] = {}  # what confine.py says it got
        self.limits = limits
        self.usage = Usage()
        self.returncode: int | None = None  # as in subprocess: -9 for a death by signal 9
        self._kill_reason: str | None = None  # the first that was given
        self._reason: str | None = None  # the same, if it was that which ended the worker
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._init: tuple[int, int] | None = None  # pid and start time of pid 1 of the sandbox
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
        self.stdin: BinaryIO = self._process.stdin
        self.stdout: BinaryIO = self._process.stdout

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

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
        process = getattr(self, "_process", None)
        if process:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._scratch:
            remove(self._scratch)

    def why_ended(self) -> str | None:
        """None while it runs, else: memory, processes, disk, killed (or the reason given to kill),
        "exit 3" or "signal 11"."""
        if self.poll() is None:
            return None
        if self._reason:
            return self._reason
        return f"exit {self.returncode}" if self.returncode >= 0 else f"signal {-self.returncode}"

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
            if hasattr(self, "_process"):
                self._watch()
        except BaseException:  # never leave a worker unwatched
            self._reason = "internal error of the sandbox"
            self._end()
            self._wait_for_init()
            self.returncode = self._process.returncode
            raise
        finally:
            self._ended.set()

    def _launch(self, argv: list[str], read_only: dict[str, str], env: dict[str, str]) -> None:
        if self.isolation is not Isolation.BUBBLEWRAP:
            self._scratch = os.path.realpath(tempfile.mkdtemp(prefix="sandbox-"))
        base = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "USER": "worker",
            "LANG": "C.UTF-8",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        if self.isolation is Isolation.NONE:
            if os.name == "nt":
                base = {k: os.environ[k] for k in ("SYSTEMROOT", "PATH") if k in os.environ}
            here = {"HOME": self._scratch, "TMPDIR": self._scratch, "TEMP": self._scratch}
            self._popen(argv, base | here | env, (), self._scratch)
            return
        with contextlib.ExitStack() as stack:
            self._confined(stack, argv, read_only, base | env)

    def _confined(self, stack, argv: list[str], read_only: dict, env: dict) -> None:
        """Start confine.py, in bubblewrap or alone, and wait until it hands over to argv."""
        bubblewrap = self.isolation is Isolation.BUBBLEWRAP
        binds, links = system_paths()
        binds += list(read_only.items())
        uid = free_uid(read_only, CAN_CHANGE_USER | (CAN_MOUNT if bubblewrap else 0))
        root = os.geteuid() == 0
        settings = {
            "inside": bubblewrap,
            "namespaces": TRY_NAMESPACES and not bubblewrap,
            "parent": os.getpid(),
            "root": root,
            "uid": uid,
            "reachable": all(map(reachable, [*read_only, self._scratch or "/"])),
            "same_user_tasks": 0 if root else tasks_of(os.getuid()),
            "scratch": self._scratch,
            "memory": self.limits.memory_bytes,
            "processes": self.limits.processes,
            "file": self.limits.file_bytes,
            "disk": self.limits.disk_bytes,
            "files": self.limits.files,
        }
        status, status_end = pipe(stack)
        info = None
        fds = [status_end]
        if bubblewrap:
            program = shutil.which("bwrap")
            if program is None:
                raise SandboxError("bubblewrap (bwrap) is not installed")
            info, info_end = pipe(stack)
            binds += [(CONFINE, "/run/confine.py")]
            binds += [(p, p) for p in interpreter(sys.base_prefix, sys.base_exec_prefix)]
            options = bubblewrap_options(binds, links, uid, self.limits, info_end.fileno())
            # Not as arguments: the worker can read the command line of its pid 1.
            args = file_with(stack, "".join(option + "\0" for option in options))
            fds += [info_end, args]
            command = [program, "--args", str(args.fileno()), "--"]
            confine = "/run/confine.py"
        else:
            if any(a != b for a, b in read_only.items()):
                raise ValueError("without bubblewrap a path must be the same for both sides")
            settings |= {"binds": binds, "links": links}
            command = []
            confine = CONFINE
        fds.append(file_with(stack, json.dumps(settings)))
        command += [python(), "-I", "-S", "-B", confine]
        command += [str(fds[-1].fileno()), str(status_end.fileno()), *argv]
        self._popen(command, env, tuple(file.fileno() for file in fds), "/")
        for file in fds:
            file.close()
        self._handshake(status, info)

    def _popen(self, command: list[str], env: dict[str, str], fds: tuple, folder: str) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=env,
                cwd=folder,
                pass_fds=fds,
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise SandboxError(f"{command[0]}: {error.strerror}") from error
        self._drain = threading.Thread(target=self._keep_tail, name="stderr", daemon=True)
        self._drain.start()

    def _handshake(self, status: BinaryIO, info: BinaryIO | None) -> None:
        """Wait for pid 1 of the sandbox and for the moment in which argv takes over."""
        deadline = time.monotonic() + self.limits.start_seconds
        messages = {}
        if info:
            messages["init"] = next(objects(info, deadline), {}).get("child-pid")
        for message in objects(status, deadline):
            messages |= message
            if "ok" in messages and ("init" in messages or messages["ok"]["pids"] != "own"):
                break
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)
            self._drain.join(1.0)
            raise SandboxError(f"no sandbox: {self.stderr_tail().strip() or 'no message'}")
        self.granted = messages["ok"]
        pid = messages.get("init")
        seen = look(pid) if pid else None
        self._init = (pid, seen.started) if seen else None

    def _keep_tail(self) -> None:
        pipe = self._process.stderr
        while chunk := pipe.read(65536):
            self._tail += chunk
            del self._tail[: -self.limits.stderr_bytes]
            time.sleep(0.005)  # an endless stderr costs the grader little: 13 MB/s at most
        pipe.close()

    def _watch(self) -> None:
        disk_time = 0.0
        while not self._stop.is_set():
            now = time.monotonic()
            pids, excess = self._measure()
            if self._process.poll() is not None:
                break
            if not excess and now >= disk_time:
                disk_time = now + DISK_POLL_SECONDS
                excess = "disk" if self._too_much_on_disk(pids) else None
            # Twice: a sum over processes is wrong for a moment when some of them end meanwhile.
            if excess == "disk" or (excess and (excess := self._measure()[1])):
                self._kill_reason = self._kill_reason or excess
                self._stop.set()
            self._stop.wait(POLL_SECONDS)
        if self._process.poll() is None:
            self._reason = self._kill_reason
            self._measure()
            self._end()
        self._wait_for_init()
        code = self._process.returncode
        # confine.py and bubblewrap answer like a shell: 128 + signal
        self.returncode = 128 - code if self.granted and 128 < code < 128 + 65 else code

    def _measure(self) -> tuple[list[int], str | None]:
        """Update usage. The processes of the sandbox, and which limit they exceed, if any."""
        if self.isolation is Isolation.NONE:
            return [], None
        processes = {pid: seen for pid in tree(self._process.pid) if (seen := look(pid))}
        memory = sum(seen.memory_bytes for seen in processes.values())
        if memory > self.limits.memory_bytes:
            memory = sum(proportional(pid, seen) for pid, seen in processes.items())
        helpers = 2 if self._init else 1  # bwrap or confine.py, and pid 1
        tasks = max(0, sum(seen.threads for seen in processes.values()) - helpers)
        # Children that ended between two looks are in it: somebody waits for each (confine.py).
        seconds = sum(seen.cpu_seconds for seen in processes.values())
        self.usage = Usage(
            max(seconds, self.usage.cpu_seconds),
            max(memory, self.usage.peak_memory_bytes),
            max(tasks, self.usage.peak_processes),
        )
        if memory > self.limits.memory_bytes:
            return list(processes), "memory"
        return list(processes), "processes" if tasks > self.limits.processes else None

    def _too_much_on_disk(self, pids: list[int]) -> bool:
        if self.granted.get("files") == "own root":
            # The size is that of the tmpfs; bubblewrap cannot limit the number of files.
            try:
                disk = os.statvfs(f"/proc/{pids[-1]}/root/tmp")
            except (OSError, IndexError):
                return False
            return disk.f_files - disk.f_ffree > self.limits.files + 1000  # + those of the binds
        if not self.granted:
            return False
        used, files = scratch_use(self._scratch, pids, self.limits.files)
        return used > self.limits.disk_bytes or files > self.limits.files

    def _end(self) -> None:
        """Kill everything and reap the direct child."""
        process = self._process
        if self._init and is_alive(*self._init):
            os.kill(self._init[0], signal.SIGKILL)  # the kernel kills its namespace with it
        elif self.isolation is Isolation.LANDLOCK:
            process.terminate()  # confine.py kills the group, and reaps until nobody is left
        elif self.isolation is Isolation.NONE and os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(process.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def _wait_for_init(self) -> None:
        """Pid 1 ends only when all other processes of its namespace have (pid_namespaces(7))."""
        while self._init and is_alive(*self._init):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init[0], signal.SIGKILL)
            time.sleep(0.002)


# --- what the sandbox is made of -----------------------------------------------------------------


def system_paths() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Binds (host path, path) and links (target, path) of the system for a Python with PyTorch."""
    links = [(os.readlink(path), path) for path in SYSTEM_FOLDERS if os.path.islink(path)]
    folders = [path for path in SYSTEM_FOLDERS if os.path.isdir(path) and not os.path.islink(path)]
    files = [path for path in SYSTEM_FILES if os.path.exists(path)]
    return [(path, path) for path in folders + files], links


def bubblewrap_options(
    binds: list[tuple[str, str]],
    links: list[tuple[str, str]],
    uid: int | None,
    limits: Limits,
    info: int,
) -> list[str]:
    """As bwrap(1) names them. --size needs bubblewrap 0.8 or later."""
    options = ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts"]
    options += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if uid is None:
        options += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    else:  # as root: confine.py becomes that user, then enters a user namespace of its own
        options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    options += ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", "/tmp"]
    options += ["--proc", "/proc", "--dev", "/dev"]
    shm = str(min(limits.disk_bytes, 64 << 20))
    options += ["--perms", "1777", "--size", shm, "--tmpfs", "/dev/shm"]
    for target, path in links:
        options += ["--symlink", target, path]
    parents = {str(parent) for _, path in binds for parent in Path(path).parents}
    inside = tuple(path + "/" for _, path in binds)
    for parent in sorted(parents - {"/", "/tmp", "/proc", "/dev"}):
        if not (parent + "/").startswith(inside):
            options += ["--perms", "0755", "--dir", parent]  # otherwise 0700
    for source, path in sorted(binds, key=lambda bind: bind[1]):
        options += ["--ro-bind", source, path]
    options += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*options, "--chdir", "/tmp", "--info-fd", str(info)]


_uids = itertools.count(os.getpid())


def free_uid(read_only: dict[str, str], needed: int) -> int | None:
    """A user id for the worker, if we are root and may change users; else None."""
    if os.geteuid() != 0 or not all(map(readable_by_others, read_only)):
        return None
    status = Path("/proc/self/status").read_text()
    if int(status.split("CapEff:")[1].split()[0], 16) & needed != needed:
        return None
    uid = FIRST_UID + next(_uids) % UIDS
    for row in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, row.split())
        if first <= uid < first + count:
            return uid
    return None


def readable_by_others(path: str, entries: int = 2000) -> bool:
    """Whether any user can read the file or folder; looks at so many entries below at most."""
    folders = [path]
    if not os.stat(path).st_mode & stat.S_IROTH:
        return False
    while folders and entries > 0:
        folder = folders.pop()
        if not os.path.isdir(folder):
            continue
        if os.stat(folder).st_mode & 0o005 != 0o005:
            return False
        for entry in os.scandir(folder):
            entries -= 1
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif not entry.is_symlink() and not entry.stat().st_mode & stat.S_IROTH:
                return False
    return True


def reachable(path: str) -> bool:
    """Whether any user can come to this path."""
    parents = Path(os.path.realpath(path)).parents
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in parents)


def pipe(stack: contextlib.ExitStack) -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.pipe()
    return stack.enter_context(open(reader, "rb", 0)), stack.enter_context(open(writer, "wb", 0))


def file_with(stack: contextlib.ExitStack, text: str) -> BinaryIO:
    """An unnamed file to be read by a child."""
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    file.write(text.encode())
    file.seek(0)
    return file


def objects(file: BinaryIO, deadline: float) -> Iterator[dict]:
    """The JSON objects that come out of a pipe until it is closed. SandboxError when late."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    text = ""
    while True:
        with contextlib.suppress(ValueError):
            value, end = json.JSONDecoder().raw_decode(text)
            text = text[end:].lstrip()
            yield value
            continue
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxError("the sandbox was not ready in time")
        chunk = file.read(4096)
        if not chunk:
            return
        text += chunk.decode()


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
