"""Is a saga damaged, and how is a damaged one removed?

A saga has a hash, data, a log and the ids of its log.  It has a work hash while work is left.  An
older engine, an operator or another program may have changed these keys.  The check finds that
without reading their contents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from multiagents.core.states import SagaState
from multiagents.storage import dead_letter_index
from multiagents.storage import keys as k
from multiagents.storage.calls import Arg, Call, Plain
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.replies import hash_of, text_of

SCANNED = 1000
"""Keys or members that one step of a search looks at."""
_PARTS = (
    ("hash", "hash"),
    ("work", "hash"),
    ("data", "hash"),
    ("log", "list"),
    ("ids", "set"),
)
"""The names of a saga's keys, and their types."""
_FIELDS = ("version", "cursor", "definition", "state")
"""The fields that its hash must have."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The condition of a saga's keys."""

    problems: tuple[str, ...]
    """The damage; empty if the saga is sound, and if no key exists."""
    there: bool
    """Whether any of its keys exists."""
    listed: bool
    """Whether the index of all sagas has it."""


def examine(saga: SagaKeys) -> Call[Examined]:
    """Check a saga's keys; reads only."""
    keys = (*saga.all, saga.shard.sagas, saga.shard.definitions)
    return Call("examine", keys, (saga.id,), _examined)


def _examined(reply: Any) -> Examined:
    types = [text_of(each) for each in reply[:5]]
    items, listed, *fields = reply[5], *map(text_of, reply[6:])
    there = any(each != "none" for each in types)
    problems = [*_of_types(types), *_of_hash(types, int(items), fields)] if there else []
    return Examined(tuple(problems), there, bool(listed))


def _of_types(types: Sequence[str]) -> list[str]:
    found = []
    for (name, wanted), kind in zip(_PARTS, types, strict=True):
        if kind == "none" and name != "work":
            found.append(f"its {name} is missing")
        elif kind not in ("none", wanted):
            found.append(f"its {name} is a {kind}, and has to be a {wanted}")
    return found


def _of_hash(types: Sequence[str], items: int, fields: Sequence[str]) -> list[str]:
    if types[0] != "hash":
        return []
    found = [
        f"its hash has no {name}" for name, text in zip(_FIELDS, fields, strict=False) if not text
    ]
    cursor, packed = fields[1], fields[4]
    end = items + (int(packed) - 1 if packed.isdigit() else 0)
    version, stored = fields[2], fields[5]
    if version and not stored:
        found.append(f"its definition {version} is not stored")
    if not found and types[3] == "list" and not (cursor.isdigit() and int(cursor) <= end):
        found.append(f"its log has {end} entries, and {cursor} were decided over")
    return found


@dataclass(frozen=True, slots=True)
class Traces:
    """Entries of a saga outside its own keys."""

    indexes: tuple[str, ...]
    due: tuple[str, ...]
    dead_letters: tuple[str, ...]
    aliases: tuple[str, ...]
    """Celery ids of starts that have joined it."""


async def find(saga: SagaKeys) -> Traces:
    """Search a shard for all entries of a saga; slow with many keys."""
    shard, name = saga.shard, escaped(saga.id)
    indexes = [shard.sagas, shard.attention, *map(shard.state, SagaState)]
    for pattern in (shard.workflow("*"), shard.labelled("*")):
        indexes += await _keys(shard, pattern)
    due = await _members(saga.due, f"?|{name}*")
    mine = (f"|{saga.id}", f"|{saga.id}|")
    due = [each for each in due if each[1:] == mine[0] or each[1:].startswith(mine[1])]
    letters = await _members(shard.dead_letters, f"*|{name}")
    joined = await _aliases(shard, saga.id)
    return Traces(tuple(indexes), tuple(due), tuple(letters), tuple(joined))


def remove(saga: SagaKeys, traces: Traces, *, now_ms: int, again: bool = False) -> Call[int]:
    """Remove a saga and its traces; returns the number of its own keys.

    The next sweep checks its definition.  ``again``: the saga was removed before, so a missing hash
    does not make its definition unknown.
    """
    shard = saga.shard
    keys = (*saga.all, shard.dead_letters, shard.stuck, shard.aliases, shard.definitions)
    keys = (*keys, shard.unused, *traces.indexes)
    args: tuple[Arg, ...] = (saga.id, k.due_definitions(shard), now_ms, "" if again else 1)
    for members in (traces.due, traces.dead_letters, traces.aliases):
        args = (*args, len(members), *members)
    return Call("remove", keys, args, int)


async def _keys(shard: Shard, pattern: str) -> list[str]:
    cursor, found = "0", []
    while True:
        command = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCANNED)
        cursor, page = await Plain(command, _page, shard.sagas)
        found += page
        if cursor == "0":
            return sorted(set(found))


def _page(reply: Any) -> tuple[str, list[str]]:
    cursor, page = reply
    return text_of(cursor), [text_of(each) for each in page]


async def _aliases(shard: Shard, saga_id: str) -> list[str]:
    cursor, found = "0", []
    while True:
        command = ("HSCAN", shard.aliases, cursor, "COUNT", SCANNED)
        cursor, page = await Plain(command, _pairs)
        found += [task_id for task_id, owner in page.items() if owner == saga_id]
        if cursor == "0":
            return sorted(set(found))


def _pairs(reply: Any) -> tuple[str, dict[str, str]]:
    cursor, page = reply
    return text_of(cursor), hash_of(page)


async def _members(index: str, pattern: str) -> list[str]:
    cursor, found = "0", []
    while True:
        cursor, page = await dead_letter_index.scan(index, cursor, pattern)
        found += [member for member, _ in page]
        if cursor == "0":
            return sorted(set(found))


def escaped(text: str) -> str:
    """A Redis pattern that matches only this text."""
    return re.sub(r"([*?\[\]^\\-])", r"\\\1", text)
