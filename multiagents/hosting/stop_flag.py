"""Is the worker of this process stopping?

One byte in memory that a worker's main process shares with its forked children.  It has no lock,
because a killed child would never release it.  A signal's handler may set it.
"""

from __future__ import annotations

from mmap import mmap


class StopFlag:
    """Set in a worker's main process, seen in the children forked since the last `renew`."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Clear it before a worker forks; children of an earlier worker keep theirs."""
        self._byte = mmap(-1, 1)

    def set(self) -> None:
        """Mark the worker as stopping."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether the worker is stopping."""
        return self._byte[0] == 1
