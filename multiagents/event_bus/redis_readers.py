"""How are a bus's streams read from Redis?

`GroupReader` shares a consumer group with the group's other readers: at least once.  An entry
stays pending until its handler has taken it.  If it is pending for too long, because its handler
refused it or its process died, the next reader that looks claims it.  After the last delivery it
becomes a dead letter.  A reader renews the entries of a running handler, which may be slow.

`PrivateReader` reads behind its own position: each entry once, also across reconnections.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from multiagents.core.events import Event, parse_event
from multiagents.core.exceptions import InvalidInput
from multiagents.event_bus import keys
from multiagents.event_bus.bus import Handler
from multiagents.event_bus.delivery import Deliverer
from multiagents.event_bus.patience import is_outage
from multiagents.event_bus.reader import Reader

BATCH = 32
BLOCK_MS = 2_000
"""The longest wait of one call: below the socket's timeout, and cheap when idle."""
UNACKNOWLEDGED = "NeverAcknowledged"
"""The error of a dead letter whose handlers all ended with their process."""

Entry = tuple[str, bytes, dict[bytes, bytes]]
"""Stream key, entry id, fields."""


class _StreamReader(Reader):
    def __init__(
        self, client: Redis, handler: Handler, deliverer: Deliverer, streams: Iterable[str]
    ) -> None:
        super().__init__(handler, deliverer)
        self.client = client
        self.streams = tuple(streams)

    def is_outage(self, error: Exception) -> bool:
        return is_outage(error)

    @abstractmethod
    async def prepare(self) -> None:
        """Return once the reader misses no later entry."""


class PrivateReader(_StreamReader):
    """Reads every entry from `prepare` on, once."""

    def __init__(
        self, client: Redis, handler: Handler, deliverer: Deliverer, streams: Iterable[str]
    ) -> None:
        super().__init__(client, handler, deliverer, streams)
        self._positions: dict[str, bytes] = {}

    async def prepare(self) -> None:
        for stream in self.streams:
            newest: Any = await self.client.xrevrange(stream, count=1)
            self._positions[stream] = newest[0][0] if newest else b"0-0"

    async def read_once(self) -> None:
        wanted: Any = dict(self._positions)
        reply = await self.client.xread(wanted, count=BATCH, block=BLOCK_MS)
        for stream, entry_id, fields in _entries(reply):
            if self.stopping:
                return
            async with self.working():
                self._positions[stream] = entry_id
                await self._handle(entry_id, fields)

    async def leave(self) -> None:
        """Do nothing: the position belongs to this reader alone."""

    async def _handle(self, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        try:
            event = _event(fields)
        except InvalidInput as error:
            self.deliverer.log.error(
                "event cannot be read", entry=entry_id.decode(), error=str(error)
            )
            return
        await self.deliverer.deliver(event, self.handler)


class GroupReader(_StreamReader):
    """Reads as one consumer of a group; acknowledges the entries that its handler took."""

    def __init__(
        self,
        client: Redis,
        handler: Handler,
        deliverer: Deliverer,
        streams: Iterable[str],
        *,
        group: str,
        consumer: str,
        redeliver_after_ms: int,
        max_deliveries: int,
        max_stream_length: int,
    ) -> None:
        super().__init__(client, handler, deliverer, streams)
        self._group = group
        self._consumer = consumer
        self._redeliver_after_ms = redeliver_after_ms
        self._max_deliveries = max_deliveries
        self._max_stream_length = max_stream_length
        self._look_ms = min(BLOCK_MS, max(1, redeliver_after_ms // 2))
        self._next_look_s = 0.0
        self._held: dict[str, set[bytes]] = defaultdict(set)

    async def prepare(self) -> None:
        await self._create_group("$")

    async def _create_group(self, start: str) -> None:
        for stream in self.streams:
            try:
                await self.client.xgroup_create(stream, self._group, id=start, mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):  # the group exists
                    raise

    async def read_once(self) -> None:
        try:
            await self._handle_overdue()
            wanted: Any = dict.fromkeys(self.streams, ">")
            reply = await self.client.xreadgroup(
                self._group, self._consumer, wanted, count=BATCH, block=self._look_ms
            )
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            self.deliverer.log.warning(
                "consumer group was missing; it is recreated from the oldest event",
                group=self._group,
            )
            await self._create_group("0")
            return
        await self._handle_all([(entry, 1) for entry in _entries(reply)])

    async def _handle_overdue(self) -> None:
        """Claim entries that are pending for too long, and handle them or give them up."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + self._redeliver_after_ms / 2000
        for stream in self.streams:
            pending: Any = await self.client.xpending_range(
                stream, self._group, "-", "+", BATCH, idle=self._redeliver_after_ms
            )
            if not pending:
                continue
            deliveries = {item["message_id"]: item["times_delivered"] + 1 for item in pending}
            claimed: Any = await self.client.xclaim(
                stream, self._group, self._consumer, self._redeliver_after_ms, list(deliveries)
            )
            await self._handle_all(
                [
                    ((stream, entry_id, fields), deliveries[entry_id])
                    for entry_id, fields in claimed
                    if fields
                ]
            )

    async def _handle_all(self, entries: list[tuple[Entry, int]]) -> None:
        if not entries:
            return
        async with self.working(), self._holding(entry for entry, _ in entries):
            for entry, deliveries in entries:
                if self.stopping:
                    return  # the rest stays pending for the group's other readers
                await self._try(entry, deliveries)
                self._held[entry[0]].discard(entry[1])

    async def _try(self, entry: Entry, deliveries: int) -> None:
        """Handle an entry; one that cannot be settled stays pending, and the others continue."""
        try:
            await self._handle(entry, deliveries)
        except RedisError as error:
            if self.is_outage(error):
                raise
            about = {"stream": entry[0], "entry": entry[1].decode()}
            self.deliverer.log.error("event cannot be settled", **about, error=str(error))

    async def _handle(self, entry: Entry, deliveries: int) -> None:
        stream, entry_id, fields = entry
        if deliveries > self._max_deliveries:
            await self._bury(entry, deliveries - 1, UNACKNOWLEDGED)
            return
        try:
            event = _event(fields)
        except InvalidInput as error:
            self.deliverer.log.error("event cannot be read", error=str(error))
            await self._bury(entry, deliveries, type(error).__name__)
            return
        failure = await self.deliverer.deliver(event, self.handler)
        if failure is None:
            await self.client.xack(stream, self._group, entry_id)
        elif deliveries >= self._max_deliveries:
            await self._bury(entry, deliveries, type(failure).__name__)

    async def _bury(self, entry: Entry, deliveries: int, error: str) -> None:
        """Move the entry to the dead letters, then out of the group: twice rather than never.

        A transaction would remove the entry even if the server refuses the letter.
        """
        stream, entry_id, fields = entry
        letter: Any = {
            "group": self._group,
            "event_type": stream.removeprefix(keys.PREFIX),
            "event": fields.get(b"event", b""),
            "deliveries": deliveries,
            "error": error,
        }
        length = self._max_stream_length
        await self.client.xadd(keys.DEAD_LETTERS, letter, maxlen=length, approximate=True)
        await self.client.xack(stream, self._group, entry_id)
        self.deliverer.log.error(
            "event is a dead letter",
            group=self._group,
            stream=stream,
            entry=entry_id.decode(),
            deliveries=deliveries,
            error=error,
        )

    @asynccontextmanager
    async def _holding(self, entries: Iterable[Entry]) -> AsyncIterator[None]:
        """Renews the claims on these entries while they are handled or wait for their turn."""
        for stream, entry_id, _ in entries:
            self._held[stream].add(entry_id)
        renewing = asyncio.create_task(self._renew(), name="event-bus-renew")
        try:
            yield
        finally:
            # redis-py may lose a cancellation, so the renewal also ends when nothing is held.
            self._held.clear()
            renewing.cancel()
            await asyncio.wait({renewing})

    async def _renew(self) -> None:
        while any(self._held.values()):
            await asyncio.sleep(self._redeliver_after_ms / 3000)
            try:
                for stream, held in tuple(self._held.items()):
                    if held:
                        await self.client.xclaim(
                            stream, self._group, self._consumer, 0, list(held), justid=True
                        )
            except Exception:
                self.deliverer.log.warning("event hold cannot be renewed", exc_info=True)

    async def leave(self) -> None:
        """Remove the consumer from the group where it has nothing pending."""
        for stream in self.streams:
            pending = await self.client.xpending_range(
                stream, self._group, "-", "+", 1, consumername=self._consumer
            )
            if not pending:
                await self.client.xgroup_delconsumer(stream, self._group, self._consumer)


def _entries(reply: Any) -> list[Entry]:
    """The entries of an XREAD or XREADGROUP reply; a dict under RESP3, else a list of pairs."""
    if not reply:
        return []
    if isinstance(reply, dict):
        return [
            (stream.decode(), entry_id, fields)
            for stream, batches in reply.items()
            for batch in batches
            for entry_id, fields in batch
        ]
    return [
        (stream.decode(), entry_id, fields)
        for stream, entries in reply
        for entry_id, fields in entries
    ]


def _event(fields: dict[bytes, bytes]) -> Event:
    return parse_event(fields.get(b"event", b""))
