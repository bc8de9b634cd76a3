"""What does the demo's shop own?

A small SQLite file holds stock, money, shipments and mails.  Each change has a key, takes effect
once under it, and can be undone once.  A saga needs no more from the systems that it works with.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, quantity INTEGER CHECK (quantity >= 0));
CREATE TABLE IF NOT EXISTS money (account TEXT PRIMARY KEY, cents INTEGER CHECK (cents >= 0));
CREATE TABLE IF NOT EXISTS papers (key TEXT PRIMARY KEY, kind TEXT, text TEXT);
CREATE TABLE IF NOT EXISTS changes (key TEXT PRIMARY KEY, moves TEXT, undone INTEGER DEFAULT 0);
"""
SHOP_VARIABLE = "MULTIAGENTS_DEMO_SHOP"
"""The environment variable through which the worker gets the shop's file."""
WAIT_S = 10.0
"""How long one process waits for another's transaction."""


class RefusedError(Exception):
    """Stock or an account has less than a move needs."""


class Shop:
    """The shop in one SQLite file."""

    schema: ClassVar[str] = SCHEMA
    wait_s: ClassVar[float] = WAIT_S

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, *, stock: dict[str, int], money: dict[str, int]) -> None:
        """Set the stock (pieces by SKU) and the money (cents by account)."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO stock VALUES (?, ?)", stock.items())
            db.executemany("INSERT OR REPLACE INTO money VALUES (?, ?)", money.items())

    def move(self, key: str, *moves: tuple[str, str, int]) -> bool:
        """Apply moves ``(table, what, by)`` once under the key; False if the key was used before.

        Raises RefusedError, and changes nothing, if stock or an account would fall below zero.
        """
        with self._transaction() as db:
            row = db.execute("SELECT undone FROM changes WHERE key = ?", (key,)).fetchone()
            if row:
                self._note(db, "late" if row[0] else "done again", key)
                return False
            db.execute("INSERT INTO changes (key, moves) VALUES (?, ?)", (key, json.dumps(moves)))
            _apply(db, moves, sign=1)
            self._note(db, "done", key)
        return True

    def put_back(self, key: str) -> bool:
        """Reverse the moves under the key; False if there are none, or if they are reversed.

        This uses the key up: a late `move` under it does nothing.
        """
        with self._transaction() as db:
            row = db.execute("SELECT moves, undone FROM changes WHERE key = ?", (key,)).fetchone()
            moves, undone = row or ("[]", 1)
            db.execute("INSERT OR REPLACE INTO changes VALUES (?, ?, 1)", (key, moves))
            if not undone:
                _apply(db, json.loads(moves), sign=-1)
            if row:
                self._note(db, "undone again" if undone else "undone", key)
        return not undone

    def write(self, key: str, kind: str, text: str) -> None:
        """Store a paper (a shipment, a mail), once under its key."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO papers VALUES (?, ?, ?)", (key, kind, text))

    def tear(self, key: str) -> bool:
        """Delete a paper; False if there is none."""
        with self._transaction() as db:
            return db.execute("DELETE FROM papers WHERE key = ?", (key,)).rowcount > 0

    def in_stock(self, sku: str) -> int | None:
        """Pieces in stock; None for a SKU that the shop does not sell."""
        with self._transaction() as db:
            row = db.execute("SELECT quantity FROM stock WHERE sku = ?", (sku,)).fetchone()
        return None if row is None else int(row[0])

    def balance(self) -> dict[str, Any]:
        """Stock and money by name, and the number of shipments and mails."""
        with self._transaction() as db:
            papers = dict(db.execute("SELECT kind, count(*) FROM papers GROUP BY kind"))
            return {
                "stock": dict(db.execute("SELECT sku, quantity FROM stock ORDER BY sku")),
                "money": dict(db.execute("SELECT account, cents FROM money ORDER BY account")),
                "shipments": papers.get("shipment", 0),
                "mails": papers.get("mail", 0),
            }

    def _note(self, db: sqlite3.Connection, what: str, key: str) -> None:
        """Called in the transaction of each change, and when a used key absorbs a change."""

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._path, timeout=self.wait_s, isolation_level=None)
        try:
            db.executescript(self.schema)
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield db
        finally:
            db.close()


def _apply(db: sqlite3.Connection, moves: Any, *, sign: int) -> None:
    for where, what, by in moves:
        table, name, column = _TABLES[where]
        try:
            db.execute(
                f"UPDATE {table} SET {column} = {column} + ? WHERE {name} = ?",
                (sign * by, what),
            )
        except sqlite3.IntegrityError as error:
            raise RefusedError(f"not enough {where} of {what}") from error


_TABLES = {"stock": ("stock", "sku", "quantity"), "money": ("money", "account", "cents")}
