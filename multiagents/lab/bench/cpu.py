"""How much processor time have some processes used?

The source is ``/proc``; without it the answer is None.  It gives a process's time to 10 ms, and
that of its living threads to the nanosecond if the kernel keeps it.  The larger sum is closer.
"""

from __future__ import annotations

import os
import time
from dataclasses import astuple, dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor seconds of all processes that do a side's work."""

    main: float = 0.0
    """The worker's main process."""
    children: float = 0.0
    server: float = 0.0
    client: float = 0.0
    """This process."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def per(self, steps: int) -> dict[str, float]:
        """Milliseconds per step, by process and in all."""
        parts = {name: 1000 * getattr(self, name) / steps for name in self.__slots__}
        return {"total": sum(parts.values()), **parts}


@dataclass(frozen=True, slots=True)
class Meter:
    """Reads the processor time of a worker, the server and this process so far."""

    worker: int
    """The pid of the worker's main process."""
    server: int

    def read(self) -> Usage | None:
        """The usage so far; None without /proc."""
        if not (PROC / "self/stat").exists():
            return None
        return Usage(
            main=seconds(self.worker),
            children=sum(map(seconds, descendants(self.worker))),
            server=seconds(self.server),
            client=time.process_time(),
        )


def tree_seconds(pid: int) -> float | None:
    """Processor seconds of a process and all its descendants; None without /proc."""
    if not (PROC / "self/stat").exists():
        return None
    return seconds(pid) + sum(map(seconds, descendants(pid)))


def idle_seconds() -> float | None:
    """Idle seconds of all processors of this machine; None without /proc."""
    words = _read(PROC / "stat").split(maxsplit=6)
    if not words:
        return None
    idle, for_disks = words[4:6]
    return (int(idle) + int(for_disks)) / os.sysconf("SC_CLK_TCK")


def seconds(pid: int) -> float:
    """Processor seconds of one process, in user mode and in the kernel; 0 if it has ended."""
    fields = _stat(pid)
    if not fields:
        return 0.0
    whole = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return max(whole, sum(map(_thread_seconds, (PROC / str(pid) / "task").glob("*"))))


def _thread_seconds(thread: Path) -> float:
    words = _read(thread / "schedstat").split()
    return int(words[0]) / 1e9 if words else 0.0


def descendants(pid: int) -> list[int]:
    """The pids of a process's descendants, at any depth."""
    parents = {int(path.name): _parent(int(path.name)) for path in PROC.glob("[0-9]*")}
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (proc(5)); [] if the process has ended."""
    return _read(PROC / str(pid) / "stat").rpartition(")")[2].split()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):  # ended, or the kernel has no such file
        return ""
