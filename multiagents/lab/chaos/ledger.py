"""Which effects has the chaos shop had, and how often did a key prevent a second one?

The ledger is the demo's shop with a journal.  The journal has a row for each change and for each
change that a key absorbed, written in the same transaction.  A row names the saga and the step
beside the key, so the audit sees an effect under two keys.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from multiagents.cli.demo import store

LEDGER_VARIABLE = "MULTIAGENTS_CHAOS_LEDGER"
"""The environment variable through which workers get the ledger's file."""
ABSORBED = ("done again", "late", "undone again")
"""The journal's words for a change that a key absorbed; ``late``: done after its undo."""
# Writes survive SIGKILL in the page cache; only a crash of the host would need synchronous ones.
JOURNAL = """
PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS journal (
    number INTEGER PRIMARY KEY, what TEXT, key TEXT, saga TEXT, step TEXT, attempt INTEGER,
    at_ms INTEGER);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the journal."""

    what: str
    key: str
    saga: str
    step: str


@dataclass(frozen=True, slots=True)
class Books:
    """The whole ledger: ``changes`` are (key, moves, is undone)."""

    journal: list[Row]
    changes: list[tuple[str, list[tuple[str, str, int]], bool]]
    balance: dict[str, dict[str, int]]


class Ledger(store.Shop):
    """The shop for one attempt of a step, or for the audit."""

    schema: ClassVar[str] = store.SCHEMA + JOURNAL
    wait_s: ClassVar[float] = 60.0
    """A worker may be frozen in the middle of its transaction."""

    def __init__(self, path: Path, *, saga: str = "", step: str = "", attempt: int = 0) -> None:
        super().__init__(path)
        self._who = (saga, step, attempt)

    def share(self) -> None:
        """Let many processes write at once; called once for the file."""
        db = sqlite3.connect(self._path)
        try:
            db.execute("PRAGMA journal_mode = WAL")
        finally:
            db.close()

    def books(self) -> Books:
        """The whole ledger as it is now."""
        balance = self.balance()
        with self._transaction() as db:
            journal = db.execute("SELECT what, key, saga, step FROM journal ORDER BY number")
            rows = [Row(*row) for row in journal]
            changes = db.execute("SELECT key, moves, undone FROM changes").fetchall()
        return Books(
            rows,
            [(key, _moves(text), bool(undone)) for key, text, undone in changes],
            {"stock": balance["stock"], "money": balance["money"]},
        )

    def _note(self, db: sqlite3.Connection, what: str, key: str) -> None:
        row = (what, key, *self._who, time.time_ns() // 1_000_000)
        db.execute(
            "INSERT INTO journal (what, key, saga, step, attempt, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )


def _moves(text: str) -> list[tuple[str, str, int]]:
    found: list[Any] = json.loads(text)
    return [(str(where), str(what), int(by)) for where, what, by in found]
