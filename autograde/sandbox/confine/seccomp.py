"""seccomp: the system calls that the kernel denies a worker (seccomp(2), linux/filter.h)."""

import ctypes
import signal
import struct
from errno import ENOSYS, EOPNOTSUPP, EPERM

from .kernel import PR_SET_DUMPABLE, PR_SET_SECCOMP, check, libc
from .namespaces import CLONE_NEWUSER, NAMESPACES

SECCOMP_MODE_FILTER = 2

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


def numbers(table: str, machine: str) -> list[int]:
    """The numbers of the system calls in a table like DENIED, on this machine."""
    rows = [row.split() for row in table.replace("\n", " ").split(",")]
    return [int(row[COLUMN[machine]]) for row in rows if row[COLUMN[machine]] != "-"]


def _op(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k & 0xFFFFFFFF)  # struct sock_filter


def _load(offset: int) -> bytes:  # of struct seccomp_data: nr 0, arch 4, args from 16
    return _op(0x20, offset)  # BPF_LD | BPF_W | BPF_ABS


def _skip_unless(value: int, count: int) -> bytes:  # BPF_JMP | BPF_JEQ | BPF_K
    return _op(0x15, value, 0, count)


def _fail(number: int) -> bytes:  # with this errno; 0: the call seems to work, and does nothing
    return _op(0x06, 0x00050000 | number)  # BPF_RET | BPF_K, SECCOMP_RET_ERRNO


KILL_PROCESS = _op(0x06, 0x80000000)  # SECCOMP_RET_KILL_PROCESS
ALLOW = _op(0x06, 0x7FFF0000)  # SECCOMP_RET_ALLOW
NUMBER = _load(0)


def _when(call: int, body: list[bytes]) -> list[bytes]:
    return [_skip_unless(call, len(body)), *body]


def _only(call: int, arg: int, allowed: list[int]) -> list[bytes]:
    """Deny a call unless the low word of an argument (a pid_t) has one of these values."""
    tests = [_op(0x15, value, len(allowed) - i) for i, value in enumerate(allowed)]
    return _when(call, [_load(16 + 8 * arg), *tests, _fail(EPERM), NUMBER])


def _never(call: int, arg: int, values: list[int]) -> list[bytes]:
    """Deny a call if the low word of an argument has one of these values."""
    tests = [_op(0x15, value, len(values) - i - 1) for i, value in enumerate(values)]
    tests[-1] = _skip_unless(values[-1], 1)
    return _when(call, [_load(16 + 8 * arg), *tests, _fail(EPERM), NUMBER])


def _not_with(call: int, arg: int, flags: int, error: int) -> list[bytes]:
    """Fail a call if an argument has any of these flags (BPF_JSET)."""
    return _when(call, [_load(16 + 8 * arg), _op(0x45, flags, 0, 1), _fail(error), NUMBER])


def _everywhere(machine: str) -> list[bytes]:
    column = COLUMN[machine] - 1
    program = [_load(4), _op(0x15, AUDIT_ARCH[machine], 1, 0), KILL_PROCESS, NUMBER]
    program += [_op(0x35, 0x40000000, 0, 1), KILL_PROCESS]  # BPF_JGE: the x32 calls of x86_64
    program += [_op(0x35, FIRST_UNKNOWN, 0, 1), _fail(ENOSYS)]
    program += _when(435, [_fail(ENOSYS)])  # clone3 hides its flags in memory; libc tries clone
    program += _when(437, [_fail(ENOSYS)])  # openat2
    program += _not_with((56, 220)[column], 0, NAMESPACES | CLONE_NEWUSER, EPERM)  # clone
    # ioctl: TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP
    program += _never((16, 29)[column], 1, [0x5412, 0x541C, 0x8901, 0x8902])
    program += _only((302, 261)[column], 0, [0])  # prlimit64: itself only
    # rt_sigaction that would change what SIGCHLD does seems to work and changes nothing: children
    # of a parent that ignores it vanish with the time that they took. A null pointer only asks.
    sigchld = [_load(16), _skip_unless(signal.SIGCHLD, 5), _load(24), _skip_unless(0, 2)]
    sigchld += [_load(28), _op(0x15, 0, 1, 0), _fail(0), NUMBER]
    return program + _when((13, 134)[column], sigchld)


def _among_host_pids(machine: str, pid: int) -> list[bytes]:
    column = COLUMN[machine] - 1
    return [
        *_only((62, 129)[column], 0, [0, pid, -pid]),  # kill: itself and its process group
        *_only((234, 131)[column], 0, [pid]),  # tgkill
        *_never((72, 25)[column], 1, [8, 15]),  # fcntl: F_SETOWN, F_SETOWN_EX send signals
    ]


def _among_host_files(machine: str) -> list[bytes]:
    """What is written is added up: no file without a name (open, openat with __O_TMPFILE), nobody
    who hides what is open (prctl)."""
    program = _never((157, 167)[COLUMN[machine] - 1], 0, [PR_SET_DUMPABLE])
    for call, arg in ((2, 1), (257, 2)) if machine == "x86_64" else ((56, 2),):
        program += _not_with(call, arg, 0x400000, EOPNOTSUPP)
    return program


def seccomp_filter(machine: str, pid: int | None, host_files: bool) -> bytes:
    """The BPF program: everything is allowed but what is listed.

    machine: x86_64 or aarch64 (KeyError otherwise). pid: that of the worker, when it shares the
    host's process ids, else None. host_files: whether only Landlock keeps files from it.
    """
    program, tables = _everywhere(machine), DENIED
    if pid is not None:
        program += _among_host_pids(machine, pid)
        tables += "," + DENIED_AMONG_HOST_PIDS
    if host_files:
        program += _among_host_files(machine)
        tables += "," + DENIED_AMONG_HOST_FILES
    for call in numbers(tables, machine):
        program += _when(call, [_fail(EPERM)])
    return b"".join([*program, ALLOW])


def install_filter(program: bytes) -> None:
    """Filter this process and all its children from now on; needs no_new_privs. OSError."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog, 0, 0), "seccomp")
