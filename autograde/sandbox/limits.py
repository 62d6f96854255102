"""The words in which a sandbox is asked for, and in which it reports."""

from dataclasses import dataclass
from enum import Enum


class SandboxError(Exception):
    """The sandbox could not be set up; no worker was started."""


class Isolation(str, Enum):
    """How a worker is kept from everything that is not its own."""

    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"  # confine/: namespaces where granted, Landlock, seccomp
    NONE = "none"  # a plain process, with all rights of the grader


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
