"""Gives up every right that a worker does not need, then becomes the worker. Linux only.

Run by start.py as ``python -I -S confine.py SETTINGS STATUS command...``: SETTINGS is a
pipe with the settings as JSON, STATUS a pipe that is told what was granted: one JSON object a line,
the last one with the key "ok" just before the command starts; none if something needed was refused.
Standard library only, nothing to install.

Under bubblewrap only `confine` is left to do. Otherwise it is, where the kernel grants namespaces,
    supervisor -> init (pid 1 of its own world) -> worker, in a root of read-only binds,
and where it does not,
    supervisor -> worker, in a process group that seccomp lets no process leave.

Constants carry the names of the headers linux/{audit,capability,filter,landlock,mount,prctl,sched,
seccomp}.h and sys/mount.h; system call numbers are those of asm/unistd_64.h (x86_64) and
asm-generic/unistd.h (aarch64).
"""

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from errno import ENOSYS, EOPNOTSUPP, EPERM

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SECCOMP_MODE_FILTER, LINUX_CAPABILITY_VERSION_3 = 2, 0x20080522
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
CLONE_NEWUSER = 0x10000000
# CLONE_NEW: NS, CGROUP, UTS, IPC, PID, NET
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
NOBODY = 65534
SHM_BYTES = 64 << 20  # /dev/shm, where it exists at all

# Each line: name, number on x86_64, number on aarch64 (-: not there).
DENIED = """
socket 41 198, socketpair 53 199, ptrace 101 117, process_vm_readv 310 270,
process_vm_writev 311 271, process_madvise 440 440, process_mrelease 448 448, kcmp 312 272,
pidfd_getfd 438 438, pidfd_send_signal 424 424, move_pages 279 239, migrate_pages 256 238,
unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51,
open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431, fsmount 432 432,
fspick 433 433, mount_setattr 442 442, swapon 167 224, swapoff 168 225, quotactl 179 60,
quotactl_fd 443 443, acct 163 89, name_to_handle_at 303 264, open_by_handle_at 304 265,
fanotify_init 300 262, lookup_dcookie 212 18, bpf 321 280, perf_event_open 298 241,
userfaultfd 323 282, keyctl 250 219, add_key 248 217, request_key 249 218,
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427, kexec_load 246 104,
kexec_file_load 320 294, init_module 175 105, finit_module 313 273, delete_module 176 106,
reboot 169 142, syslog 103 116, vhangup 153 58, settimeofday 164 170, clock_settime 227 112,
clock_adjtime 305 266, adjtimex 159 171, sethostname 170 161, setdomainname 171 162, iopl 172 -,
ioperm 173 -, modify_ldt 154 -, remap_file_pages 216 234, mknod 133 -, mknodat 259 33,
setpriority 141 140, ioprio_set 251 30, sched_setscheduler 144 119, sched_setparam 142 118,
sched_setattr 314 274, memfd_create 319 279, memfd_secret 447 447, shmget 29 194, semget 64 190,
msgget 68 186, mq_open 240 180,
preadv2 327 286, fadvise64 221 223
"""
# The last two rows: memory that belongs to no process, so that nobody would count it; what tells
# which pages of a file are in memory, and drops them, so that a training could leave notes there.

# Where the grader's pid can be named: stay in the process group and signal nobody outside.
DENIED_AMONG_HOST_PIDS = """
setsid 112 157, setpgid 109 154, tkill 200 130, rt_sigqueueinfo 129 138,
rt_tgsigqueueinfo 297 240, sched_setaffinity 203 122
"""
# Landlock does not govern the attributes of files.
DENIED_AMONG_HOST_FILES = """
chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55,
lchown 94 -, fchownat 260 54, setxattr 188 5, lsetxattr 189 6, fsetxattr 190 7,
removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16, utime 132 -, utimes 235 -,
utimensat 280 88, futimesat 261 -
"""
FIRST_UNKNOWN = 463  # setxattrat, Linux 6.13: for a worker this and every newer call is missing
COLUMN = {"x86_64": 1, "aarch64": 2}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

ACCESS_EXECUTE, ACCESS_WRITE, ACCESS_READ, ACCESS_READ_DIR = 1, 2, 4, 8  # LANDLOCK_ACCESS_FS_...
ACCESS_TRUNCATE, ACCESS_IOCTL_DEV = 1 << 14, 1 << 15
ACCESS_OF_FILES = ACCESS_EXECUTE | ACCESS_WRITE | ACCESS_READ | ACCESS_TRUNCATE | ACCESS_IOCTL_DEV


def check(result: int, what: str) -> int:
    """The result of a C function, or OSError with its errno where that is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def prctl(option: int, value: int) -> None:
    check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


# --- seccomp -------------------------------------------------------------------------------------


def numbers(table: str, machine: str) -> list[int]:
    rows = [row.split() for row in table.replace("\n", " ").split(",")]
    return [int(row[COLUMN[machine]]) for row in rows if row[COLUMN[machine]] != "-"]


def seccomp_filter(machine: str, pid: int | None, host_files: bool) -> bytes:
    """The BPF program (seccomp(2), linux/filter.h): everything is allowed but what is listed.

    pid: that of the worker, when it shares the host's process ids, else None. host_files: whether
    only Landlock keeps files from it.
    """

    def op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, k & 0xFFFFFFFF)  # struct sock_filter

    def load(offset: int) -> bytes:  # of struct seccomp_data: nr 0, arch 4, args from 16
        return op(0x20, offset)  # BPF_LD | BPF_W | BPF_ABS

    def answer(number: int) -> bytes:  # BPF_RET | BPF_K
        return op(0x06, 0x00050000 | number)  # SECCOMP_RET_ERRNO

    def when(call: int, body: list[bytes]) -> list[bytes]:  # BPF_JMP | BPF_JEQ | BPF_K
        return [op(0x15, call, 0, len(body)), *body]

    def only(calls: tuple[int, int], arg: int, allowed: list[int]) -> list[bytes]:
        """Deny a call unless the low word of an argument (a pid_t) has one of these values."""
        tests = [op(0x15, value, len(allowed) - i) for i, value in enumerate(allowed)]
        return when(pick(calls), [load(16 + 8 * arg), *tests, answer(EPERM), load(0)])

    def never(calls: tuple[int, int], arg: int, values: list[int]) -> list[bytes]:
        tests = [op(0x15, value, len(values) - i - 1) for i, value in enumerate(values)]
        tests[-1] = op(0x15, values[-1], 0, 1)
        return when(pick(calls), [load(16 + 8 * arg), *tests, answer(EPERM), load(0)])

    def pick(calls: tuple[int, int]) -> int:
        return calls[COLUMN[machine] - 1]

    kill_process = op(0x06, 0x80000000)  # SECCOMP_RET_KILL_PROCESS
    program = [load(4), op(0x15, AUDIT_ARCH[machine], 1, 0), kill_process, load(0)]
    program += [op(0x35, 0x40000000, 0, 1), kill_process]  # BPF_JGE: the x32 calls of x86_64
    program += [op(0x35, FIRST_UNKNOWN, 0, 1), answer(ENOSYS)]
    program += when(435, [answer(ENOSYS)])  # clone3 hides its flags in memory; libc tries clone
    program += when(437, [answer(ENOSYS)])  # openat2
    flags = NAMESPACES | CLONE_NEWUSER
    program += when(  # clone; BPF_JSET
        pick((56, 220)), [load(16), op(0x45, flags, 0, 1), answer(EPERM), load(0)]
    )
    if host_files:  # what is written is added up: no file without a name (open with __O_TMPFILE),
        program += never((157, 167), 0, [PR_SET_DUMPABLE])  # nobody who hides what is open (prctl)
        for call, arg in ((2, 1), (257, 2)) if machine == "x86_64" else ((56, 2),):
            body = [load(16 + 8 * arg), op(0x45, 0x400000, 0, 1), answer(EOPNOTSUPP), load(0)]
            program += when(call, body)
    program += never((16, 29), 1, [0x5412, 0x541C, 0x8901, 0x8902])  # ioctl: TIOCSTI, TIOCLINUX,
    program += only((302, 261), 0, [0])  # FIOSETOWN, SIOCSPGRP; prlimit64: itself only
    # rt_sigaction that would change what SIGCHLD does seems to work and changes nothing: children
    # of a parent that ignores it vanish with the time that they took. A null pointer only asks.
    program += when(
        pick((13, 134)),
        [
            load(16),
            op(0x15, signal.SIGCHLD, 0, 5),
            load(24),
            op(0x15, 0, 0, 2),
            load(28),
            op(0x15, 0, 1, 0),
            answer(0),
            load(0),
        ],
    )
    tables = DENIED
    if pid is not None:
        tables += "," + DENIED_AMONG_HOST_PIDS
        program += only((62, 129), 0, [0, pid, -pid])  # kill: itself and its process group
        program += only((234, 131), 0, [pid])  # tgkill
        program += never((72, 25), 1, [8, 15])  # fcntl: F_SETOWN, F_SETOWN_EX send signals
    if host_files:
        tables += "," + DENIED_AMONG_HOST_FILES
    for call in numbers(tables, machine):
        program += when(call, [answer(EPERM)])
    return b"".join([*program, op(0x06, 0x7FFF0000)])  # SECCOMP_RET_ALLOW


def install_filter(program: bytes) -> None:
    """Filter this process and all its children from now on; needs no_new_privs. OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0), "seccomp")


# --- Landlock ------------------------------------------------------------------------------------


def landlock_abi() -> int:
    """0 where the kernel has no Landlock; else its version (landlock_create_ruleset(2))."""
    return max(0, libc.syscall(444, None, 0, 1))  # LANDLOCK_CREATE_RULESET_VERSION


def landlock(abi: int, readable: list[str], writable: list[str]) -> None:
    """Deny all files but these, connections, and signals to the outside, as far as abi allows.

    Needs no_new_privs. Paths that do not exist are left out. OSError if the kernel refuses.
    """
    # The rights of each version: 13 in the first, then REFER, TRUNCATE, IOCTL_DEV.
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    size = 8 if abi < 4 else 16 if abi < 6 else 24  # struct landlock_ruleset_attr
    attr = struct.pack("QQQ", everything, 3, 3)  # TCP bind and connect; abstract sockets, signals
    rules = check(libc.syscall(444, attr, size, 0), "landlock_create_ruleset")
    reading = ACCESS_EXECUTE | ACCESS_READ | ACCESS_READ_DIR
    for path, access in [(p, reading) for p in readable] + [(p, everything) for p in writable]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            access &= ACCESS_OF_FILES & everything
        beneath = struct.pack("=Qi", access, fd)  # struct landlock_path_beneath_attr, packed
        check(libc.syscall(445, rules, 1, beneath, 0), f"landlock_add_rule {path}")
        os.close(fd)
    check(libc.syscall(446, rules, 0), "landlock_restrict_self")
    os.close(rules)


# --- users, namespaces, mounts -------------------------------------------------------------------


def write_map(inside: int, uid: int, gid: int) -> None:
    """Name the one user of a new user namespace (user_namespaces(7))."""
    for name, text in [("setgroups", "deny"), ("uid_map", f"{inside} {uid} 1"),
                       ("gid_map", f"{inside} {gid} 1")]:  # fmt: skip
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def enter_namespaces() -> None:
    """New namespaces of every kind; the next child is pid 1 in them. OSError if refused."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(NAMESPACES) == -1:  # only root with CAP_SYS_ADMIN can do without a new user
        check(libc.unshare(NAMESPACES | CLONE_NEWUSER), "unshare")
        write_map(0, uid, gid)


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    args = [text.encode() for text in (source, target, kind)]
    check(libc.mount(*args, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def set_read_only(path: str, flags: int, attributes: int = 0) -> None:
    attr = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | attributes, 0, 0, 0)  # struct mount_attr
    done = libc.syscall(442, AT_FDCWD, path.encode(), flags, attr, len(attr))
    check(done, f"mount_setattr {path}")


def enter_new_root(settings: dict) -> None:
    """A root of nothing but the binds, private /tmp, /dev and /proc. Runs as pid 1. OSError."""
    base = settings["scratch"]
    os.umask(0o022)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("root", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for name in ("tmp", "dev", "dev/shm", "proc"):
        os.mkdir(f"{base}/{name}")
    for name, size in (("tmp", settings["disk"]), ("dev/shm", min(settings["disk"], SHM_BYTES))):
        options = f"size={size},nr_inodes={settings['files']},mode=1777"
        mount("scratch", f"{base}/{name}", "tmpfs", MS_NOSUID | MS_NODEV, options)
    for target, path in settings["links"]:
        os.symlink(target, base + path)
    nosuid, nodev = MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    devices = [(path, path, nosuid) for path in DEVICES]
    for source, path, attributes in [(a, b, nodev) for a, b in settings["binds"]] + devices:
        target = base + path
        if os.path.isdir(source):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(source, target, "", MS_BIND | MS_REC)
        set_read_only(target, AT_RECURSIVE, attributes)
    mount("proc", f"{base}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in ("sys", "sysrq-trigger", "irq", "bus"):  # the host's, not the namespace's
        path = f"{base}/proc/{name}"
        if os.path.exists(path):
            mount(path, path, "", MS_BIND | MS_REC)
            set_read_only(path, AT_RECURSIVE)
    os.chdir(base)
    pivot_root = numbers("pivot_root 155 41", platform.machine())[0]
    check(libc.syscall(pivot_root, b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount2")  # the old root, stacked on the new one
    os.chdir("/")
    set_read_only("/", 0)


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


def own_user_namespace() -> bool:
    """A user namespace around the worker alone: its processes are counted apart (RLIMIT_NPROC)."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER) == -1:
        return False
    try:
        write_map(NOBODY, uid, gid)
    except OSError:
        return False
    return True


def bound_capabilities() -> None:
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused without CAP_SETPCAP


def drop_capabilities() -> None:
    bound_capabilities()  # again: a new user namespace comes with the full set
    header, none = struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, 0), bytes(24)
    check(libc.capset(header, none), "capset")


# --- putting it together -------------------------------------------------------------------------


def set_limits(settings: dict, processes: int) -> None:
    memory = settings["memory"]
    for name, value in {
        "CORE": 0,
        "MSGQUEUE": 0,
        "FSIZE": settings["file"],
        "NOFILE": 256,
        # Backstops only, far above what PyTorch maps: sandbox.py measures what is really used.
        "DATA": memory + (2 << 30),
        "AS": 4 * memory + (16 << 30),
        "NPROC": processes,
    }.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def confine(settings: dict, own_root: bool, own_pids: bool, command: list[str]) -> None:
    """Give up all rights and become the command. Exits with 126 when a needed step is refused."""
    machine = platform.machine()
    home = "/tmp" if own_root else settings["scratch"]
    if not own_root and settings["uid"] is not None and not settings["reachable"]:
        settings["uid"] = None  # another user could not even open the interpreter
    if not own_root and settings["uid"] is not None:
        os.chown(home, settings["uid"], settings["uid"])
    bound_capabilities()  # while we may
    dropped = drop_user(settings["uid"])
    alone = own_user_namespace()
    # Linux 5.14 and later count the processes of each user namespace apart.
    release = tuple(int(n) for n in platform.release().split("-")[0].split(".")[:2])
    others = 0 if dropped or (alone and release >= (5, 14)) else settings["same_user_tasks"]
    set_limits(settings, settings["processes"] + others)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    drop_capabilities()
    abi = landlock_abi()
    # Before version 3, Landlock does not stop truncation: fatal for files of the same user.
    if not own_root and abi < (1 if dropped else 3):
        sys.exit("confine.py: neither namespaces nor a sufficient Landlock: no isolation")
    os.chdir(home)
    if abi and own_root:
        landlock(abi, ["/"], ["/tmp", "/dev/shm", *DEVICES])
    elif abi:
        # Of /proc its own folder (glibc reads maps) and what describes the machine.
        proc = [f"/proc/{os.getpid()}", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat"]
        readable = [path for path, _ in settings["binds"]] + [*DEVICES, *proc]
        landlock(abi, readable, [home, "/dev/null"])
    if not own_pids:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    program = seccomp_filter(machine, None if own_pids else os.getpid(), not own_root)
    environment = {"HOME": home, "TMPDIR": home} | dict(os.environ)
    environment.pop("PWD", None)  # bubblewrap's
    notes = {
        "pids": "own" if own_pids else "shared, signals filtered",
        "files": "own root" if own_root else "host's, by Landlock",
        "landlock": abi,
        "user": "unprivileged" if dropped else "same as grader",
        "user_namespace": alone,
        "process_limit": "kernel" if dropped or not settings["root"] else "watched",
    }
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whatever the grader was started with
    install_filter(program)
    say(settings, {"ok": notes})
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


def say(settings: dict, message: dict) -> None:
    os.write(settings["status"], json.dumps(message).encode() + b"\n")


def exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def in_child(work) -> int:
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
        sys.stderr.write(f"confine.py: {error}\n")
    finally:
        os._exit(code)


def succeeds(work) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1]) == 0


def run_init(settings: dict, command: list[str]) -> None:
    """Pid 1: when it ends, the kernel kills every process of its namespace."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    enter_new_root(settings)
    worker = in_child(lambda: confine(settings, True, True, command))
    os.close(settings["status"])
    while True:
        pid, status = os.wait()
        if pid == worker:
            os._exit(exit_code(status))


def try_namespaces(settings: dict) -> None:
    """Raise or exit with an error unless `run_init` would get its namespaces and mounts."""
    os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
    enter_namespaces()
    if not succeeds(lambda: enter_new_root(settings)):
        sys.exit(1)


def supervise(settings: dict, command: list[str]) -> int:
    """Run the command, isolated as well as the kernel grants; its exit code, 128 + a signal."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != settings["parent"]:
        return 126
    if settings["namespaces"] and succeeds(lambda: try_namespaces(settings)):
        enter_namespaces()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # new credentials may have cleared it
        init = in_child(lambda: run_init(settings, command))
        say(settings, {"init": init})
        os.close(settings["status"])
        return exit_code(os.waitpid(init, 0)[1])

    # No pid namespace. All processes of the sandbox stay in one group, so one kill ends them all:
    # kill(2) of a group is atomic with regard to fork.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    group = 0

    def end_all(*_) -> None:
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
        confine(settings, False, False, command)

    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.signal(signal.SIGTERM, end_all)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    group = in_child(run_worker)
    os.close(settings["status"])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    code = 0
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            break
        if ended.si_pid == group:
            end_all()  # while the leader is not yet reaped: its number cannot be another group's
            code = exit_code(os.waitpid(group, 0)[1])
            group = 0
        else:
            os.waitpid(ended.si_pid, 0)
    if os.getppid() != settings["parent"]:  # nobody else is left to clear up
        os.execv("/bin/rm", ["rm", "-rf", settings["scratch"]])
    return code


def main(arguments: list[str]) -> int:
    source, status, *command = arguments
    with open(int(source)) as file:
        settings = json.load(file)
    settings["status"] = int(status)
    os.set_inheritable(int(status), False)
    if settings["inside"]:
        confine(settings, True, True, command)
    return supervise(settings, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
