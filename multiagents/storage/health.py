"""How healthy is a server?

Reads only, each a value that an edge runs: INFO, CONFIG, and the due sets.  Hosted servers often
forbid CONFIG; that is an answer, not an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError, ResponseError

from multiagents.core.states import SagaState
from multiagents.storage.calls import Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import hash_of, text_of
from multiagents.storage.sagas import pairs_of

T = TypeVar("T")

PARAMETERS = (
    "appendonly",
    "appendfsync",
    "maxmemory",
    "maxmemory-policy",
    "save",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
)
"""The parameters that are read from CONFIG."""

YEAR_MS = 366 * 86_400_000
"""Longer than any timeout, backoff or deadline may be."""
LATEST_MS = {"d": 2 * 3600_000, "o": 31 * 86_400_000, "x": 10 * YEAR_MS}
"""The latest intended time of a due member, from now, by its letter; others a year."""
LOOKED_AT = 10_000
"""Members of a shard that a search for strays reads."""

DENIED = AuthenticationError
"""The server answers and rejects the credentials."""
REFUSED = ResponseError
"""The server answers and refuses one command."""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """A server's own figures and settings."""

    info: dict[str, str]
    """All sections of INFO; empty if that is forbidden."""
    config: dict[str, str] = field(default_factory=dict)
    """The values of `PARAMETERS` that CONFIG GET returned."""
    refused: tuple[str, ...] = ()
    """Commands that the server forbids."""

    def setting(self, name: str) -> str | None:
        """A server's parameter from CONFIG, else from INFO; None if neither has it."""
        if name in self.config:
            return self.config[name]
        if name == "appendonly" and "aof_enabled" in self.info:
            return "yes" if self.info["aof_enabled"] == "1" else "no"
        return self.info.get(name.replace("-", "_"))

    def number(self, name: str) -> int:
        """A number of INFO; 0 if INFO lacks it."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0


@dataclass(frozen=True, slots=True)
class DueHealth:
    """The due sets of several shards together; times are Unix milliseconds."""

    members: int = 0
    overdue: int = 0
    oldest_ms: int | None = None
    """The time of the first due member."""
    stray: tuple[tuple[str, int], ...] = ()
    """Members that are due later than any legal time, with their times, earliest first."""


async def read_server(*, key: str = "") -> ServerHealth:
    """Read the health of the server that has this key; by default of the first."""
    refused = []
    info = await read_info(key=key)
    if info is None:
        refused.append("INFO")
    config: dict[str, str] = {}
    for name in PARAMETERS:
        told = await _allowed(Plain(("CONFIG", "GET", name), hash_of, key))
        if told is None:
            refused.append("CONFIG")
            break
        config.update(told)
    return ServerHealth(info or {}, config, tuple(refused))


async def read_info(*, key: str = "") -> dict[str, str] | None:
    """The reply to INFO, likewise; None if that is forbidden."""
    return await _allowed(Plain(("INFO",), _info, key))


async def read_due(shards: Iterable[int], now_ms: int) -> DueHealth:
    """Count the due members of these shards, and those overdue at ``now_ms``."""
    members = overdue = 0
    oldest: list[int] = []
    stray: list[tuple[str, int]] = []
    for shard in map(Shard, shards):
        members += await Plain(("ZCARD", shard.due), int)
        overdue += await Plain(("ZCOUNT", shard.due, "-inf", now_ms), int)
        command = ("ZRANGE", shard.due, 0, 0, "WITHSCORES")
        oldest += await Plain(command, _scores)
        soon_ms = now_ms + min(LATEST_MS.values())
        far = ("ZRANGEBYSCORE", shard.due, soon_ms, "+inf", "WITHSCORES", "LIMIT", 0, LOOKED_AT)
        found = await Plain(far, pairs_of)
        stray += [(member, int(at)) for member, at in found if at > now_ms + _latest_ms(member)]
    stray.sort(key=itemgetter(1))
    return DueHealth(members, overdue, min(oldest, default=None), tuple(stray))


def _latest_ms(member: str) -> int:
    return LATEST_MS.get(member[:1], YEAR_MS)


async def read_missing(shards: Iterable[int], *, each: int) -> list[str]:
    """Sagas that are listed but missing, among the newest ``each`` of each state and shard."""
    found: list[str] = []
    for shard in map(Shard, shards):
        for state in SagaState:
            listed = await Plain(("ZREVRANGE", shard.state(state), 0, each - 1), _texts)
            keys = [f"{shard.tag}:saga:{saga_id}" for saga_id in listed]
            if not keys or await Plain(("EXISTS", *keys), int) == len(keys):
                continue
            for saga_id, key in zip(listed, keys, strict=True):
                if not await Plain(("EXISTS", key), int):
                    found.append(saga_id)
    return found


def _texts(reply: Any) -> list[str]:
    return [text_of(item) for item in reply]


async def _allowed(operation: Plain[T]) -> T | None:
    try:
        return await operation
    except ResponseError:  # NOPERM, or a command that this server has renamed away
        return None


def _info(reply: Any) -> dict[str, str]:
    """INFO as text: the client parses its numbers, and CONFIG's stay text."""
    return {text_of(name): text_of(value) for name, value in reply.items()}


def _scores(reply: Any) -> list[int]:
    if not reply:
        return []
    pair = reply[0] if isinstance(reply[0], list | tuple) else reply
    return [int(float(pair[1]))]


@dataclass(frozen=True, slots=True)
class Sweeps:
    """The state of a shard's sweeps; see sweep.lua."""

    last_ms: int = 0
    """The time of the last sweep, Unix ms, or a little earlier."""
    grace_ms: int = 0
    """Until then, leases that expired in a gap stay valid."""

    def gives_a_term(self, now_ms: int, lease_ms: int) -> bool:
        """Whether expired leases stay valid for one more term: there was, or is, a gap."""
        return now_ms < self.grace_ms or now_ms - self.last_ms > lease_ms / 2


def sweeps(shard: Shard) -> Plain[Sweeps]:
    """Read only."""
    return Plain(("HMGET", shard.tick, "at", "grace"), _sweeps)


def _sweeps(reply: Any) -> Sweeps:
    return Sweeps(*(int(float(text or 0)) for text in reply))
