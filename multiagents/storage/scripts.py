"""Where is the text of a script?

Scripts are files in ``lua/``.  ``lib.lua`` is put before those that use a saga's keys.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

_WITH_LIB = frozenset(
    {"append", "commit", "advance", "start", "claim", "settle", "owe", "telling", "purge"}
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and its hash on the server."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script of ``lua/<name>.lua``."""
    text = _read(name)
    if name in _WITH_LIB:
        text = _read("lib") + text
    return Script(text, hashlib.sha1(text.encode()).hexdigest())


def _read(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")
