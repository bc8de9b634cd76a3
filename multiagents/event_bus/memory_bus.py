"""How do events travel inside one process, without a server?

`MemoryEventBus` keeps the promises of `event_bus.bus` while the object lives: the same tests run
on it and on Redis.  Events are written and parsed as on the wire, so a handler never shares a
value with the publisher.  Use it from one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from multiagents.core.events import Event, parse_event
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
from multiagents.event_bus.reader import Reader, Readers


@dataclass(frozen=True, slots=True)
class _Letter:
    event_type: str
    event: str
    deliveries: int = 0


class _Box:
    """The waiting events of one group (and event type) or one private subscription."""

    def __init__(self, max_length: int) -> None:
        self.ready: deque[_Letter] = deque(maxlen=max_length)
        self.refused: deque[tuple[float, _Letter]] = deque(maxlen=max_length)
        """Each with the loop time of its next delivery, soonest first."""

    def take(self, now_s: float) -> _Letter | None:
        """The next letter to handle, a refused one first if it is due."""
        if self.refused and self.refused[0][0] <= now_s:
            return self.refused.popleft()[1]
        return self.ready.popleft() if self.ready else None


class MemoryEventBus:
    """An event bus without a server, for tests and for single-process programs."""

    def __init__(
        self,
        *,
        event_monitor: Monitor | None = None,
        logger: Any = None,
        group: str | None = None,
        redeliver_after_s: float = REDELIVER_AFTER_S,
        max_deliveries: int = MAX_DELIVERIES,
        max_stream_length: int = MAX_STREAM_LENGTH,
    ) -> None:
        self.redeliver_after_s = redeliver_after_s
        self.max_deliveries = max_deliveries
        self.dead: deque[DeadLetter] = deque(maxlen=max_stream_length)
        self._max_stream_length = max_stream_length
        self._group = group
        self._deliverer = Deliverer(monitor=event_monitor, logger=logger)
        self._groups: dict[tuple[str, str], _Box] = {}
        self._private: dict[str, tuple[tuple[str, ...], _Box]] = {}
        self._readers = Readers()
        self._started = False
        self.arrived: asyncio.Condition

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the bus usable; a second call does nothing."""
        if not self._started:
            self._started = True
            self.arrived = asyncio.Condition()

    async def stop(self) -> None:
        """End every subscription; events of groups are kept for the next start."""
        await self._readers.end_all()
        self._started = False
        self._private.clear()

    async def publish(self, event: Event) -> None:
        """Put the event into every group and every private subscription."""
        self._check("publish")
        letter = _Letter(event.stream, event.to_json())
        await self._deliverer.track(event, "dispatched")
        await self._deliverer.track(event, "published")
        async with self.arrived:
            for (event_type, _), box in self._groups.items():
                if event_type == letter.event_type:
                    box.ready.append(letter)
            for types, box in self._private.values():
                if letter.event_type in types:
                    box.ready.append(letter)
            self.arrived.notify_all()

    async def subscribe(
        self, event_type: str, handler: Handler, *, group: str | None = None
    ) -> Subscription:
        """Call the handler for each event of the type, or of all types with ``"*"``."""
        self._check("subscribe")
        group = group or self._group
        subscription = Subscription(event_types(event_type), group)
        reader = _MemoryReader(self, handler, self._deliverer, self._boxes(subscription), group)
        self._readers.begin(subscription.id, reader)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End the subscription; unhandled events of its group are kept."""
        self._private.pop(subscription.id, None)
        await self._readers.end(subscription.id)

    async def track(self, event: Event, stage: str) -> None:
        """Report a stage that was reached outside the bus to the monitor; never raises."""
        await self._deliverer.track(event, stage)

    async def dead_letters(self, *, count: int = 100) -> list[DeadLetter]:
        """The newest ``count`` dead letters, newest first."""
        return list(reversed(self.dead))[:count]

    def _check(self, action: str) -> None:
        if not self._started:
            raise not_started(action)

    def _boxes(self, subscription: Subscription) -> list[_Box]:
        if subscription.group is None:
            box = _Box(self._max_stream_length)
            self._private[subscription.id] = (subscription.event_types, box)
            return [box]
        return [
            self._groups.setdefault((name, subscription.group), _Box(self._max_stream_length))
            for name in subscription.event_types
        ]


class _MemoryReader(Reader):
    """Takes letters from its boxes; a group's boxes are shared with the group's other readers."""

    def __init__(
        self,
        bus: MemoryEventBus,
        handler: Handler,
        deliverer: Deliverer,
        boxes: list[_Box],
        group: str | None,
    ) -> None:
        super().__init__(handler, deliverer)
        self._bus = bus
        self._boxes = boxes
        self._group = group

    async def read_once(self) -> None:
        async with self._bus.arrived:
            box, letter = await self._next()
        async with self.working():
            await self._handle(box, replace(letter, deliveries=letter.deliveries + 1))

    async def leave(self) -> None:
        """Do nothing: unhandled letters are in the boxes."""

    async def _next(self) -> tuple[_Box, _Letter]:
        while True:
            now_s = asyncio.get_running_loop().time()
            for box in self._boxes:
                if (letter := box.take(now_s)) is not None:
                    return box, letter
            due_s = min((box.refused[0][0] for box in self._boxes if box.refused), default=None)
            with suppress(TimeoutError):  # a refused letter is due
                async with asyncio.timeout_at(due_s):
                    await self._bus.arrived.wait()

    async def _handle(self, box: _Box, letter: _Letter) -> None:
        try:
            error = await self.deliverer.deliver(parse_event(letter.event), self.handler)
        except asyncio.CancelledError:
            self._later(box, letter)
            raise
        if error is not None:
            self._later(box, letter, error)

    def _later(self, box: _Box, letter: _Letter, error: Exception | None = None) -> None:
        """Schedule a redelivery, or give the letter up; private subscriptions get one delivery."""
        if self._group is None:
            return
        if letter.deliveries < self._bus.max_deliveries:
            due_s = asyncio.get_running_loop().time() + self._bus.redeliver_after_s
            box.refused.append((due_s, letter))
            return
        reason = type(error).__name__ if error else "cancelled"
        self._bus.dead.append(
            DeadLetter(self._group, letter.event_type, letter.event, letter.deliveries, reason)
        )
        self.deliverer.log.error(
            "event is a dead letter", group=self._group, deliveries=letter.deliveries, error=reason
        )
