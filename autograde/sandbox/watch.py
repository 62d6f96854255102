"""Looks at a worker and all that it starts, from outside: what they use, and how they end."""

import contextlib
import os
import signal
import subprocess
import time
from typing import Any

from autograde.sandbox.limits import Isolation, Limits, Usage
from autograde.sandbox.processes import is_alive, kill, look, proportional, scratch_use, tree

DISK_SECONDS = 0.25  # between two looks at the disk


class Watch:
    """What the processes below one that was started use, and the way to end them all."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        isolation: Isolation,
        limits: Limits,
        scratch: str | None,
    ):
        self.process, self.isolation, self.limits, self.scratch = (
            process,
            isolation,
            limits,
            scratch,
        )
        self.granted: dict[str, Any] = {}  # what confine/enter.py says it got
        self.usage = Usage()
        self._init: tuple[int, float] | None = None  # pid and start of pid 1 of the sandbox
        self._seen: dict[int, float] = {}  # without isolation: pid and start of all
        self._disk_time = 0.0

    def begin(self, granted: dict[str, Any]) -> None:
        """Take note of what the sandbox is made of, once the worker has taken over."""
        self.granted = granted
        if granted.get("pids") == "own":  # the only child, if all is not over already
            for pid in tree(self.process.pid)[1:2]:
                seen = look(pid)
                self._init = (pid, seen.started) if seen else None

    def excess(self) -> str | None:
        """Update usage. The limit that is exceeded, if any: memory, processes or disk."""
        pids, excess = self._measure()
        if excess:  # Twice: a sum over processes is wrong for a moment when some end meanwhile.
            return self._measure()[1]
        if time.monotonic() >= self._disk_time and self.process.poll() is None:
            self._disk_time = time.monotonic() + DISK_SECONDS
            return "disk" if self._too_much_on_disk(pids) else None
        return None

    def _measure(self) -> tuple[list[int], str | None]:
        """Update usage. The processes of the sandbox, and which limit they exceed, if any."""
        processes = {pid: seen for pid in tree(self.process.pid) if (seen := look(pid))}
        memory = sum(seen.memory_bytes for seen in processes.values())
        if memory > self.limits.memory_bytes:
            memory = sum(proportional(pid, seen) for pid, seen in processes.items())
        # bwrap or confine, and pid 1
        helpers = 0 if self.isolation is Isolation.NONE else 2 if self._init else 1
        tasks = max(0, sum(seen.threads for seen in processes.values()) - helpers)
        # Children that ended between two looks are in it: somebody waits for each (confine).
        seconds = sum(seen.cpu_seconds for seen in processes.values())
        self.usage = Usage(
            max(seconds, self.usage.cpu_seconds),
            max(memory, self.usage.peak_memory_bytes),
            max(tasks, self.usage.peak_processes),
        )
        if self.isolation is Isolation.NONE:
            self._seen |= {pid: seen.started for pid, seen in processes.items()}
        if memory > self.limits.memory_bytes:
            return list(processes), "memory"
        return list(processes), "processes" if tasks > self.limits.processes else None

    def _too_much_on_disk(self, pids: list[int]) -> bool:
        if self.granted.get("files") == "own root":
            # The size is that of the tmpfs; bubblewrap cannot limit the number of files.
            try:
                disk = os.statvfs(f"/proc/{pids[-1]}/root/tmp")
            except (OSError, IndexError):
                return False
            return disk.f_files - disk.f_ffree > self.limits.files + 1000  # + those of the binds
        if not self.granted or self.scratch is None:
            return False
        used, files = scratch_use(self.scratch, pids, self.limits.files)
        return used > self.limits.disk_bytes or files > self.limits.files

    def end(self) -> None:
        """Kill everything that still runs, and return when nothing does."""
        process = self.process
        if process.poll() is None:
            self._measure()
            if self._init:
                self._kill_init()  # the kernel kills its namespace with it
            elif self.isolation is Isolation.LANDLOCK:
                process.terminate()  # confine kills the group, and reaps until nobody is left
            else:
                kill(process.pid)
        if self.isolation is Isolation.NONE:
            self._kill_family()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(process.pid)):
                kill(pid)
            process.wait()
        # Pid 1 ends only when all other processes of its namespace have (pid_namespaces(7)).
        while self._kill_init():
            time.sleep(0.002)

    def _kill_init(self) -> bool:
        """Kill pid 1 of the sandbox, if there is one that lives."""
        alive = self._init is not None and is_alive(*self._init)
        if self._init and alive:
            kill(self._init[0])
        return alive

    def _kill_family(self) -> None:
        """Without isolation: the process group, and all that was ever seen."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        for pid, started in self._seen.items():
            if is_alive(pid, started):
                kill(pid)
