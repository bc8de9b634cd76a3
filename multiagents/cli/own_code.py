"""Which lines and files are the user's own?

`dev` shows the user's own lines of a traceback, and watches the user's own files.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from multiagents.core.places import is_users


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an error's traceback in the user's code, outermost first."""
    return [each for each in traceback.extract_tb(error.__traceback__) if is_users(each.filename)]


def own_files(more: Iterable[Path] = ()) -> list[str]:
    """The files of the user's imported modules, and the files in ``more``."""
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found = {os.path.abspath(name) for name in names if isinstance(name, str)}
    return sorted({*filter(is_users, found), *(str(path.absolute()) for path in more)})
