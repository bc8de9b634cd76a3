"""Which process may use a file's neighbours now?

The kernel holds the lock for the processes that have the file open.  It drops the lock when the
last of them ends, however it died: there are no stale locks, and no pids to compare.  Nothing here
waits.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLock:
    """A flock on ``path``, taken by `share` or `own`, held until `close`.

    A child process that inherits ``fd`` holds the same lock, also after `close` here.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def share(self) -> bool:
        """Hold it together with others; False, and not held, if another process owns it."""
        return self._take(fcntl.LOCK_SH)

    def own(self) -> bool:
        """Hold it alone; False, and not held, if another process holds it."""
        return self._take(fcntl.LOCK_EX)

    def close(self) -> None:
        os.close(self.fd)

    def _take(self, how: int) -> bool:
        try:
            fcntl.flock(self.fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
