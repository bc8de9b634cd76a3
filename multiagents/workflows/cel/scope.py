"""What does an evaluation read, and how much may it do?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MOST_OPERATIONS = 2_000_000
"""About a second of pure Python: every element of the largest result can be looked at."""


class TooCostly(Exception):
    """The limit of operations is reached; nothing absorbs this."""


class Scope:
    """The names that an evaluation reads, and what it may still spend."""

    __slots__ = ("bound", "left", "names")

    def __init__(self, names: Mapping[str, Any], operations: int = MOST_OPERATIONS) -> None:
        self.names = names
        self.bound: dict[str, Any] = {}
        self.left = operations

    def spend(self, operations: int) -> None:
        """Count operations.  Raises TooCostly."""
        self.left -= operations
        if self.left < 0:
            raise TooCostly


Run = Callable[[Scope], Any]
