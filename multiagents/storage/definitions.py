"""Which definitions does no saga run by any more?

A purge marks the definition of the saga that it removes, a start takes the mark away.  What is
marked is looked for among all sagas of the shard before it is removed: an engine that sets no marks
may have started one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multiagents.storage import keys as k
from multiagents.storage.calls import Arg, Call, Flow, Plain, ask
from multiagents.storage.keys import Shard
from multiagents.storage.views import hash_of, text_of

PAGE = 500
"""Sagas of which one call is asked."""
MOST = 1000
"""Definitions that are dealt with at once; the rest is next."""
UNREADABLE = "?"
AGAIN_MS = 60_000
"""When to look again where a saga cannot be read: it may run by any of them."""


def collect(shard: Shard, *, now_ms: int, later_ms: int) -> Flow[int]:
    """Remove what is unused on a shard; how many.  ``later_ms``: when to look at the rest."""
    marked = dict(list((yield from ask(_marked(shard))).items())[:MOST])
    used: set[str] = set()
    cursor = "0"
    while not marked.keys() <= used:
        cursor, found = yield from ask(_uses(shard, cursor))
        used |= found
        if cursor == "0":
            break
    if UNREADABLE in used:
        used |= marked.keys()
        marked, later_ms = {}, now_ms + AGAIN_MS
    return (yield from ask(_forget(shard, marked, used, later_ms)))


def _marked(shard: Shard) -> Plain[dict[str, str]]:
    return Plain(("HGETALL", shard.unused), hash_of)


def _uses(shard: Shard, cursor: str) -> Call[tuple[str, set[str]]]:
    def parse(reply: Any) -> tuple[str, set[str]]:
        cursor, *versions = map(text_of, reply)
        return cursor, set(versions)

    return Call("uses", (shard.sagas,), (cursor, PAGE, f"{shard.tag}:saga:"), parse)


def _forget(shard: Shard, marked: Mapping[str, str], used: set[str], later_ms: int) -> Call[int]:
    rows: list[Arg] = []
    for version, mark in marked.items():
        rows += [version, mark, int(version in used)]
    keys = (shard.definitions, shard.unused, shard.due)
    return Call("forget", keys, (k.due_definitions(shard), later_ms, *rows), int)
