"""What does the store answer?

The replies of the saga scripts as values; payloads stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from multiagents.core.entries import Entry, decode

Known = tuple[str, str]
"""The version and cursor of a state that the reader has: ``("", "")`` for none."""
NOTHING: Known = ("", "")


@dataclass(frozen=True, slots=True)
class View:
    """What a decision over a saga needs.

    ``head``, ``steps`` (rows by step, changed ones only) and ``definition`` are None for a reader
    that knew this version, or one of the last before it: then ``passed`` are the entries that
    others have decided over since.  ``values`` is None where no condition reads any.
    """

    version: str
    cursor: str
    entries: tuple[Entry, ...]
    last: str
    """Log id of the last of ``entries``, or the cursor."""
    passed: tuple[Entry, ...] = ()
    definition: str | None = None
    head: list[Any] | None = None
    steps: dict[str, list[Any]] | None = None
    values: dict[str, Any] | None = None


GONE = "gone"
"""The saga does not exist."""
MOVED = "moved"
"""A guard did not hold: what was to be acted on has changed."""


def text_of(reply: Any) -> str:
    """A reply as text."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def text_or_none(reply: Any) -> str | None:
    """A reply as text; None for what is not there."""
    return None if reply is None else text_of(reply)


def hash_of(reply: Any) -> dict[str, str]:
    """A reply to HGETALL as text, in either protocol of Redis."""
    flat = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {text_of(name): text_of(value) for name, value in flat}


def _log_id(value: Any) -> tuple[int, int]:
    ms, number = text_of(value).split("-")
    return int(ms), int(number)


def parse_view(reply: Any) -> View | str:
    """A view, or GONE or MOVED."""
    if reply == 0:
        return GONE
    if reply == 1:
        return MOVED
    version, cursor, log, definition, head, steps, values = reply
    at = _log_id(cursor)
    entries = [decode(entry) for entry in log[1::2]]
    behind = sum(1 for log_id in log[::2] if _log_id(log_id) <= at)
    return View(
        version=text_of(version),
        cursor=text_of(cursor),
        entries=tuple(entries[behind:]),
        last=text_of(log[-2]) if len(entries) > behind else text_of(cursor),
        passed=tuple(entries[:behind]),
        definition=text_of(definition) if definition else None,
        head=json.loads(head) if head else None,
        steps=json.loads(steps) if steps else None,
        values=json.loads(values) if values else None,
    )


@dataclass(frozen=True, slots=True)
class Committed:
    """The decision stands.

    ``more`` says that the log holds entries it did not see, ``cursor`` how far it goes.
    """

    more: bool
    cursor: str


def parse_committed(reply: Any) -> Committed | View | str:
    """What a commit answers: done, the view of whoever was faster, or GONE."""
    if reply == 0:
        return GONE
    return Committed(bool(reply[0]), text_of(reply[1])) if len(reply) == 2 else parse_view(reply)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that holds: the definition, the saga's head, the step's row and its data."""

    definition: str
    head: list[Any]
    step: list[Any]
    data: tuple[str | None, ...]


def parse_claim(reply: Any) -> Claim | None:
    """The claim, or None if there is nothing to claim."""
    if reply == 0:
        return None
    definition, head, step, *data = reply
    return Claim(
        definition=text_of(definition),
        head=json.loads(head),
        step=json.loads(step) if step else [],
        data=tuple(None if item is None else text_of(item) for item in data),
    )
