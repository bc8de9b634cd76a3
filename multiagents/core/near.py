"""Which of the known names was probably meant by one that is not known?

One answer for all messages with "did you mean"; what is said around it is theirs.  By difflib's
ratio of two texts, 0 to 1.  Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LIKELY = 0.6
"""For a person to choose among; difflib's own."""
OWN_NAME = 0.7
"""Of the last parts of dotted names: names of one module resemble each other anyway."""
MISTYPED = 0.85
"""Taken for a typing mistake; ``reserve_stock`` and ``release_stock``, two names that mean two
things, have 0.77."""


def near(name: str, known: Iterable[str], *, most: int = 1, alike: float = LIKELY) -> list[str]:
    """The names that are at least so much alike, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=most, cutoff=alike)


def nearest(name: str, known: Iterable[str], *, alike: float = LIKELY) -> str:
    """The one that was probably meant; empty if there is none."""
    return next(iter(near(name, known, alike=alike)), "")


def nearest_dotted(name: str, known: Iterable[str]) -> str:
    """Likewise of dotted names: their last parts have to be alike."""
    own = {each: each.rpartition(".")[2] for each in known}
    close = near(name.rpartition(".")[2], own.values(), most=3, alike=OWN_NAME)
    return nearest(name, [each for each in own if own[each] in close], alike=0)


def did_you_mean(meant: str, then: str = "") -> str:
    """``did you mean 'x'?``, nothing for an empty name, and what is said after it."""
    return " ".join(filter(None, (f"did you mean {meant!r}?" if meant else "", then)))
