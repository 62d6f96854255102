"""Gives up every right that a worker does not need, then becomes the worker.

Run by launch.py with the arguments SETTINGS STATUS command...: SETTINGS is a file with the settings
as JSON, STATUS a pipe that is told, in one line of JSON, what was granted, just before the command
starts; nothing if something needed was refused.

Under bubblewrap only `confine` is left to do. Otherwise it is, where the kernel grants namespaces,
    supervisor -> init (pid 1 of its own world) -> worker, in a root of read-only binds,
and where it does not,
    supervisor -> worker, in a process group that seccomp lets no process leave.
"""

import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from types import SimpleNamespace as Settings  # launch.py says what it has

from .kernel import DEVICES, PR_SET_DUMPABLE, check, libc, prctl
from .landlock import landlock_abi, restrict_files
from .namespaces import enter_namespaces, enter_new_root, own_user_namespace
from .seccomp import install_filter, seccomp_filter

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
LINUX_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> int:
    """Confine the command in the arguments; its exit code, 128 + a signal, or 126."""
    source, status, *command = arguments
    with open(int(source)) as file:
        settings = Settings(**json.load(file))
    os.set_inheritable(int(status), False)
    if settings.inside:
        confine(settings, int(status), True, command)
    return supervise(settings, int(status), command)


def supervise(settings: Settings, status: int, command: list[str]) -> int:
    """Run the command, isolated as well as the kernel grants; its exit code, 128 + a signal."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != settings.parent:
        return 126
    if not settings.namespaces or not succeeds(lambda: try_namespaces(settings)):
        return supervise_group(settings, status, command)
    enter_namespaces()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # new credentials may have cleared it
    init = in_child(lambda: run_init(settings, status, command))
    os.close(status)
    return exit_code(os.waitpid(init, 0)[1])


def try_namespaces(settings: Settings) -> None:
    """Raise or exit with an error unless `run_init` would get its namespaces and mounts."""
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
    enter_namespaces()
    if not succeeds(lambda: enter_new_root(settings)):
        sys.exit(1)


def run_init(settings: Settings, status: int, command: list[str]) -> None:
    """Pid 1: when it ends, the kernel kills every process of its namespace."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    enter_new_root(settings)
    worker = in_child(lambda: confine(settings, status, True, command))
    os.close(status)
    while True:
        pid, ending = os.wait()
        if pid == worker:
            os._exit(exit_code(ending))


def supervise_group(settings: Settings, status: int, command: list[str]) -> int:
    """Without a pid namespace: all processes of the sandbox stay in one group, so one kill ends
    them all, for kill(2) of a group is atomic with regard to fork."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    group = 0

    def end_all(*_: object) -> None:
        for kill in (os.killpg, os.kill):  # the second: before the worker has made the group
            try:
                if group:
                    kill(group, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def run_worker() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        confine(settings, status, False, command)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, end_all)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    group = in_child(run_worker)
    os.close(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    code = 0
    try:
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT):
            if ended.si_pid == group:
                end_all()  # while the leader is not yet reaped: its number is no other group's
                code = exit_code(os.waitpid(group, 0)[1])
                group = 0
            else:
                os.waitpid(ended.si_pid, 0)
    except ChildProcessError:  # nobody is left
        pass
    if os.getppid() != settings.parent:  # nobody else is left to clear up
        os.execv("/bin/rm", ["rm", "-rf", settings.scratch])
    return code


def confine(settings: Settings, status: int, own_world: bool, command: list[str]) -> None:
    """Give up all rights and become the command. Exits with 126 when a needed step is refused.

    own_world: processes and files are the sandbox's own, not the host's.
    """
    home = "/tmp" if own_world else settings.scratch
    if not own_world and not settings.reachable:
        settings.uid = None  # another user could not even open the interpreter
    if not own_world and settings.uid is not None:
        os.chown(home, settings.uid, settings.uid)
    bound_capabilities()  # while we may
    dropped = drop_user(settings.uid)
    alone = own_user_namespace()
    # Linux 5.14 and later count the processes of each user namespace apart.
    release = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
    others = 0 if dropped or (alone and release >= (5, 14)) else settings.same_user_tasks
    set_limits(settings, settings.processes + others)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities()
    os.chdir(home)
    abi = guard_files(settings, own_world, dropped)
    if not own_world:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    program = seccomp_filter(os.uname().machine, None if own_world else os.getpid(), not own_world)
    environment = {"HOME": home, "TMPDIR": home} | dict(os.environ)
    environment.pop("PWD", None)  # bubblewrap's
    notes = {
        "pids": "own" if own_world else "shared, signals filtered",
        "files": "own root" if own_world else "host's, by Landlock",
        "landlock": abi,
        "user": "unprivileged" if dropped else "same as grader",
        "user_namespace": alone,
        "process_limit": "kernel" if dropped or not settings.root else "watched",
    }
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whatever the grader was started with
    install_filter(program)
    os.write(status, json.dumps(notes).encode() + b"\n")
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


def guard_files(settings: Settings, own_world: bool, dropped: bool) -> int:
    """Restrict the files with Landlock, whose version is returned. Exits where it is too old to be
    the only guard. Raises OSError."""
    abi = landlock_abi()
    # Before version 3, Landlock does not stop truncation: fatal for files of the same user.
    if not own_world and abi < (1 if dropped else 3):
        sys.exit("confine: neither namespaces nor a sufficient Landlock: no isolation")
    if abi and own_world:
        restrict_files(abi, ["/"], ["/tmp", "/dev/shm", *DEVICES])
    elif abi:
        # Of /proc its own folder (glibc reads maps) and what describes the machine.
        proc = [f"/proc/{os.getpid()}", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"]
        readable = [path for path, _ in settings.binds] + [*DEVICES, *proc]
        restrict_files(abi, readable, [settings.scratch, "/dev/null"])
    return abi


def drop_user(uid: int | None) -> bool:
    """Become this user and group, if that is possible. OSError never: False."""
    if uid is None:
        return False
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError:
        return False
    prctl(PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root until the next exec
    return True


def bound_capabilities() -> None:
    """Let no program that is executed from now on have more capabilities than its caller."""
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without CAP_SETPCAP


def drop_capabilities() -> None:
    """Give up all capabilities. Raises OSError."""
    bound_capabilities()  # again: a new user namespace comes with the full set
    header, none = struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, 0), bytes(24)
    check(libc.capset(header, none), "capset")


def set_limits(settings: Settings, processes: int) -> None:
    """The kernel's limits (getrlimit(2)), as far as the hard limits allow."""
    for name, value in {
        "CORE": 0,
        "MSGQUEUE": 0,
        "FSIZE": settings.file_bytes,
        "NOFILE": 256,
        # Backstops only, far above what PyTorch maps: watch.py measures what is really used.
        "DATA": settings.memory_bytes + (2 << 30),
        "AS": 4 * settings.memory_bytes + (16 << 30),
        "NPROC": processes,
    }.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def exit_code(status: int) -> int:
    """As a shell has it: 128 + signal for a process that a signal has ended."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def in_child(work: Callable[[], None]) -> int:
    """Fork; the child does the work and exits, whatever happens. The parent gets its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 126
    try:
        work()
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
        code = end.code if isinstance(end.code, int) else 126
    except OSError as error:
        sys.stderr.write(f"confine: {error}\n")
    finally:
        os._exit(code)


def succeeds(work: Callable[[], None]) -> bool:
    """Whether the work, done in a child, ends without an error."""
    return os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1]) == 0
