"""Which known name did the user of an unknown one probably mean?

One answer for all messages with "did you mean", by difflib's ratio of two texts, 0 to 1.  Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKELY = 0.6
"""For a suggestion to a user; difflib's default."""
OWN_NAME = 0.7
"""For the last parts of dotted names: names of one module are similar anyway."""
MISTYPED = 0.85
"""Counts as a typing mistake; ``reserve_stock`` and ``release_stock``, two different names, have
0.77."""


def near(name: str, known: Iterable[str], *, most: int = 1, alike: float = LIKELY) -> list[str]:
    """The names with at least this ratio, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=alike)


def nearest(name: str, known: Iterable[str], *, alike: float = LIKELY) -> str:
    """The name that was probably meant; empty if there is none."""
    return next(iter(near(name, known, alike=alike)), "")


def nearest_dotted(name: str, known: Iterable[str]) -> str:
    """The same for dotted names: their last parts have to be similar."""
    own = {each: each.rpartition(".")[2] for each in known}
    close = near(name.rpartition(".")[2], own.values(), most=3, alike=OWN_NAME)
    return nearest(name, [each for each in own if own[each] in close], alike=0)


def did_you_mean(meant: str, then: str = "") -> str:
    """``did you mean 'x'?``, or nothing for an empty name, and then ``then``."""
    return " ".join(filter(None, (f"did you mean {meant!r}?" if meant else "", then)))
