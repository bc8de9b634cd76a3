"""Which definitions does no saga use any more?

A purge marks the definition of the saga that it removes; a start removes the mark.  Before a marked
definition is removed, all sagas of the shard are searched for it: an engine that sets no marks may
have started one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from multiagents.storage import keys as k
from multiagents.storage.calls import Arg, Call, Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import hash_of, text_of

PAGE = 500
"""Sagas that one call reads."""
MOST = 1000
"""Definitions in one round; the rest follows in the next."""
UNREADABLE = "?"
AGAIN_MS = 60_000
"""When to search again if a saga cannot be read, since it may use any of them; or if the process
that searches is gone."""
REST = 50
"""The pause after a search, in multiples of its duration.  Each saga costs 5 µs of the server's
time, and a purge may mark a definition every second."""
MOST_REST_MS = 3_600_000


async def collect(shard: Shard, *, clock_ms: Callable[[], int], lease_ms: int) -> int:
    """Remove a shard's unused definitions; how many.  The next search: a lease or `REST` later."""
    began_ms = clock_ms()
    marked = dict(list((await _marked(shard)).items())[:MOST])
    if marked:
        await _hide(shard, began_ms + AGAIN_MS)
    used: set[str] = set()
    cursor = "0"
    while not marked.keys() <= used:
        cursor, found = await _uses(shard, cursor)
        used |= found
        if cursor == "0":
            break
    ended_ms = clock_ms()
    rest_ms = min(REST * (ended_ms - began_ms), MOST_REST_MS)
    if UNREADABLE in used:
        marked, rest_ms = {}, max(rest_ms, AGAIN_MS)
    return await _forget(shard, marked, used, ended_ms + max(lease_ms, rest_ms))


def _hide(shard: Shard, until_ms: int) -> Plain[int]:
    """Hide it from other sweepers during a search, which may outlast the hiding by a sweep."""
    return Plain(("ZADD", shard.due, "XX", until_ms, k.due_definitions(shard)), int)


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
