"""What do the indexes hold of what waits for a person?

Sagas that ask for attention and dead letters, each by since when, Unix ms.  The commits write
them (`apply` of lib.lua); here they are read, and mended where a commit of an engine without them
left a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from multiagents.core.states import SagaState
from multiagents.storage.calls import Call, Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import text_of
from multiagents.storage.sagas import pairs_of

Ages = list[tuple[str, float]]
"""Members and their scores, Unix ms."""
SCANNED = 500
"""Members that one step of a scan looks at."""


def waiting(index: str, *, until_ms: int | None, offset: int, limit: int) -> Plain[Ages]:
    """Members that wait longest first; ``until_ms``: only those that do since then or longer."""
    last = "+inf" if until_ms is None else until_ms
    place = ("LIMIT", offset, limit)
    return Plain(("ZRANGEBYSCORE", index, "-inf", last, "WITHSCORES", *place), pairs_of)


def _first(index: str, limit: int) -> Plain[Ages]:
    return waiting(index, until_ms=None, offset=0, limit=limit)


def count(index: str) -> Plain[int]:
    """How many wait."""
    return Plain(("ZCARD", index), int)


def enter(index: str, member: str, since_ms: int) -> Plain[int]:
    """List what is not listed; 1 if it was not."""
    return Plain(("ZADD", index, "NX", since_ms, member), int)


def strike(index: str, member: str, since_ms: int) -> Call[int]:
    """Take out a member, unless it has been entered anew meanwhile; 1 if it was."""
    return Call("drop", (index,), (member, since_ms, ""), int)


def scan(
    index: str, cursor: str, pattern: str = "*", *, count: int = SCANNED
) -> Plain[tuple[str, Ages]]:
    """Those of some members (about ``count``) that fit a pattern of Redis, and where to go on.

    Where that is "0" it is the end, as at the beginning.
    What is there all the time is found, once at least.
    """
    return Plain(("ZSCAN", index, cursor, "MATCH", pattern, "COUNT", count), _page)


def _page(reply: Any) -> tuple[str, Ages]:
    cursor, found = reply
    return text_of(cursor), pairs_of(found)


def has(index: str, member: str) -> Plain[bool]:
    """Whether something is listed."""
    return Plain(("ZSCORE", index, member), lambda reply: reply is not None)


def since(index: str, members: Sequence[str]) -> Plain[list[int | None]]:
    """When each of these is due, or since when it waits; None for what is not there."""
    return Plain(("ZMSCORE", index, *members), _scores)


def _scores(reply: Any) -> list[int | None]:
    return [None if score is None else int(float(score)) for score in reply]


@dataclass(frozen=True, slots=True)
class WaitingHealth:
    """What waits for a person on several shards together."""

    sagas: tuple[str, ...] = ()
    """Some of those that ask for attention or are paused, the first of each shard."""
    saga_count: int = 0
    paused_count: int = 0
    """How many of them are paused."""
    letter_count: int = 0
    oldest_ms: int | None = None
    """Since when the first dead letter waits."""


async def read_waiting(shards: Iterable[int], *, some: int = 10) -> WaitingHealth:
    """Count what waits on these shards, by the indexes alone."""
    first: Ages = []
    oldest: list[float] = []
    sagas = letters = paused = 0
    for shard in map(Shard, shards):
        sagas += await count(shard.attention)
        paused += await count(shard.state(SagaState.PAUSED))
        others = await _only_paused(shard)
        sagas += len(others)
        first += others[:some]
        letters += await count(shard.dead_letters)
        first += await _first(shard.attention, some)
        oldest += [at for _, at in await _first(shard.dead_letters, 1)]
    first.sort(key=itemgetter(1))
    names = tuple(saga_id for saga_id, _ in first)
    return WaitingHealth(names, sagas, paused, letters, int(min(oldest)) if oldest else None)


async def _only_paused(shard: Shard) -> Ages:
    """The sagas that are paused and ask for attention for no other reason, by their creation."""
    index, offset = shard.state(SagaState.PAUSED), 0
    found: Ages = []
    while True:
        page = await waiting(index, until_ms=None, offset=offset, limit=SCANNED)
        if page:
            listed = await since(shard.attention, [saga_id for saga_id, _ in page])
            found += [each for each, at in zip(page, listed, strict=True) if at is None]
        offset += SCANNED
        if len(page) < SCANNED:
            return found
