"""What is started, and with what in reach: the command lines of the isolations."""

import contextlib
import functools
import json
import os
import secrets
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autograde.sandbox.limits import Limits, SandboxError
from autograde.sandbox.processes import tasks_of

CONFINE = str(Path(__file__).resolve().with_name("confine"))
ENTER = "import sys; sys.path.append(sys.argv[1]); import confine.enter; "
ENTER += "sys.exit(confine.enter.main(sys.argv[2:]))"
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
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "USER": "worker",
    "LANG": "C.UTF-8",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def python() -> str:
    """This interpreter itself, not a link to it."""
    return os.path.realpath(sys.executable)


def interpreter(*prefixes: str) -> dict[str, str]:
    """The folders of this Python and of its virtual environment, to be passed as read_only."""
    folders = set(prefixes or (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix))
    folders |= {os.path.realpath(folder) for folder in folders}
    return {folder: folder for folder in sorted(folders - {"/", "/usr"})}


@dataclass
class Plan:
    """A command that is ready to be started."""

    command: list[str]
    env: dict[str, str]
    folder: str
    files: list[IO[bytes]]  # that the command inherits, by their numbers
    status: IO[bytes] | None = None  # confine/enter.py says here what was granted

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it, with three pipes. Raises SandboxError."""
        try:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=self.env,
                cwd=self.folder,
                pass_fds=tuple(file.fileno() for file in self.files),
                # Ctrl-C is for the grader alone.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise SandboxError(f"{self.command[0]}: {error.strerror}") from error
        finally:
            for file in self.files:
                file.close()

    def granted(self, seconds: float) -> dict[str, Any] | None:
        """What was granted, once the worker takes over; None if it does not come to that. Raises
        SandboxError when it is not ready after so many seconds."""
        if self.status is None:
            return {}
        poll = select.poll()
        poll.register(self.status, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise SandboxError("the sandbox was not ready in time")
        line = self.status.readline()
        return json.loads(line) if line else None


def plain(argv: list[str], env: dict[str, str], scratch: str) -> Plan:
    """Without isolation."""
    home = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"), scratch)
    base = ENVIRONMENT
    if os.name == "nt":
        names = ("SYSTEMROOT", "SYSTEMDRIVE", "PATH", "PATHEXT", "NUMBER_OF_PROCESSORS")
        base = {name: os.environ[name] for name in names if name in os.environ}
    return Plan(argv, base | home | env, scratch, [])


def confined(
    stack: contextlib.ExitStack,
    argv: list[str],
    read_only: dict[str, str],
    env: dict[str, str],
    limits: Limits,
    scratch: str | None,
) -> Plan:
    """confine/enter.py, in bubblewrap or, with a scratch folder, alone. The stack closes what is
    open. Raises SandboxError, and ValueError for paths that must not differ."""
    binds, links = system_paths()
    binds += list(read_only.items())
    uid = free_uid(read_only, CAN_CHANGE_USER if scratch else CAN_CHANGE_USER | CAN_MOUNT)
    root = os.geteuid() == 0
    settings = {
        "inside": not scratch,  # bubblewrap has made the namespaces and the root
        "namespaces": TRY_NAMESPACES,  # are to be tried, without bubblewrap
        "parent": os.getpid(),  # of bubblewrap or of confine
        "root": root,  # runs the grader
        "uid": uid,  # of the user to become
        "reachable": all(map(reachable, [*read_only, scratch or "/"])),  # for any user
        "same_user_tasks": 0 if root else tasks_of(os.getuid()),
        "scratch": scratch,
        "binds": binds,
        "links": links,
        **vars(limits),
    }
    reader, writer = os.pipe()
    status = stack.enter_context(os.fdopen(reader, "rb"))
    files = [stack.enter_context(os.fdopen(writer, "wb")), file_with(stack, json.dumps(settings))]
    folder = os.path.dirname(CONFINE) if scratch else "/run"
    command = [python(), "-I", "-S", "-B", "-c", ENTER, folder]
    command += [str(files[1].fileno()), str(files[0].fileno()), *argv]
    if scratch and any(a != b for a, b in read_only.items()):
        raise ValueError("without bubblewrap a path must be the same for both sides")
    if not scratch:
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError("bubblewrap (bwrap) is not installed")
        binds += [(CONFINE, "/run/confine")]
        binds += [(p, p) for p in interpreter(sys.base_prefix, sys.base_exec_prefix)]
        options = bubblewrap_options(binds, links, uid, limits)
        # Not as arguments: the worker can read the command line of its pid 1.
        files.append(file_with(stack, "".join(option + "\0" for option in options)))
        command = [program, "--args", str(files[-1].fileno()), "--", *command]
    return Plan(command, ENVIRONMENT | env, "/", files, status)


def system_paths() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Binds (host path, path) and links (target, path) of the system for a Python with PyTorch."""
    links = [(os.readlink(path), path) for path in SYSTEM_FOLDERS if os.path.islink(path)]
    folders = [path for path in SYSTEM_FOLDERS if os.path.isdir(path) and not os.path.islink(path)]
    files = [path for path in SYSTEM_FILES if os.path.exists(path)]
    return [(path, path) for path in folders + files], links


def bubblewrap_options(
    binds: list[tuple[str, str]], links: list[tuple[str, str]], uid: int | None, limits: Limits
) -> list[str]:
    """As bwrap(1) names them. --size needs bubblewrap 0.8 or later."""
    options = ["--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts"]
    options += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if uid is None:
        options += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    else:  # as root: confine becomes that user, then enters a user namespace of its own
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
    return [*options, "--chdir", "/tmp"]


def free_uid(read_only: dict[str, str], needed: int) -> int | None:
    """A user id for the worker, if we are root and may change users; else None."""
    if os.geteuid() != 0 or not all(map(readable_by_others, read_only)):
        return None
    status = Path("/proc/self/status").read_text()
    if int(status.split("CapEff:")[1].split()[0], 16) & needed != needed:
        return None
    # By chance, and nobody's: gradings side by side know nothing of each other.
    while tasks_of(uid := FIRST_UID + secrets.randbelow(UIDS)):
        pass
    for row in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, row.split())
        if first <= uid < first + count:
            return uid
    return None


@functools.cache  # thousands of files for an interpreter
def readable_by_others(path: str, entries: int = 2000) -> bool:
    """Whether any user can read the file or folder; looks at about so many entries below."""
    paths = [path]
    for folder, _, files in os.walk(path):
        paths += [folder, *(os.path.join(folder, name) for name in files)]
        if len(paths) > entries:
            break
    modes = [os.lstat(path).st_mode for path in paths[1:]] + [os.stat(path).st_mode]
    return all(
        mode & 0o005 == 0o005 if stat.S_ISDIR(mode) else stat.S_ISLNK(mode) or mode & stat.S_IROTH
        for mode in modes
    )


def reachable(path: str) -> bool:
    """Whether any user can come to this path."""
    parents = Path(os.path.realpath(path)).parents
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in parents)


def file_with(stack: contextlib.ExitStack, text: str) -> IO[bytes]:
    """An unnamed file to be read by a child."""
    file = stack.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
    file.write(text.encode())
    file.seek(0)
    return file
