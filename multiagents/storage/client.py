"""How is a flow run against Redis?

`Edge` is the sync edge, `AsyncEdge` the async one.  Both send calls by their hash (EVALSHA, and
the text once where the server does not know it) and hand every other effect to ``perform``.
Connections belong to the process that made them: after a fork each child makes its own.

Every call may be sent twice: each script recognises what it has done already (E3, E4), so a lost
reply is answered by sending the call again.  So is a reply which says that nothing was done.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakSet

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from multiagents.core.clock import Clock, SystemClock
from multiagents.core.effects import Flow
from multiagents.core.server_urls import is_socket, shown_url
from multiagents.storage.calls import Call, Plain
from multiagents.storage.connect import (
    close_async_sentinels,
    close_sentinels,
    open_async_client,
    open_client,
)
from multiagents.storage.formats import check
from multiagents.storage.keys import Shard
from multiagents.storage.refusals import PAUSES, REFUSALS, word_of
from multiagents.storage.scripts import script

T = TypeVar("T")
Perform = Callable[[Any], Any]

_pack: Callable[[tuple[Any, ...]], bytes] | None
try:
    from hiredis import pack_command as _pack
except ImportError:  # a dependency, and yet an installation may lack it
    _pack = None


class NothingDone(RedisError):
    """The server answers that it does nothing for now; nothing was changed."""


class WritesRefused(NothingDone):
    """The server answers and takes no writes for now; nothing was changed.

    A script that is refused has written nothing: Redis looks before a script's first write, and
    no more after it.
    """


BROKEN = (RedisConnectionError, RedisTimeoutError)
"""Nobody answers, or the connection is lost: what was asked may have been done."""
UNREACHABLE = (*BROKEN, NothingDone)
"""What a caller may catch to wait and try again."""
StoreError = RedisError
"""Any failure of the server, for rooms that do not import redis."""

TIMEOUT_S = 5.0
RETRIES = 3
"""Resends after a lost connection, or a server's pause: `_PAUSE`."""
_PAUSE = ExponentialBackoff(cap=1.0, base=0.05)
"""Seconds between them."""
MAIN_TIMEOUT_S = 1.0
"""In a worker's main process nothing may block for longer, and nothing is retried (E20)."""


def _no_effects(effect: Any) -> Any:
    raise TypeError(f"this edge cannot perform {effect!r}")


class Edge:
    """Runs flows in the calling thread.  Thread-safe; survives a fork."""

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        perform: Perform = _no_effects,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        client: Any = None,
        shards: Sequence[int] = (),
    ) -> None:
        """``url``: where it is not known before the first use, what says it then."""
        self._url = url
        self.perform = perform
        self._shards = shards
        self._timeout_s = timeout_s
        self._retries = retries
        self._given = client
        self._client: Any = client
        self._pid = os.getpid() if client is not None else 0
        self._lock = threading.Lock()
        self._local = threading.local()
        self._connections: WeakSet[Any] = WeakSet()

    @property
    def url(self) -> str:
        """The server's."""
        return self._url if isinstance(self._url, str) else self._url()

    @property
    def client(self) -> Any:
        """The redis client of this process.

        The first use connects; raises NewerFormat if a newer engine has written to our shards.
        """
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._client = self._given or self._connect()
                    self._pid = os.getpid()
        return self._client

    def _connect(self) -> redis.Redis:
        options = _options(self.url, self._timeout_s, retries=self._retries, retry=Retry)
        client = open_client(self.url, **options)
        if self._shards:
            check(client.mget([Shard(number).format for number in self._shards]))
        return client

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end and return its result; a failure is thrown into the flow."""
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # a Flow[T] returns T
            reply, error = None, None
            try:
                reply = self.execute(effect)
            except Exception as failure:  # noqa: BLE001 - goes on inside the flow, or out of it
                error = failure

    def execute(self, effect: Any) -> Any:
        """Carry out one effect.  Raises NothingDone saying why the server takes none."""
        if not isinstance(effect, Call | Plain):
            return self.perform(effect)
        try:
            return self._ask(effect)
        except ResponseError as error:
            return self._ask_again(effect, error)

    def _ask(self, operation: Call[Any] | Plain[Any]) -> Any:
        if isinstance(operation, Call):
            return operation.parse(self._eval(operation))
        return operation.parse(self.client.execute_command(*operation.command))

    def _ask_again(self, operation: Call[Any] | Plain[Any], error: ResponseError) -> Any:
        """A server that does nothing for the moment has the patience of a lost connection."""
        for failures in range(1, self._retries + 1):
            if word_of(error) not in PAUSES:
                break
            time.sleep(_PAUSE.compute(failures))
            try:
                return self._ask(operation)
            except ResponseError as again:
                error = again
        found = self._told(error)
        raise found from (None if found is error else error)

    def _told(self, error: ResponseError) -> RedisError:
        found = refusal(self.url, error)
        if isinstance(error, ReadOnlyError):  # what the address names now may be another server
            self.client.connection_pool.disconnect(inuse_connections=False)
        return found

    def _eval(self, call: Call[Any]) -> Any:
        lua = script(call.script)
        tail = (len(call.keys), *call.keys, *call.args)
        try:
            return self._command("EVALSHA", lua.sha, *tail)
        except NoScriptError:
            return self._command("EVAL", lua.text, *tail)

    def _command(self, *command: Any) -> Any:
        """Run a script on this thread's own connection; its reply is as the server gave it.

        A pool's checkout and its checks cost as much as the command itself.  Where the connection
        is broken, the client sends the command again, with its patience.
        """
        client = self.client
        if not self._retries:
            return client.execute_command(*command)
        connection = self._connection(client)
        try:
            return _round_trip(connection, command)
        except BROKEN:
            return client.execute_command(*command)

    def _connection(self, client: Any) -> Any:
        if getattr(self._local, "client", None) is not client:
            self._local.own = _Own(client.connection_pool)
            self._local.client = client
            self._connections.add(self._local.own.connection)
        return self._local.own.connection

    def many(self, calls: list[Call[Any]]) -> list[Any]:
        """Run independent calls in one round trip; a failure of one is returned in its place."""
        pipe = self.client.pipeline(transaction=False)
        for call in calls:
            tail = (len(call.keys), *call.keys, *call.args)
            pipe.execute_command("EVALSHA", script(call.script).sha, *tail)
        replies = pipe.execute(raise_on_error=False)
        return [
            self.execute(call) if isinstance(reply, NoScriptError) else self._parsed(call, reply)
            for call, reply in zip(calls, replies, strict=True)
        ]

    def _parsed(self, call: Call[Any], reply: Any) -> Any:
        if isinstance(reply, ResponseError):
            return self._told(reply)
        return reply if isinstance(reply, Exception) else call.parse(reply)

    def correct(self, clock: Clock) -> None:
        """Teach a `SystemClock` the server's time; any other clock is left alone."""
        if isinstance(clock, SystemClock):
            with asking(self.url):
                client = self.client  # which connects
                sent_ms = time.time_ns() // 1_000_000
                seconds, micros = client.time()
            received_ms = time.time_ns() // 1_000_000
            server_ms = int(seconds) * 1000 + int(micros) // 1000
            clock.correct(server_ms=server_ms, sent_ms=sent_ms, received_ms=received_ms)

    def close(self) -> None:
        """Close this process's connections; the next use opens new ones."""
        if self._client is not None and self._pid == os.getpid() and self._given is None:
            self._client.close()
            close_sentinels(self._client)
            for connection in tuple(self._connections):
                connection.disconnect()
            self._pid = 0


class AsyncEdge:
    """Runs flows on the event loop that first uses it; effects run in threads."""

    def __init__(self, url: str, *, perform: Perform = _no_effects) -> None:
        self.url = url
        self.perform = perform
        options = _options(url, TIMEOUT_S, retries=RETRIES, retry=redis.asyncio.retry.Retry)
        self.client: Any = open_async_client(url, **options)

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end and return its result."""
        reply: Any = None
        error: BaseException | None = None
        while True:
            try:
                effect = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # a Flow[T] returns T
            reply, error = None, None
            try:
                reply = await self.execute(effect)
            except Exception as failure:  # noqa: BLE001 - goes on inside the flow, or out of it
                error = failure

    async def execute(self, effect: Any) -> Any:
        """Carry out one effect.  Raises NothingDone saying why the server takes none."""
        if not isinstance(effect, Call | Plain):
            return await asyncio.to_thread(self.perform, effect)
        try:
            return await self._ask(effect)
        except ResponseError as error:
            return await self._ask_again(effect, error)

    async def _ask(self, operation: Call[Any] | Plain[Any]) -> Any:
        if isinstance(operation, Call):
            return operation.parse(await self._eval(operation))
        return operation.parse(await self.client.execute_command(*operation.command))

    async def _ask_again(self, operation: Call[Any] | Plain[Any], error: ResponseError) -> Any:
        for failures in range(1, RETRIES + 1):
            if word_of(error) not in PAUSES:
                break
            await asyncio.sleep(_PAUSE.compute(failures))
            try:
                return await self._ask(operation)
            except ResponseError as again:
                error = again
        found = await self._told(error)
        raise found from (None if found is error else error)

    async def _told(self, error: ResponseError) -> RedisError:
        if isinstance(error, ReadOnlyError):
            await self.client.connection_pool.disconnect(inuse_connections=False)
        return refusal(self.url, error)

    async def _eval(self, call: Call[Any]) -> Any:
        lua = script(call.script)
        tail = (len(call.keys), *call.keys, *call.args)
        try:
            return await self.client.execute_command("EVALSHA", lua.sha, *tail)
        except NoScriptError:
            return await self.client.execute_command("EVAL", lua.text, *tail)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()
        await close_async_sentinels(self.client)


def _options(url: str, timeout_s: float, *, retries: int, retry: type) -> dict[str, Any]:
    backoff = _PAUSE if retries else NoBackoff()
    local = is_socket(url)
    return {
        "socket_timeout": timeout_s,
        **({} if local else {"socket_connect_timeout": timeout_s, "socket_keepalive": True}),
        "retry": retry(backoff, retries),
        "retry_on_error": list(BROKEN),
    }


class _Own:
    """A thread's connection; closed with its thread.

    It is not one of the pool's: a pool counts what it lends, and a thread that ends gives nothing
    back.
    """

    def __init__(self, pool: Any) -> None:
        self._pid = os.getpid()
        self.connection = pool.connection_class(**pool.connection_kwargs)

    def __del__(self) -> None:
        if self._pid == os.getpid():  # else it is the parent's
            self.connection.disconnect()


def _packed(connection: Any, command: tuple[Any, ...]) -> Any:
    """The pieces to send; redis-py's own way, which asks more of each argument, is slower."""
    return (_pack(command),) if _pack else connection.pack_command(*command)


def _round_trip(connection: Any, command: tuple[Any, ...]) -> Any:
    try:
        if not connection.is_connected:
            # Else it is sending that connects: to the address of last time, at first localhost's
            # default port, without asking the Sentinels where the primary is.
            connection.connect()
        connection.send_packed_command(_packed(connection, command), check_health=False)
        return connection.read_response()
    except ReadOnlyError:  # what the address names now may be another server
        connection.disconnect()
        raise
    except ResponseError:
        raise
    except BaseException:
        # Whatever interrupts here, a time limit's signal too, leaves a reply that nobody reads.
        connection.disconnect()
        raise


@contextmanager
def asking(url: str) -> Iterator[None]:
    """For what is asked by another client: its server's refusals are raised as `NothingDone`."""
    try:
        yield
    except ResponseError as error:
        found = refusal(url, error)
        if found is error:
            raise
        raise found from error


def refusal(url: str, error: ResponseError) -> RedisError:
    """The error that says why a server has done nothing; the given one if it is none of these."""
    word = word_of(error)
    if word is None:
        return error
    where = f"the server at {shown_url(url)}"
    if word in REFUSALS:
        return WritesRefused(f"{where} takes no writes: {REFUSALS[word]}")
    return NothingDone(f"{where} does nothing for now: {PAUSES[word]}")
