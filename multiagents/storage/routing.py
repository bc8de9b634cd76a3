"""On which server does a saga live, and how is a flow run when there are several?

Shard n is always on server n modulo their count.  Flows do not depend on servers: the edge reads
the shard from the first key of each operation.  Data that spans sagas (the catalog, circuit
breakers) is on the first server.

Rules: a single server gets a plain `Edge`, which routes nothing and costs nothing extra.  The error
names a server that does not answer, without its password.  Such a server affects only its own
shards.  The first server that answers corrects the clocks: one clock judges all leases, whichever
server stores them.  So the servers' own clocks may differ while it is up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from multiagents.core.clock import Clock
from multiagents.core.exceptions import NoServer, NotWritable
from multiagents.core.settings import REDIS_URL, STATE_URLS, Home, Settings, shown_url
from multiagents.core.texts import joined
from multiagents.storage.calls import Call, Plain
from multiagents.storage.client import (
    BROKEN,
    RETRIES,
    TIMEOUT_S,
    AsyncEdge,
    Edge,
    NothingDone,
    Perform,
    WritesRefused,
)
from multiagents.storage.keys import Shard
from multiagents.storage.outages import reason_of

E = TypeVar("E", bound=Edge | AsyncEdge)

MANY_S = 2.0
"""How long `many` waits for a silent server: it must not delay a renewal of leases."""

CORRECT_S = 1.0
"""How long one server may take to return the time; a process starts no work before that."""


class ServerAway(RedisConnectionError):
    """One server of several does not answer; ``server`` is its URL as it may be shown."""

    server = ""


def away(url: str, shards: Sequence[int], total: int, error: BaseException) -> ServerAway:
    """The error that names the server, and how many shards are on it."""
    shown = shown_url(url)
    message = (
        f"no server answers at {shown} ({type(error).__name__}), which holds {len(shards)} of"
        f" {total} shards"
    )
    found = ServerAway(message)
    found.server = shown
    return found


def told(edge: Edge, error: BaseException) -> str:
    """The server that is away or refuses, and the reason, without its password."""
    if isinstance(error, ServerAway | NothingDone):
        return str(error)
    return told_at(edge.url, error)


def told_at(url: str, error: BaseException) -> str:
    """The meaning of an error of the server at a URL, without its password."""
    if isinstance(error, NothingDone):
        return str(error)
    if isinstance(error, AuthenticationError):
        return f"the server at {shown_url(url)} rejects the user or password"
    return f"no server answers at {shown_url(url)} ({type(error).__name__})"


def no_server(home: Home, error: BaseException, tried_s: float, *, hint: str = "") -> NoServer:
    """The error of a program that cannot reach its sagas: which server, why, and what to do.

    Raise it ``from None``: it has all facts of its cause.  ``hint``: another possible reason, a
    clause.
    """
    if isinstance(error, WritesRefused):
        return NotWritable(f"{error}; nothing was stored: see `multiagents doctor`")
    if isinstance(error, NothingDone):
        return NoServer(f"{error}; nothing was stored: try again")
    if isinstance(error, ServerAway):
        return NoServer(f"{error}; the sagas on it wait for it, the others go on")
    fix = f"{'set' if home.named_by in (REDIS_URL, STATE_URLS) else 'correct'} {home.named_by}"
    where, why = shown_url(home.url), f"({reason_of(error)}, tried for {tried_s:.1f} s)"
    return NoServer(joined(f"no Redis answers at {where} {why}", hint, f"start one, or {fix}"))


def open_edge(
    settings: Settings,
    *,
    perform: Perform,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
) -> Edge:
    """The edge to the servers of these settings; connects to nothing yet."""
    options: dict[str, Any] = {"perform": perform, "timeout_s": timeout_s, "retries": retries}
    if not settings.state_urls:  # the app may not have loaded its URL yet
        return Edge(lambda: settings.home.url, shards=range(settings.shards), **options)
    servers = settings.servers
    if len(servers) == 1:
        ((url, shards),) = servers.items()
        return Edge(url, shards=shards, **options)
    return RoutedEdge(servers, **options)


def open_async_edge(settings: Settings, *, perform: Perform) -> AsyncEdge:
    """Likewise for an event loop."""
    servers = settings.servers
    if len(servers) == 1:
        return AsyncEdge(next(iter(servers)), perform=perform)
    return AsyncRoutedEdge(servers, perform=perform)


class _Homes(dict[str, E]):
    """Tag of a key, up to its closing brace -> the edge to the server of that shard."""

    def __init__(self, servers: Mapping[str, Sequence[int]], make: Callable[[str], E]) -> None:
        super().__init__()
        self.servers = servers
        self.edges = [make(url) for url in servers]
        self.first = self.edges[0]
        for edge, shards in zip(self.edges, servers.values(), strict=True):
            self.update((Shard(number).tag.partition("}")[0], edge) for number in shards)

    def of(self, operation: Call[Any] | Plain[Any]) -> E:
        """The edge to the server of an operation's first key; the first server without a shard."""
        if isinstance(operation, Call):
            key: Any = operation.keys[0] if operation.keys else ""
        else:
            key = operation.key or (operation.command[1] if len(operation.command) > 1 else "")
        return self.get(str(key).partition("}")[0], self.first)

    def away(self, edge: E, error: BaseException) -> ServerAway:
        """The error for an edge whose server does not answer."""
        return away(edge.url, self.servers[edge.url], len(self), error)


class RoutedEdge(Edge):
    """Runs each operation of a flow on the server where its keys live.

    ``client`` and ``url`` are the first server's.  Raises `ServerAway` for one that is silent.
    """

    def __init__(
        self, servers: Mapping[str, Sequence[int]], *, perform: Perform, **options: Any
    ) -> None:
        self._homes = _Homes(servers, lambda url: Edge(url, shards=servers[url], **options))
        super().__init__(self._homes.first.url, perform=perform, **options)

    @property
    def client(self) -> Any:
        """The redis client of the first server."""
        return self._homes.first.client

    def execute(self, effect: Any) -> Any:
        """Carry out one effect."""
        if not isinstance(effect, Call | Plain):
            return self.perform(effect)
        edge = self._homes.of(effect)
        try:
            return edge.execute(effect)
        except BROKEN as error:
            raise self._homes.away(edge, error) from error

    def many(self, calls: list[Call[Any]]) -> list[Any]:
        """Run independent calls in one round trip to each server, all at the same time.

        The reply of a failed call is its error, also if its whole server failed.  The call waits
        for a silent server no longer than `MANY_S`.
        """
        groups: dict[str, list[int]] = {}
        for number, call in enumerate(calls):
            groups.setdefault(self._homes.of(call).url, []).append(number)
        replies: list[Any] = [RedisTimeoutError("no answer in time")] * len(calls)

        def ask(numbers: list[int]) -> None:
            found = self._group([calls[number] for number in numbers])
            for number, reply in zip(numbers, found, strict=True):
                replies[number] = reply

        _at_once([partial(ask, numbers) for numbers in groups.values()])
        return list(replies)  # a late answer must not change the returned list

    def _group(self, calls: list[Call[Any]]) -> list[Any]:
        edge = self._homes.of(calls[0])
        try:
            return edge.many(calls)
        except BROKEN as error:
            return [self._homes.away(edge, error)] * len(calls)
        except Exception as error:  # noqa: BLE001 - the caller gets it as the reply of each
            return [error] * len(calls)

    def correct(self, clock: Clock) -> None:
        """Correct a `SystemClock` by the first server that answers within `CORRECT_S`.

        Raises ServerAway, or NothingDone, if none does.
        """
        failures: list[Exception] = []
        for home in self._homes.edges:
            edge = Edge(home.url, timeout_s=CORRECT_S, retries=0)
            try:
                edge.correct(clock)
            except NothingDone as error:
                failures.append(error)
            except BROKEN as error:
                failures.append(self._homes.away(home, error))
            else:
                return
            finally:
                edge.close()
        raise failures[0]

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        for edge in self._homes.edges:
            edge.close()


class AsyncRoutedEdge(AsyncEdge):
    """`RoutedEdge` for an event loop."""

    def __init__(self, servers: Mapping[str, Sequence[int]], *, perform: Perform) -> None:
        # The inherited constructor would open one more client than the edges have.
        self._homes = _Homes(servers, AsyncEdge)
        self.url, self.perform = self._homes.first.url, perform
        self.client = self._homes.first.client

    async def execute(self, effect: Any) -> Any:
        """Carry out one effect."""
        if not isinstance(effect, Call | Plain):
            return await asyncio.to_thread(self.perform, effect)
        edge = self._homes.of(effect)
        try:
            return await edge.execute(effect)
        except BROKEN as error:
            raise self._homes.away(edge, error) from error

    async def close(self) -> None:
        """Close the connections."""
        for edge in self._homes.edges:
            await edge.close()


def _at_once(asks: list[Callable[[], None]]) -> None:
    """Run all at the same time, for at most `MANY_S`; a single one has no limit."""
    if len(asks) == 1:
        asks[0]()
        return
    threads = [threading.Thread(target=ask, daemon=True) for ask in asks]
    for thread in threads:
        thread.start()
    ends_at = time.monotonic() + MANY_S
    for thread in threads:
        thread.join(max(0.0, ends_at - time.monotonic()))
