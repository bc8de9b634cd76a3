"""How do several processes write one log file and rotate it?

The standard RotatingFileHandler assumes one writer.  After a rotation by one child of a worker,
the other children would write into the renamed file and rotate again.  Here a process that finds
the file replaced opens the new one, and only the holder of a lock rotates.
"""

from __future__ import annotations

import os
from io import TextIOWrapper
from logging import LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

from multiagents.storage.file_lock import FileLock


class SharedRotatingFileHandler(RotatingFileHandler):
    """A rotating file for any number of processes; file and folder appear with the first record."""

    def __init__(self, path: Path, *, max_bytes: int, backup_count: int) -> None:
        super().__init__(
            path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8", delay=True
        )

    def _open(self) -> TextIOWrapper:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def shouldRollover(self, record: LogRecord) -> bool:  # noqa: N802 - the standard's name
        self._follow()
        return bool(super().shouldRollover(record))

    def doRollover(self) -> None:  # noqa: N802 - the standard's name
        """Rotate, unless another process rotates or has rotated; the record is written anyway."""
        lock = FileLock(Path(f"{self.baseFilename}.lock"))
        try:
            if lock.own() and not self._follow():
                super().doRollover()
        finally:
            lock.close()

    def _follow(self) -> bool:
        """Close a file that is no longer the log, and return whether it was one."""
        if self.stream is None or self._is_current(self.stream):
            return False
        self.stream.close()
        self.stream = None  # as the standard does; opened when written
        return True

    def _is_current(self, stream: TextIOWrapper) -> bool:
        try:
            there = os.stat(self.baseFilename)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(stream.fileno()))
