"""How is a broken law reported?"""

from __future__ import annotations


class LawBroken(AssertionError):
    """A history that violates a law."""


def law(holds: object, text: str) -> None:
    """Raise LawBroken with the text unless ``holds`` is true."""
    if not holds:
        raise LawBroken(text)
