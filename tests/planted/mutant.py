"""What is a rule broken in one place?"""

from __future__ import annotations

from dataclasses import dataclass

LUA = "multiagents/storage/lua/"
STORE, LAWS = "tests/test_store.py::test_", "tests/laws/test_"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule broken in one place; ``test`` is to notice it."""

    rule: str
    file: str
    old: str
    new: str
    test: str
