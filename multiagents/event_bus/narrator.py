"""How do attempts and moves of sagas in this process become events?

Any thread may call a `Narrator`, which never makes it wait.  One task, on the loop where the
narrator was opened, publishes in order.  An event that cannot be published is logged and lost:
events inform, the log of the saga decides.

An event's id derives from its content, so a receiver recognises a repeated one.  Contexts and
results above `MOST_DATA` are left out, because a stream keeps 100,000 events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

from multiagents.core.events import (
    CommandEvent,
    CompensationEvent,
    ErrorEvent,
    Event,
    ResultEvent,
    StatusEvent,
)
from multiagents.core.ids import derived_id
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind, SagaState
from multiagents.event_bus.bus import EventBus
from multiagents.event_bus.logger import structured

MOST_DATA = 16 * 1024
"""The largest context or result in an event, in bytes of JSON."""
MOST_WAITING = 10_000
"""The most unpublished events; beyond it the newest are dropped, with a warning."""
LAST_WORDS_S = 2.0
"""How long `close` waits for unpublished events."""

Look = Callable[[str], dict[str, Any]]
Observer = Callable[[str, SagaState], None]
_Telling = Callable[[], Awaitable[None]]


class Narrator:
    """Publishes to one bus.  Every user opens and closes it; the last `close` waits.

    ``look`` returns a saga as users see it; ``observers`` is the list of functions that get each
    state to which this process moves a saga.
    """

    def __init__(
        self, bus: EventBus, *, look: Look, observers: list[Observer], logger: Any = None
    ) -> None:
        self.bus = bus
        self._look = look
        self._observers = observers
        self._log = structured(logger, "multiagents.event_bus")
        self._opened = 0
        self._dropped = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: asyncio.Queue[_Telling] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Publish from now on, on the running loop."""
        if self._loop is not None and self._loop.is_closed():  # it ended without a close
            self._opened = 0
            self._observers.remove(self.moved)
        self._opened += 1
        if self._opened == 1:
            self._loop = asyncio.get_running_loop()
            self._waiting = asyncio.Queue()
            self._task = asyncio.create_task(self._publish_all(), name="multiagents-narrator")
            self._observers.append(self.moved)

    async def close(self) -> None:
        """Stop after as many calls as of `open`, once the waiting events are published."""
        self._opened = max(0, self._opened - 1)
        if self._opened or self._task is None:
            return
        self._observers.remove(self.moved)
        task, self._task = self._task, None
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                # Events of other threads are before this in the loop's queue.
                await asyncio.sleep(0)
                await self._waiting.join()
        except TimeoutError:
            self._log.warning("events not published", count=self._waiting.qsize())
        finally:
            self._loop = None
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # ---- what happens, from any thread ----

    def moved(self, saga_id: str, state: SagaState) -> None:
        """This process has moved a saga to ``state``."""
        self._tell(lambda: self._publish_status(saga_id, state))

    def began(self, held: Assignment, context: dict[str, Any] | None = None) -> Event:
        """An attempt begins; ``context`` None is left out.  Its end takes the returned event."""
        data = {**_about(held, "command"), "context": context or {}}
        event: Event
        if held.kind is Kind.UNDO:
            event = CompensationEvent(**data)
        else:
            event = CommandEvent(**data, retry_count=held.attempt - 1)
        self._tell(lambda: self._publish(event, "picked_up", "processing"))
        return event

    def succeeded(self, held: Assignment, begun: Event, result: str) -> None:
        """An attempt has returned ``result`` (JSON)."""
        kept = json.loads(result) if len(result) <= MOST_DATA else {}
        event = ResultEvent(**_about(held, "result"), result=kept)
        self._tell(lambda: self._publish_end(event, begun, "completed"))

    def failed(self, held: Assignment, begun: Event, error: str) -> None:
        """An attempt has failed; ``error`` holds no secrets."""
        event = ErrorEvent(**_about(held, "error"), error=error, retry_count=held.attempt - 1)
        self._tell(lambda: self._publish_end(event, begun, "failed"))

    def _tell(self, telling: _Telling) -> None:
        loop = self._loop
        if loop is None:
            return
        # The loop may close between these lines, at the end of asyncio.run.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._accept, telling)

    def _accept(self, telling: _Telling) -> None:
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put_nowait(telling)
            return
        self._dropped += 1
        if self._dropped == 1:
            self._log.warning("events are dropped: the bus does not keep up", waiting=MOST_WAITING)

    # ---- publishing, on the loop ----

    async def _publish_all(self) -> None:
        while True:
            telling = await self._waiting.get()
            try:
                await telling()
            except Exception as error:  # noqa: BLE001 - one event must not end all the others
                self._log.warning("event not published", error=type(error).__name__)
            finally:
                self._waiting.task_done()

    async def _publish(self, event: Event, *stages: str) -> None:
        await self.bus.publish(event)
        for stage in stages:
            await self.bus.track(event, stage)

    async def _publish_end(self, event: Event, begun: Event, stage: str) -> None:
        await self.bus.track(begun, stage)
        await self.bus.publish(event)

    async def _publish_status(self, saga_id: str, state: SagaState) -> None:
        saga = await asyncio.to_thread(self._look, saga_id)
        results = saga["step_results"]
        event = StatusEvent(
            transaction_id=saga_id,
            correlation_id=saga["correlation_id"],
            state=state,
            current_step=saga["current_step"],
            step_results=results if len(json.dumps(results)) <= MOST_DATA else {},
            event_id=derived_id("status", saga_id, state, str(saga["updated_at"])),
        )
        await self.bus.publish(event)


def _about(held: Assignment, what: str) -> dict[str, Any]:
    return {
        "transaction_id": held.saga_id,
        "correlation_id": json.loads(held.meta).get("correlation_id", held.saga_id),
        "worker_name": held.worker,
        "step_name": held.step,
        "event_id": derived_id(what, held.saga_id, held.kind, held.step, held.nonce),
    }
