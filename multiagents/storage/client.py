"""How is a flow run against Redis?

`Edge` is the sync edge, `AsyncEdge` the async one.  Both send a call by its hash (EVALSHA), and
once as text if the server lacks the script.  They pass every other effect to ``perform``.
Connections belong to the process that made them: after a fork each child makes its own.

Every call may be sent twice: each script recognises its earlier run (E3, E4).  So the edge repeats
a call after a lost reply, and after a refusal for now.
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
    """The server answers that it executes nothing for now; it changed nothing."""


class WritesRefused(NothingDone):
    """The server answers that it takes no writes for now; it changed nothing.

    A refused script has written nothing: Redis checks before a script's first write, and not
    after it.
    """


BROKEN = (RedisConnectionError, RedisTimeoutError)
"""No answer, or a lost connection: the server may have executed the call."""
UNREACHABLE = (*BROKEN, NothingDone)
"""The errors that a caller may catch to wait and retry."""
StoreError = RedisError
"""Any failure of the server, for rooms that do not import redis."""

TIMEOUT_S = 5.0
RETRIES = 3
"""Resends after a lost connection, or a server's pause: `_PAUSE`."""
_PAUSE = ExponentialBackoff(cap=1.0, base=0.05)
"""Seconds between them."""
MAIN_TIMEOUT_S = 1.0
"""The timeout in a worker's main process, which retries nothing (E20)."""


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
        """``url``: a function if the URL is not known before the first use."""
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
            except Exception as failure:  # noqa: BLE001 - the flow handles it, or raises it
                error = failure

    def execute(self, effect: Any) -> Any:
        """Perform one effect.  Raises NothingDone with the reason if the server refuses it."""
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
        """Retry a call that the server refuses for now, as often as after a lost connection."""
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
        if isinstance(error, ReadOnlyError):  # the address may name another server by now
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

        A pool's checkout and its checks cost as much as the command itself.  If the connection is
        broken, the client sends the command again, with its own retries.
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
        """Run independent calls in one round trip; the reply of a failed call is its error."""
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
        """Correct a `SystemClock` by the server's time; any other clock stays as it is."""
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
            except Exception as failure:  # noqa: BLE001 - the flow handles it, or raises it
                error = failure

    async def execute(self, effect: Any) -> Any:
        """Perform one effect.  Raises NothingDone with the reason if the server refuses it."""
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

    It is not from the pool: a pool counts its loans, and a thread that ends returns nothing.
    """

    def __init__(self, pool: Any) -> None:
        self._pid = os.getpid()
        self.connection = pool.connection_class(**pool.connection_kwargs)

    def __del__(self) -> None:
        if self._pid == os.getpid():  # else it is the parent's
            self.connection.disconnect()


def _packed(connection: Any, command: tuple[Any, ...]) -> Any:
    """The bytes to send; redis-py's own function checks each argument, and is slower."""
    return (_pack(command),) if _pack else connection.pack_command(*command)


def _round_trip(connection: Any, command: tuple[Any, ...]) -> Any:
    try:
        if not connection.is_connected:
            # Otherwise the send connects, and does not ask the Sentinels for the primary: it uses
            # the last address, at first localhost's default port.
            connection.connect()
        connection.send_packed_command(_packed(connection, command), check_health=False)
        return connection.read_response()
    except ReadOnlyError:  # the address may name another server by now
        connection.disconnect()
        raise
    except ResponseError:
        raise
    except BaseException:
        # Any interruption, also a time limit's signal, leaves an unread reply in the connection.
        connection.disconnect()
        raise


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Raise the refusals of another client's server as `NothingDone`."""
    try:
        yield
    except ResponseError as error:
        found = refusal(url, error)
        if found is error:
            raise
        raise found from error


def refusal(url: str, error: ResponseError) -> RedisError:
    """The error with the reason of a refusal; the given error if it is no refusal."""
    word = word_of(error)
    if word is None:
        return error
    where = f"the server at {shown_url(url)}"
    if word in REFUSALS:
        return WritesRefused(f"{where} takes no writes: {REFUSALS[word]}")
    return NothingDone(f"{where} does nothing for now: {PAUSES[word]}")
