"""Which replies do the saga scripts have?

They are parsed into values; payloads stay text.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiagents.core.entries import Entry, decode
from multiagents.core.json_text import loads
from multiagents.storage.commit import RefusedWrite

Known = tuple[str, str]
"""The version and cursor of the state that a reader has: ``("", "")`` for none."""
NOTHING: Known = ("", "")


@dataclass(frozen=True, slots=True)
class View:
    """The data that a decision over a saga needs.

    A reader may have this version, or one of the last before it.  Then ``head``, ``steps`` (rows of
    changed steps) and ``definition`` are None, and ``passed`` has the entries that other processes
    have decided since.  ``values`` is None if no condition reads any.
    """

    version: str
    cursor: str
    entries: tuple[Entry, ...]
    last: str
    """Position of the last of ``entries``, or the cursor."""
    texts: tuple[str, ...] = ()
    """``entries`` as they stand in the log."""
    passed: tuple[Entry, ...] = ()
    definition: str | None = None
    head: list[Any] | None = None
    steps: dict[str, list[Any]] | None = None
    values: dict[str, Any] | None = None


VIEW_PARTS = 8
GONE = "gone"
"""The saga does not exist."""
MOVED = "moved"
"""A guard did not hold: the item has changed since it was found."""


def text_of(reply: Any) -> str:
    """A reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def text_or_none(reply: Any) -> str | None:
    """A reply as text; None for a missing value."""
    return None if reply is None else text_of(reply)


def hash_of(reply: Any) -> dict[str, str]:
    """A reply to HGETALL as text, in either protocol of Redis."""
    flat = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {text_of(name): text_of(value) for name, value in flat}


def parse_view(reply: Any) -> View | str:
    """A view, or GONE or MOVED."""
    if reply == 0:
        return GONE
    if reply == 1:
        return MOVED
    version, cursor, before, log, definition, head, steps, values = reply
    entries = [decode(entry) for entry in log]
    behind = int(cursor) - int(before)
    return View(
        version=text_of(version),
        cursor=text_of(cursor),
        entries=tuple(entries[behind:]),
        last=str(max(int(cursor), int(before) + len(entries))),
        texts=tuple(map(text_of, log[behind:])),
        passed=tuple(entries[:behind]),
        definition=text_of(definition) if definition else None,
        head=loads(head) if head else None,
        steps=loads(steps) if steps else None,
        values=json.loads(values) if values else None,
    )


@dataclass(frozen=True, slots=True)
class End:
    """A saga at its end: its version, and the log as texts.

    ``data``: the fields of the data hash for the outcome and the waiters.  ``log``: None if it is
    not read yet.  ``owed``: the outbox value that stands until the outcome is delivered; "" = none.
    """

    version: str
    data: dict[str, str]
    log: tuple[str, ...] | None
    owed: str = ""


def log_of(items: Sequence[Any]) -> tuple[str, ...]:
    """The entries of a log; its first item may hold many of them, made by `packed`.

    An entry is a JSON array, so the item's first byte shows which it is.  A reader needs no other
    value, which may have changed meanwhile.
    """
    if not items or items[0][:1] == b"[":
        return tuple(map(text_of, items))
    return (*zlib.decompress(items[0]).decode().split("\n"), *map(text_of, items[1:]))


def packed(log: Sequence[str]) -> bytes:
    """A log as one value; entries hold no line breaks."""
    return zlib.compress("\n".join(log).encode())


@dataclass(frozen=True, slots=True)
class Committed:
    """The decision is written.

    ``more``: the log has entries after the decision.  ``cursor``: the last decided position.
    """

    more: bool
    cursor: str
    end: End | None = None
    """The data for delivering the outcome, if that is due now."""
    refused: tuple[RefusedWrite, ...] = ()
    """Letters that their queues refused; none if the reply was lost."""


def parse_committed(reply: Any) -> Committed | View | str:
    """The reply of a commit: done, the view after a faster process, or GONE."""
    if reply == 0:
        return GONE
    if len(reply) == VIEW_PARTS:
        return parse_view(reply)
    more, cursor, *end = reply
    refused = refused_of(end.pop()) if len(end) % 3 else ()
    return Committed(bool(more), text_of(cursor), _end(*end) if end else None, refused)


def refused_of(flat: Sequence[Any]) -> tuple[RefusedWrite, ...]:
    """The writes of a script that the server refused: field, key, error, field, …"""
    texts = iter(map(text_of, flat))
    return tuple(RefusedWrite(*row) for row in zip(texts, texts, texts, strict=True))


def _end(version: Any, data: Any, items: list[Any] | int) -> End:
    log = None if isinstance(items, int) else log_of(items)
    return End(text_of(version), hash_of(data), log)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that holds: the definition, the saga's head, the step's row and its data.

    ``view``: the saga's state, if it was requested and is not large.
    """

    view: View | None
    definition: str
    head: list[Any]
    step: list[Any]
    data: tuple[str | None, ...]


def parse_claim(reply: Any) -> Claim | None:
    """The claim, or None if there is nothing to claim."""
    if reply == 0:
        return None
    state, definition, head, step, *data = reply
    view = parse_view(state) if state else None
    return Claim(
        view=view if isinstance(view, View) else None,
        definition=text_of(definition),
        head=loads(head),
        step=loads(step) if step else [],
        data=tuple(None if item is None else text_of(item) for item in data),
    )


def deadline_of(value: str | None, nonce: str) -> int:
    """The deadline of the claim with this nonce, Unix ms; 0: none, or another nonce."""
    if value is None:
        return 0
    _, holder, deadline_ms, _ = value.split("|", 3)
    return int(deadline_ms) if holder == nonce else 0
