"""How do events travel between processes?

By Redis Streams, one for each event type (`event_bus.keys`), so that an event waits for subscribers
that are away; `event_bus.bus` has the promises.  The constructor does not connect.  Use a bus from
the event loop that started it; each process and each loop has its own.

Streams are cut to about ``max_stream_length`` events, so the server's memory is bounded.  A group
that is further behind loses the oldest events.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from multiagents.core.events import Event
from multiagents.core.exceptions import InvalidInput, NoServer
from multiagents.core.server_urls import is_socket, shown_url
from multiagents.core.settings import check_named, get_settings
from multiagents.event_bus import keys
from multiagents.event_bus.bus import (
    MAX_DELIVERIES,
    MAX_STREAM_LENGTH,
    REDELIVER_AFTER_S,
    DeadLetter,
    Handler,
    Monitor,
    Subscription,
    event_types,
    not_started,
)
from multiagents.event_bus.delivery import Deliverer
from multiagents.event_bus.patience import PAUSES, TRIES, is_outage, patiently, why_of
from multiagents.event_bus.reader import Readers
from multiagents.event_bus.redis_readers import GroupReader, PrivateReader
from multiagents.storage.connect import close_async_sentinels, open_async_client

SOCKET_S = 5.0


class RedisEventBus:
    """Publishes events to Redis and calls handlers for them, at least once per group.

    ``group`` is the default of `subscribe`; ``logger`` a structlog or standard logger;
    ``event_monitor`` gets each event's stages.

        async with RedisEventBus() as bus:
            await bus.subscribe("status", print, group="audit")
            await bus.publish(StatusEvent(transaction_id=..., state="running"))
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        event_monitor: Monitor | None = None,
        logger: Any = None,
        group: str | None = None,
        redeliver_after_s: float = REDELIVER_AFTER_S,
        max_deliveries: int = MAX_DELIVERIES,
        max_stream_length: int = MAX_STREAM_LENGTH,
    ) -> None:
        if redeliver_after_s <= 0 or max_deliveries < 1 or max_stream_length < 1:
            raise InvalidInput(
                "redeliver_after_s must be above 0, max_deliveries and max_stream_length at least"
                f" 1; got {redeliver_after_s}, {max_deliveries}, {max_stream_length}"
            )
        self.redis_url = redis_url or get_settings().redis_url
        check_named("the event bus's redis_url", self.redis_url)
        self._group = group
        self._redeliver_after_ms = max(1, round(redeliver_after_s * 1000))
        self._max_deliveries = max_deliveries
        self._max_stream_length = max_stream_length
        self._deliverer = Deliverer(monitor=event_monitor, logger=logger)
        self._sender: Redis | None = None
        self._receiver: Redis | None = None
        self._readers = Readers()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect; a second call does nothing.  Raises NoServer if none answers."""
        if self._sender is not None:
            return
        self._sender = _client(self.redis_url, Retry(PAUSES, TRIES - 1))
        self._receiver = _client(self.redis_url, Retry(NoBackoff(), 0))
        try:
            await patiently(self._receiver.ping)
        except Exception as error:
            await self.stop()
            if not is_outage(error):
                raise
            raise NoServer(
                f"no Redis answers at {shown_url(self.redis_url)} ({why_of(error)}); start one,"
                " or set MULTIAGENTS_REDIS_URL"
            ) from None

    async def stop(self) -> None:
        """End every subscription, then the connections; a second call does nothing.

        Running handlers get 5 s.  Raises InvalidInput in a handler of this bus.
        """
        await self._readers.end_all()
        clients = (self._sender, self._receiver)
        self._sender = self._receiver = None
        for client in clients:
            if client is not None:
                await client.aclose()
                await close_async_sentinels(client)

    async def publish(self, event: Event) -> None:
        """Return once Redis has the event.

        Raises NoServer after some 3 s without a reply.  The event may then be stored or not; a
        second publishing is safe if receivers compare ``event_id``.
        """
        if self._sender is None:
            raise not_started("publish")
        fields: Any = {"event": event.to_json()}
        await self._deliverer.track(event, "dispatched")
        add = partial(
            self._sender.xadd,
            keys.stream(event.stream),
            fields,
            maxlen=self._max_stream_length,
            approximate=True,
        )
        try:
            await patiently(add)
        except Exception as error:
            if not is_outage(error):
                raise
            raise NoServer(
                f"the {event.event_type} event of saga {event.transaction_id} is not published:"
                f" no Redis takes it at {shown_url(self.redis_url)} ({why_of(error)})"
            ) from None
        await self._deliverer.track(event, "published")

    async def subscribe(
        self, event_type: str, handler: Handler, *, group: str | None = None
    ) -> Subscription:
        """Call the handler for each event of the type, or of all types with ``"*"``."""
        if self._receiver is None:
            raise not_started("subscribe")
        subscription = Subscription(event_types(event_type), group or self._group)
        reader = self._reader(self._receiver, subscription, handler)
        await patiently(reader.prepare)
        self._readers.begin(subscription.id, reader)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End the subscription; unhandled events of its group stay for the others."""
        await self._readers.end(subscription.id)

    async def track(self, event: Event, stage: str) -> None:
        """Report a stage that was reached outside the bus to the monitor; never raises."""
        await self._deliverer.track(event, stage)

    async def dead_letters(self, *, count: int = 100) -> list[DeadLetter]:
        """The newest ``count`` dead letters of every group, newest first."""
        if self._sender is None:
            raise not_started("read dead letters")
        rows: Any = await self._sender.xrevrange(keys.DEAD_LETTERS, count=count)
        return [_dead_letter(fields) for _, fields in rows]

    def _reader(
        self, client: Redis, subscription: Subscription, handler: Handler
    ) -> GroupReader | PrivateReader:
        streams = [keys.stream(name) for name in subscription.event_types]
        if subscription.group is None:
            return PrivateReader(client, handler, self._deliverer, streams)
        return GroupReader(
            client,
            handler,
            self._deliverer,
            streams,
            group=subscription.group,
            consumer=f"{socket.gethostname()}:{os.getpid()}:{subscription.id}",
            redeliver_after_ms=self._redeliver_after_ms,
            max_deliveries=self._max_deliveries,
            max_stream_length=self._max_stream_length,
        )


def _client(url: str, retry: Retry) -> Redis:
    times = {"socket_timeout": SOCKET_S}
    if not is_socket(url):  # a Unix socket connects at once
        times["socket_connect_timeout"] = SOCKET_S
    return open_async_client(url, retry=retry, **times)


def _dead_letter(fields: dict[bytes, bytes]) -> DeadLetter:
    text = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
    return DeadLetter(
        group=text["group"],
        event_type=text["event_type"],
        event=text["event"],
        deliveries=int(text["deliveries"]),
        error=text["error"],
    )
