"""How is a server itself?

Reads only, each as a value to be run by an edge: what INFO and CONFIG tell, and how much is due.
Servers that are rented often forbid CONFIG; that is an answer, not an error.
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
"""What is asked of CONFIG."""

YEAR_MS = 366 * 86_400_000
"""More than any time-out, back-off or deadline may be."""
LATEST_MS = {"d": 2 * 3600_000, "o": 31 * 86_400_000, "x": 10 * YEAR_MS}
"""How far in the future a due member can be meant to be, by its letter; others a year."""
LOOKED_AT = 10_000
"""Members of a shard at which is looked for strays."""

DENIED = AuthenticationError
"""The server is there and does not let us in."""
REFUSED = ResponseError
"""The server is there and refuses one command."""


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """What the server says of itself."""

    info: dict[str, str]
    """Of INFO, all sections; empty if that is forbidden."""
    config: dict[str, str] = field(default_factory=dict)
    """Those of `PARAMETERS` that CONFIG GET told."""
    refused: tuple[str, ...] = ()
    """Commands that the server does not allow us."""

    def setting(self, name: str) -> str | None:
        """A server's parameter, as CONFIG or else INFO tells it; None if neither does."""
        if name in self.config:
            return self.config[name]
        if name == "appendonly" and "aof_enabled" in self.info:
            return "yes" if self.info["aof_enabled"] == "1" else "no"
        return self.info.get(name.replace("-", "_"))

    def number(self, name: str) -> int:
        """A number of INFO; 0 if it is not told."""
        text = self.info.get(name, "0")
        return int(text) if text.lstrip("-").isdigit() else 0


@dataclass(frozen=True, slots=True)
class DueHealth:
    """The due sets of several shards together; times are Unix milliseconds."""

    members: int = 0
    overdue: int = 0
    oldest_ms: int | None = None
    """When the oldest member was or will be due."""
    stray: tuple[tuple[str, int], ...] = ()
    """Members that are due later than anything puts them off, with their times, the first first."""


async def read_server(*, key: str = "") -> ServerHealth:
    """Ask a server about itself: of several the one that has this key, by default the first."""
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
    """What INFO tells, likewise; None if that is forbidden."""
    return await _allowed(Plain(("INFO",), _info, key))


async def read_due(shards: Iterable[int], now_ms: int) -> DueHealth:
    """Count what is due on these shards and what should have been done by ``now_ms``."""
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
    """Sagas that are listed and not there, among the newest ``each`` of each state and shard."""
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
    """The client parses INFO by itself; its numbers become text again, as CONFIG's are."""
    return {text_of(name): text_of(value) for name, value in reply.items()}


def _scores(reply: Any) -> list[int]:
    if not reply:
        return []
    pair = reply[0] if isinstance(reply[0], list | tuple) else reply
    return [int(float(pair[1]))]


@dataclass(frozen=True, slots=True)
class Sweeps:
    """How the sweeps of a shard go; see sweep.lua."""

    last_ms: int = 0
    """Of the last one, Unix ms, or a little before."""
    grace_ms: int = 0
    """Until then leases stand that had run out in a gap."""

    def gives_a_term(self, now_ms: int, lease_ms: int) -> bool:
        """Whether leases that have run out stand for one more term: there was, or is, a gap."""
        return now_ms < self.grace_ms or now_ms - self.last_ms > lease_ms / 2


def sweeps(shard: Shard) -> Plain[Sweeps]:
    """Read only."""
    return Plain(("HMGET", shard.tick, "at", "grace"), _sweeps)


def _sweeps(reply: Any) -> Sweeps:
    return Sweeps(*(int(float(text or 0)) for text in reply))
