"""How is a rule broken in one place?"""

from __future__ import annotations

from dataclasses import dataclass

LUA = "multiagents/storage/lua/"
STORE, FLOWS = "tests/store/test_store.py::test_", "tests/flows/test_"
LAWS, SIMULATION = "tests/laws/test_", "tests/simulation/test_"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule broken in one place; ``test`` must fail because of it."""

    rule: str
    file: str
    old: str
    new: str
    test: str
