"""How does a subscription live and end?

One task reads until the end.  A failed read is logged and repeated with a growing pause, so a
restart of the server does no harm.  `end` waits for the running handler and leaves no task behind.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from multiagents.core.exceptions import InvalidInput
from multiagents.event_bus.bus import Handler
from multiagents.event_bus.delivery import Deliverer

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
DRAIN_S = 5.0
"""How long `end` waits for a running handler; then it is cancelled and its event stays pending."""


class Reader(ABC):
    """Reads events for one handler, from `begin` to `end`."""

    def __init__(self, handler: Handler, deliverer: Deliverer) -> None:
        self.handler = handler
        self.deliverer = deliverer
        self.stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def read_once(self) -> None:
        """Wait a moment for events and handle them."""

    @abstractmethod
    async def leave(self) -> None:
        """Give back the entries of the subscription after its last event."""

    def is_outage(self, error: Exception) -> bool:
        """Whether an error is temporary; all others are logged with their traceback."""
        return False

    def begin(self) -> None:
        """Start reading."""
        self._task = asyncio.create_task(self._run(), name=f"event-bus-{type(self).__name__}")

    @property
    def is_current(self) -> bool:
        """Whether the caller is this subscription's own handler."""
        return self._task is not None and asyncio.current_task() is self._task

    @property
    def is_over(self) -> bool:
        """Whether it has ended, after its own handler called `end`."""
        return self._task is None or self._task.done()

    async def end(self) -> None:
        """Stop reading; return once nothing runs (at once in its own handler)."""
        self.stopping = True
        if self._task is None or self.is_current:
            return
        try:
            await asyncio.wait_for(self._idle.wait(), DRAIN_S)
        except TimeoutError:
            self.deliverer.log.warning("event handler is cancelled", waited_s=DRAIN_S)
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._task.cancelled():
            await self._leave()
        self._task = None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Marks the time in which `end` waits instead of cancelling."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    async def _run(self) -> None:
        await self._read()
        await self._leave()

    async def _read(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self.stopping:
            try:
                await self.read_once()
                pause_s = FIRST_PAUSE_S
                continue
            except Exception as error:
                if self.is_outage(error):
                    self.deliverer.log.warning(
                        "event bus cannot read; trying again", error=str(error), pause_s=pause_s
                    )
                else:
                    self.deliverer.log.exception("event bus read failed", pause_s=pause_s)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _leave(self) -> None:
        try:
            await self.leave()
        except Exception:
            self.deliverer.log.warning(
                "event subscription could not give back its entries", exc_info=True
            )


class Readers:
    """The running subscriptions of one bus."""

    def __init__(self) -> None:
        self._by_id: dict[str, Reader] = {}

    def begin(self, subscription_id: str, reader: Reader) -> None:
        """Start the reader and keep it until its end."""
        self._by_id = {key: kept for key, kept in self._by_id.items() if not kept.is_over}
        self._by_id[subscription_id] = reader
        reader.begin()

    async def end(self, subscription_id: str) -> None:
        """End one; an unknown one has already ended."""
        reader = self._by_id.get(subscription_id)
        if reader is None:
            return
        await reader.end()
        if not reader.is_current:  # else `end_all` still has to wait for it
            self._by_id.pop(subscription_id, None)

    async def end_all(self) -> None:
        """End all.  Raises InvalidInput in one of their handlers: each would wait for the other."""
        readers = list(self._by_id.values())
        if any(reader.is_current for reader in readers):
            raise InvalidInput(
                "a handler cannot stop its own event bus (the bus waits for its handlers);"
                " unsubscribe, or set an event that the program's main task waits for"
            )
        self._by_id.clear()
        await asyncio.gather(*(reader.end() for reader in readers))
