"""Calls of the kernel that Python does not offer, and their errors."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_DUMPABLE, PR_SET_SECCOMP = 4, 22
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def check(result: int, what: str) -> int:
    """The result of a C function, or OSError with its errno where that is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def prctl(option: int, value: int) -> None:
    """Change one property of this process (prctl(2)). Raises OSError."""
    check(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")
