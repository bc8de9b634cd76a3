"""What do the indexes of dead letters and attention hold?

Sagas that ask for attention, and dead letters, each by the time since which it waits, Unix ms.
Commits write them (`apply` of lib.lua).  This module reads them, and fills gaps that the commits of
an older engine left.
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
    """Members, longest waiting first; ``until_ms``: only those that wait since then or longer."""
    last = "+inf" if until_ms is None else until_ms
    place = ("LIMIT", offset, limit)
    return Plain(("ZRANGEBYSCORE", index, "-inf", last, "WITHSCORES", *place), pairs_of)


def _first(index: str, limit: int) -> Plain[Ages]:
    return waiting(index, until_ms=None, offset=0, limit=limit)


def count(index: str) -> Plain[int]:
    """The number of members."""
    return Plain(("ZCARD", index), int)


def enter(index: str, member: str, since_ms: int) -> Plain[int]:
    """Add a member unless it is there; 1 if it was added."""
    return Plain(("ZADD", index, "NX", since_ms, member), int)


def strike(index: str, member: str, since_ms: int) -> Call[int]:
    """Remove a member, unless it was entered anew meanwhile; 1 if it was removed."""
    return Call("drop", (index,), (member, since_ms, ""), int)


def scan(
    index: str, cursor: str, pattern: str = "*", *, count: int = SCANNED
) -> Plain[tuple[str, Ages]]:
    """The next cursor, and those of about ``count`` members that match a Redis pattern.

    The cursor "0" is the beginning, and the end.  A scan returns each member that is there all the
    time at least once.
    """
    return Plain(("ZSCAN", index, cursor, "MATCH", pattern, "COUNT", count), _page)


def _page(reply: Any) -> tuple[str, Ages]:
    cursor, found = reply
    return text_of(cursor), pairs_of(found)


def has(index: str, member: str) -> Plain[bool]:
    """Whether an index has a member."""
    return Plain(("ZSCORE", index, member), lambda reply: reply is not None)


def since(index: str, members: Sequence[str]) -> Plain[list[int | None]]:
    """The scores of members: since when each waits, or when it is due; None for a missing one."""
    return Plain(("ZMSCORE", index, *members), _scores)


def _scores(reply: Any) -> list[int | None]:
    return [None if score is None else int(float(score)) for score in reply]


@dataclass(frozen=True, slots=True)
class WaitingHealth:
    """The sagas and dead letters that wait for an operator on several shards together."""

    sagas: tuple[str, ...] = ()
    """Some sagas that ask for attention or are paused, the first of each shard."""
    saga_count: int = 0
    paused_count: int = 0
    """The number of paused sagas."""
    letter_count: int = 0
    oldest_ms: int | None = None
    """The time since which the oldest dead letter waits."""


async def read_waiting(shards: Iterable[int], *, some: int = 10) -> WaitingHealth:
    """Count what waits on these shards, from the indexes alone."""
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
    """The sagas that are paused and do not ask for attention, by their creation."""
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
