"""What is said when a law does not hold?"""

from __future__ import annotations


class LawBroken(AssertionError):
    """A history in which something happened that must never happen."""


def law(holds: object, text: str) -> None:
    """Raise LawBroken unless it holds."""
    if not holds:
        raise LawBroken(text)
