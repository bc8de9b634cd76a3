"""What does the shop own?

A small SQLite file: goods, money, parcels and mails.  A system that a saga changes must keep two
promises, and this file shows how.  A change counts once under its key, however often it is
requested.  It can be undone once, even if its outcome is unknown.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "SHOP_FILE"
"""The variable that names the file to each process."""
DEFAULT_FILE = Path(".multiagents") / "shop.sqlite"
WAIT_S = 10.0
"""How long one process waits for another's transaction."""

SCHEMA = """
CREATE TABLE holdings (name TEXT PRIMARY KEY, amount INTEGER CHECK (amount >= 0));
CREATE TABLE prices (sku TEXT PRIMARY KEY, cents INTEGER);
CREATE TABLE papers (key TEXT PRIMARY KEY, kind TEXT, text TEXT);
CREATE TABLE effects (key TEXT PRIMARY KEY, undone INTEGER DEFAULT 0);
CREATE TABLE moves (key TEXT, name TEXT, amount INTEGER);
INSERT INTO prices VALUES ('A1', 1990), ('B2', 4900);
INSERT INTO holdings VALUES
    ('stock of A1', 10), ('stock of B2', 3), ('money of Ada', 10000), ('money of the shop', 0);
"""
"""A new shop has its first goods and one customer with money (in cents)."""


class RefusedError(Exception):
    """There are not enough goods or not enough money."""


class Shop:
    """The shop in this file, which is created if missing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def price(self, sku: str) -> int | None:
        """Cents for one piece; None if the shop does not sell it."""
        with self._transaction() as db:
            row = db.execute("SELECT cents FROM prices WHERE sku = ?", (sku,)).fetchone()
        return None if row is None else int(row[0])

    def take(self, key: str, sku: str, pieces: int) -> None:
        """Take goods off the shelf, once under the key.  Raises RefusedError."""
        self._move(key, (f"stock of {sku}", -pieces))

    def pay(self, key: str, customer: str, cents: int) -> None:
        """Move money from a customer to the shop, once under the key.  Raises RefusedError."""
        self._move(key, (f"money of {customer}", -cents), ("money of the shop", cents))

    def write(self, key: str, kind: str, text: str) -> None:
        """Keep a paper (a parcel's label, a mail), once under its key."""
        with self._transaction() as db:
            if _is_new(db, key):
                db.execute("INSERT INTO papers VALUES (?, ?, ?)", (key, kind, text))

    def put_back(self, key: str) -> bool:
        """Reverse the change under the key; False if there was none, or it is reversed already.

        The key is then used up: a late change under it has no effect.
        """
        with self._transaction() as db:
            was_new = _is_new(db, key)
            row = db.execute("SELECT undone FROM effects WHERE key = ?", (key,)).fetchone()
            db.execute("UPDATE effects SET undone = 1 WHERE key = ?", (key,))
            if was_new or row[0]:
                return False
            for name, amount in db.execute("SELECT name, amount FROM moves WHERE key = ?", (key,)):
                _add(db, name, -amount)
            db.execute("DELETE FROM papers WHERE key = ?", (key,))
        return True

    def balance(self) -> dict[str, int]:
        """Everything that can be counted, by name: pieces, cents, papers."""
        with self._transaction() as db:
            holdings = dict(db.execute("SELECT name, amount FROM holdings ORDER BY rowid"))
            papers = dict(db.execute("SELECT kind, count(*) FROM papers GROUP BY kind"))
        return {**holdings, "parcels": papers.get("parcel", 0), "mails": papers.get("mail", 0)}

    def mails(self) -> list[str]:
        """The texts that were sent to customers."""
        with self._transaction() as db:
            return [text for (text,) in db.execute("SELECT text FROM papers WHERE kind = 'mail'")]

    def _move(self, key: str, *moves: tuple[str, int]) -> None:
        with self._transaction() as db:
            if not _is_new(db, key):
                return
            for name, amount in moves:
                _add(db, name, amount)
                db.execute("INSERT INTO moves VALUES (?, ?, ?)", (key, name, amount))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; one process at a time, which is the lock that a shop needs."""
        db = sqlite3.connect(self._path, timeout=WAIT_S, isolation_level=None)
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                    for statement in SCHEMA.split(";"):
                        db.execute(statement)
                yield db
        finally:
            db.close()


def open_shop() -> Shop:
    """The shop that SHOP_FILE names; without it one in .multiagents/."""
    path = Path(os.environ.get(VARIABLE) or DEFAULT_FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Shop(path)


def _is_new(db: sqlite3.Connection, key: str) -> bool:
    """True if the key is new; marks it as used."""
    return db.execute("INSERT OR IGNORE INTO effects (key) VALUES (?)", (key,)).rowcount == 1


def _add(db: sqlite3.Connection, name: str, amount: int) -> None:
    change = "UPDATE holdings SET amount = amount + ? WHERE name = ?"
    try:
        known = db.execute(change, (amount, name)).rowcount
    except sqlite3.IntegrityError as error:
        raise RefusedError(f"not enough {name.replace(' of ', ' left of ', 1)}") from error
    if not known:
        raise RefusedError(f"the shop knows no {name}")
