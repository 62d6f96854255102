"""What /proc says about processes (proc(5)): who belongs to whom, and what they use. Linux only."""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # per second
PAGE_TABLES = "VmPTE:"  # memory too: mapping zeros alone can fill gigabytes of them
FREE_BYTES = 1 << 30  # left on the disk; where less is, see scratch_use


@dataclass(frozen=True)
class Process:
    """One look at /proc/PID."""

    state: str
    started: int  # clock ticks since boot: with the pid, this names a process for good
    cpu_seconds: float  # its own and that of the children it has waited for
    threads: int
    memory_bytes: int


def look(pid: int) -> Process | None:
    """None if there is no such process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text("latin-1")
        status = Path(f"/proc/{pid}/status").read_text("latin-1")
    except OSError:
        return None
    fields = line[line.rindex(")") + 2 :].split()  # from the third on: the name may hold anything
    kilobytes = kilobytes_of(status, ("VmRSS:", "VmSwap:", PAGE_TABLES))
    return Process(
        fields[0],
        int(fields[19]),
        sum(map(int, fields[11:15])) / TICKS,  # utime, stime, cutime, cstime
        int(fields[17]),
        kilobytes * 1024,
    )


def kilobytes_of(text: str, names: tuple[str, ...]) -> int:
    rows = (line.split() for line in text.splitlines() if line.startswith(names))
    return sum(int(row[1]) for row in rows)


def proportional(pid: int, seen: Process) -> int:
    """Bytes, where a page that n processes share counts as 1/n."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        text += Path(f"/proc/{pid}/status").read_text("latin-1")
    except PermissionError:
        return seen.memory_bytes
    except OSError:  # it has ended, or let go of its memory
        return 0
    return kilobytes_of(text, ("Pss:", "SwapPss:", PAGE_TABLES)) * 1024


def is_alive(pid: int, started: int) -> bool:
    seen = look(pid)
    return bool(seen and seen.started == started and seen.state not in "ZX")


def tree(root: int) -> list[int]:
    """The pid and those of all its descendants, parents first."""
    pids = [root]
    for pid in pids:  # grows while we go
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    children = Path(f"/proc/{pid}/task/{task}/children").read_text()
                    pids += map(int, children.split())
    return pids


def tasks_of(uid: int) -> int:
    """How many threads this user runs."""
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"{entry.path}/task"))
    return count


def scratch_use(folder: str, pids: list[int], most: int) -> tuple[int, int]:
    """Bytes and number of files in a folder, with those deleted but still open or mapped.

    Stops counting at more than `most` files. Root without CAP_SYS_PTRACE (containers) cannot see
    what another user has open: then a nearly full disk counts as an infinite use.
    """
    sizes = {}  # by inode: links count once
    folders = [folder]
    while folders and len(sizes) <= most:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                sizes[status.st_ino] = status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                if len(sizes) > most:
                    break
    device = os.stat(folder).st_dev
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text("latin-1").splitlines()
            for line in maps:
                if line.endswith("(deleted)") and folder in line:
                    span, _, _, _, inode = line.split()[:5]
                    first, last = (int(end, 16) for end in span.split("-"))
                    sizes[int(inode)] = max(sizes.get(int(inode), 0), last - first)
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(f"/proc/{pid}/fd/{name}")
                    if stat.S_ISREG(status.st_mode) and status.st_dev == device:
                        deleted = status.st_nlink == 0
                        sizes |= {status.st_ino: status.st_blocks * 512} if deleted else {}
        except PermissionError:
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < FREE_BYTES:
                return 1 << 62, len(sizes)
        except OSError:  # it has ended
            pass
    return sum(sizes.values()), len(sizes)
