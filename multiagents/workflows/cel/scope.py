"""Which names does an evaluation read, and how many operations may it use?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MOST_OPERATIONS = 2_000_000
"""About a second of pure Python: enough to visit every element of the largest result."""


class TooCostly(Exception):
    """The limit of operations is reached; no operator absorbs this error."""


class Scope:
    """The names that an evaluation reads, and the operations that it has left."""

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
