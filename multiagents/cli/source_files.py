"""Have the user's files changed, and can they be parsed?

Changes are found by time and size: that works with every editor and file system.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from multiagents.core.places import shown_path

SETTLE_S = 0.1
"""Files saved within this time are one change, and a half-written file is not read."""
MOST_LOOKS = 20
MOST_NAMES = 3


class SourceFiles:
    """A set of files, and their last changes."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(paths)
        self._seen = self._stamps()

    def changed(self) -> list[str]:
        """The files that have changed since the last call, without removed ones."""
        before, now = self._seen, self._stamps()
        if now == before:
            return []
        for _ in range(MOST_LOOKS):
            time.sleep(SETTLE_S)
            last, now = now, self._stamps()
            if now == last:
                break
        self._seen = {**before, **now}
        return [path for path, stamp in now.items() if before.get(path) != stamp]

    def wider(self) -> SourceFiles:
        """The same files and all code beside them: a module that failed to import is not listed."""
        folders = {Path.cwd(), *(Path(path).parent for path in self._paths)}
        beside = {str(file) for folder in folders for file in folder.glob("*.py")}
        return SourceFiles(sorted({*self._paths, *beside}))

    def _stamps(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self._paths:
            try:
                about = os.stat(path)
            except OSError:  # an editor is replacing the file
                continue
            found[path] = (about.st_mtime_ns, about.st_size)
        return found


def shown(paths: list[str]) -> str:
    """The names of files for a message, with the verb."""
    names = [shown_path(path) for path in paths]
    if len(names) <= MOST_NAMES:
        return ", ".join(names) + (" has" if len(names) == 1 else " have")
    return f"{names[0]} and {len(names) - 1} other files have"


def flaw_of(paths: Iterable[str]) -> str:
    """The error of the first file that cannot be parsed; "" if all can."""
    for path in paths:
        if flaw := _flaw(path):
            return flaw
    return ""


def _flaw(path: str) -> str:
    from multiagents.core.exceptions import InvalidWorkflow
    from multiagents.workflows.files import load_file

    try:
        if path.endswith(".py"):
            compile(Path(path).read_bytes(), path, "exec")
        else:
            load_file(path)
    except SyntaxError as error:
        return f"{shown_path(path)}:{error.lineno}: {type(error).__name__}: {error.msg}"
    except (OSError, ValueError) as error:
        return f"{shown_path(path)}: {error}"
    except InvalidWorkflow as error:
        return " ".join(str(error).split())
    return ""
