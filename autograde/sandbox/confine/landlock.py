"""Landlock: the kernel denies all files but those listed (landlock(7))."""

import os
import struct

from .kernel import check, libc

EXECUTE, WRITE, READ, READ_DIR = 1, 2, 4, 8  # LANDLOCK_ACCESS_FS_...
TRUNCATE, IOCTL_DEV = 1 << 14, 1 << 15
OF_FILES = EXECUTE | WRITE | READ | TRUNCATE | IOCTL_DEV


def landlock_abi() -> int:
    """0 where the kernel has no Landlock; else its version (landlock_create_ruleset(2))."""
    abi: int = libc.syscall(444, None, 0, 1)  # LANDLOCK_CREATE_RULESET_VERSION
    return max(0, abi)


def restrict_files(abi: int, readable: list[str], writable: list[str]) -> None:
    """Deny all files but these, connections, and signals to the outside, as far as abi allows.

    Needs no_new_privs. Paths that do not exist are left out. OSError if the kernel refuses.
    """
    # The rights of each version: 13 in the first, then REFER, TRUNCATE, IOCTL_DEV.
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    size = 8 if abi < 4 else 16 if abi < 6 else 24  # struct landlock_ruleset_attr
    attr = struct.pack("QQQ", everything, 3, 3)  # TCP bind and connect; abstract sockets, signals
    rules = check(libc.syscall(444, attr, size, 0), "landlock_create_ruleset")
    reading = EXECUTE | READ | READ_DIR
    for path, access in [(p, reading) for p in readable] + [(p, everything) for p in writable]:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            access &= OF_FILES & everything
        beneath = struct.pack("=Qi", access, fd)  # struct landlock_path_beneath_attr, packed
        check(libc.syscall(445, rules, 1, beneath, 0), f"landlock_add_rule {path}")
        os.close(fd)
    check(libc.syscall(446, rules, 0), "landlock_restrict_self")
    os.close(rules)
