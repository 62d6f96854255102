"""What the system says about processes: who belongs to whom, and what they use. On Linux that is
/proc (proc(5)); elsewhere psutil, and nothing where that is not installed."""

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = sys.platform.startswith("linux")
if not PROC:
    with contextlib.suppress(ImportError):
        import psutil
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # per second
PAGE_TABLES = "VmPTE:"  # memory too: mapping zeros alone can fill gigabytes of them
FREE_BYTES = 1 << 30  # left on the disk; where less is, see scratch_use


@dataclass(frozen=True)
class Process:
    """One look at a process."""

    state: str  # as in /proc/PID/stat: Z and X for one that has ended
    started: float  # by the system's clock: with the pid, this names a process for good
    cpu_seconds: float  # its own and, on Linux, that of the children it has waited for
    threads: int
    memory_bytes: int  # resident and swapped


def look(pid: int) -> Process | None:
    """What can be said about the process, or None if there is no such process."""
    if not PROC:
        return _look_with_psutil(pid)
    try:
        line = Path(f"/proc/{pid}/stat").read_text("latin-1")
        status = Path(f"/proc/{pid}/status").read_text("latin-1")
    except OSError:
        return None
    fields = line[line.rindex(")") + 2 :].split()  # from the third on: the name may hold anything
    cpu_seconds = sum(map(int, fields[11:15])) / TICKS  # utime, stime, cutime, cstime
    memory = _kilobytes(status, ("VmRSS:", "VmSwap:", PAGE_TABLES)) * 1024
    return Process(fields[0], int(fields[19]), cpu_seconds, int(fields[17]), memory)


def _look_with_psutil(pid: int) -> Process | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "R"
            times, threads = process.cpu_times(), process.num_threads()
            seconds, memory = times.user + times.system, process.memory_info().rss
            return Process(state, process.create_time(), seconds, threads, memory)
    except Exception:  # NameError, without psutil; its own kinds
        return None


def _kilobytes(text: str, names: tuple[str, ...]) -> int:
    rows = (line.split() for line in text.splitlines() if line.startswith(names))
    return sum(int(row[1]) for row in rows)


def proportional(pid: int, seen: Process) -> int:
    """Bytes of memory, where a page that n processes share counts as 1/n."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        text += Path(f"/proc/{pid}/status").read_text("latin-1")
    except PermissionError:
        return seen.memory_bytes
    except OSError:  # it has ended, or let go of its memory
        return 0 if PROC else seen.memory_bytes
    return _kilobytes(text, ("Pss:", "SwapPss:", PAGE_TABLES)) * 1024


def is_alive(pid: int, started: float) -> bool:
    """Whether the process that was once looked at still runs."""
    seen = look(pid)
    return bool(seen and seen.started == started and seen.state not in "ZX")


def kill(pid: int) -> None:
    """End a process at once, if it is there."""
    with contextlib.suppress(OSError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def tree(root: int) -> list[int]:
    """The pid and those of all its descendants, parents first."""
    pids = [root]
    if not PROC:
        with contextlib.suppress(Exception):
            pids += [child.pid for child in psutil.Process(root).children(recursive=True)]
        return pids
    for pid in pids:  # grows while we go
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    children = Path(f"/proc/{pid}/task/{task}/children").read_text()
                    pids += map(int, children.split())
    return pids


def tasks_of(uid: int) -> int:
    """How many threads this user runs. Linux."""
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                count += len(os.listdir(f"{entry.path}/task"))
    return count


def scratch_use(folder: str, pids: list[int], most: int) -> tuple[int, int]:
    """Bytes and number of files in a folder, with those deleted but still open or mapped. Linux.

    Stops counting at more than `most` files. Root without CAP_SYS_PTRACE (containers) cannot see
    what another user has open: then a nearly full disk counts as an infinite use.
    """
    sizes: dict[int, int] = {}  # by inode: links count once
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
    for pid in pids:
        try:
            for inode, size in _deleted_files(pid, folder):
                sizes[inode] = max(sizes.get(inode, 0), size)
        except PermissionError:
            disk = os.statvfs(folder)
            if disk.f_bavail * disk.f_frsize < FREE_BYTES:
                return 1 << 62, len(sizes)
        except OSError:  # it has ended
            pass
    return sum(sizes.values()), len(sizes)


def _deleted_files(pid: int, folder: str) -> Iterator[tuple[int, int]]:
    """Inode and bytes of the deleted files of a folder that a process has mapped or open."""
    for line in Path(f"/proc/{pid}/maps").read_text("latin-1").splitlines():
        if line.endswith("(deleted)") and folder in line:
            span, _, _, _, inode = line.split()[:5]
            first, last = (int(end, 16) for end in span.split("-"))
            yield int(inode), last - first
    device = os.stat(folder).st_dev
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(f"/proc/{pid}/fd/{name}")
            if stat.S_ISREG(status.st_mode) and status.st_dev == device and status.st_nlink == 0:
                yield status.st_ino, status.st_blocks * 512
