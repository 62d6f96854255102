"""A world of its own: users, processes, network, and a root of read-only binds (namespaces(7))."""

import ctypes
import os
import struct
from types import SimpleNamespace as Settings

from .kernel import DEVICES, check, libc

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
CLONE_NEWUSER = 0x10000000
# CLONE_NEW: NS, CGROUP, UTS, IPC, PID, NET
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NOBODY = 65534
SHM_BYTES = 64 << 20  # /dev/shm, where it exists at all


def write_map(inside: int, uid: int, gid: int) -> None:
    """Name the one user of a new user namespace (user_namespaces(7)). Raises OSError."""
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


def own_user_namespace() -> bool:
    """A user namespace around the worker alone: its processes are counted apart (RLIMIT_NPROC).
    False where that is refused."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER) == -1:
        return False
    try:
        write_map(NOBODY, uid, gid)
    except OSError:
        return False
    return True


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """As mount(2). Raises OSError."""
    args = [text.encode() for text in (source, target, kind)]
    check(libc.mount(*args, ctypes.c_ulong(flags), data.encode()), f"mount {target}")


def bind(source: str, target: str) -> None:
    """Show a file or folder, with all that is mounted below it, at target. Raises OSError."""
    mount(source, target, "", MS_BIND | MS_REC)


def set_read_only(path: str, flags: int, attributes: int = 0) -> None:
    """As mount_setattr(2), with MOUNT_ATTR_RDONLY besides the attributes. Raises OSError."""
    attr = struct.pack("QQQQ", MOUNT_ATTR_RDONLY | attributes, 0, 0, 0)  # struct mount_attr
    done = libc.syscall(442, AT_FDCWD, path.encode(), flags, attr, len(attr))
    check(done, f"mount_setattr {path}")


def enter_new_root(settings: Settings) -> None:
    """A root of nothing but the binds, private /tmp, /dev and /proc. Runs as pid 1. OSError."""
    base = settings.scratch
    os.umask(0o022)
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("root", base, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for name in ("tmp", "dev", "dev/shm", "proc"):
        os.mkdir(f"{base}/{name}")
    for name, size in (
        ("tmp", settings.disk_bytes),
        ("dev/shm", min(settings.disk_bytes, SHM_BYTES)),
    ):
        options = f"size={size},nr_inodes={settings.files},mode=1777"
        mount("scratch", f"{base}/{name}", "tmpfs", MS_NOSUID | MS_NODEV, options)
    for target, path in settings.links:
        os.symlink(target, base + path)
    for source, path in settings.binds:
        bind_read_only(source, base + path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    for path in DEVICES:
        bind_read_only(path, base + path, MOUNT_ATTR_NOSUID)
    mount("proc", f"{base}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in ("sys", "sysrq-trigger", "irq", "bus"):  # the host's, not the namespace's
        path = f"{base}/proc/{name}"
        if os.path.exists(path):
            bind(path, path)
            set_read_only(path, AT_RECURSIVE)
    os.chdir(base)
    check(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    check(libc.umount2(b".", MNT_DETACH), "umount2")  # the old root, stacked on the new one
    os.chdir("/")
    set_read_only("/", 0)


def bind_read_only(source: str, target: str, attributes: int) -> None:
    """Show a file or folder at target, which is made for it, read-only. Raises OSError."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    bind(source, target)
    set_read_only(target, AT_RECURSIVE, attributes)
