"""Is the worker that this process belongs to about to end?

One byte in memory that a worker's main process shares with the children that it forks.  Without a
lock, because one that a killed child held would be held for ever.  A signal's handler may set it.
"""

from __future__ import annotations

from mmap import mmap


class StopFlag:
    """Set in a worker's main process, seen in the children forked since the last `renew`."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew, for a worker that is about to fork; children of one before keep theirs."""
        self._byte = mmap(-1, 1)

    def set(self) -> None:
        """The worker is to end."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether it is to end."""
        return self._byte[0] == 1
