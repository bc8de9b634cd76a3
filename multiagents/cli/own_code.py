"""Which lines and files are the user's own?

So a terminal shows of an error the lines that its reader can change, and `dev` watches the files
that its reader edits.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from multiagents.core.places import is_users


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The lines of the user's code that an error went through, the outermost first."""
    return [each for each in traceback.extract_tb(error.__traceback__) if is_users(each.filename)]


def own_files(more: Iterable[Path] = ()) -> list[str]:
    """The files of the user's modules that this process has imported, and these."""
    names = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found = {os.path.abspath(name) for name in names if isinstance(name, str)}
    return sorted({*filter(is_users, found), *(str(path.absolute()) for path in more)})
