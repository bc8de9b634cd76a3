"""How does a worker's main process represent the delivery of a step?

As Celery's `Request`, with two differences.  Its events carry the id of the step that began or
ended, since a delivery may run several (E14).  And ``celery inspect`` names the running step, which
is read from the store, so that children need not report it.

Imported where a worker runs: clients need none of Celery's worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

import structlog
from billiard.einfo import ExceptionWithTraceback
from celery.worker import state
from celery.worker.request import Request
from celery.worker.strategy import default

from multiagents.core import ids
from multiagents.core.exceptions import MultiAgentsError
from multiagents.core.names import TELLS
from multiagents.core.ports import AtWork
from multiagents.hosting.step_events import Event, channel
from multiagents.hosting.task_options import STEP_REQUEST
from multiagents.storage.client import StoreError

log = structlog.get_logger(__name__)

Look = Callable[[str], Mapping[str, AtWork]]
"""The running step of each delivery of a saga, by the saga's id; gives up soon."""
TOGETHER = 240
"""The most events in one message; an event loop sends in each turn those that it has.

Celery's 24 are those of eight steps.
"""
BLIND_S = 5.0
"""The pause after a store that did not answer: the main process waits for each answer."""

SEEN_S = 0.2
"""The life of a cached read; shorter than the gap between two requests of a user."""


class StepRequest(Request):  # type: ignore[misc]  # celery has no types
    """The delivery of one step, which may run others after it."""

    at: str | None = None
    """The id of its running step; "" after the last one has ended; None before the first."""
    returned = False
    """Whether its process has ended it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tells = _listens(self.eventer)
        if self.tells:
            self._request_dict[TELLS] = True
            self._came: float | None = time.time()
            _telling[self.id] = self

    def report(self, at: str | None, events: list[Event]) -> None:
        """Note the running step, and send these events."""
        self.at = at
        eventer = self.eventer
        if not (eventer and eventer.enabled):
            return
        eventer.buffer_limit = max(eventer.buffer_limit, TOGETHER)
        if any(task_id == self.id for _, task_id, _ in events):
            self._send_received()
        for kind, task_id, fields in events:
            eventer.send(kind, uuid=task_id, **fields)

    def _send_received(self) -> None:
        """Send once, before any other event of the delivery's own step."""
        came, self._came = self._came, None
        if came is not None:
            fields = {"args": self.argsrepr, "kwargs": self.kwargsrepr, "retries": 0}
            more = {"root_id": self.root_id, "parent_id": self.parent_id, "timestamp": came}
            super().send_event("task-received", name=self.name, **fields, **more)

    def on_failure(self, exc_info: Any, *args: Any, return_ok: bool = False, **options: Any) -> Any:
        """Celery's handler of all but success; ``return_ok``: the task itself has ended so."""
        self.returned = return_ok
        if self.tells:
            channel.drain()  # Celery sends no event of an ignored task
            if isinstance(exc_info.exception, ExceptionWithTraceback):
                exc_info.exception = exc_info.exception.exc  # the event shows the error itself
        return super().on_failure(exc_info, *args, return_ok=return_ok, **options)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - the name is Celery's
        """Send Celery's own event of this delivery, for the step that it concerns."""
        if not self.tells:
            super().send_event(type, **fields)
            return
        if type == "task-started":
            return  # the process that claims the attempt reports it
        channel.drain()
        if self.at in (None, self.id):
            self._send_received()
            super().send_event(type, **fields)
        elif self.at and not (self.returned or type == "task-succeeded"):
            # Its process has died, or was killed, in a later step.
            self.eventer.send(type, uuid=self.at, **fields)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """The fields that ``celery inspect`` shows."""
        found: dict[str, Any] = super().info(safe=safe)
        if self in state.active_requests:
            found.update(self._now(safe))
        return found

    def _now(self, safe: bool) -> dict[str, Any]:
        """The fields of the running step, if it is known."""
        saga_id: Any = self.args[0] if self.args else None
        at_work = sight.look(saga_id, self.id) if isinstance(saga_id, str) else None
        if at_work is None:
            return {}
        what = (saga_id, at_work.kind.value, at_work.step, at_work.attempt)
        return {
            "id": ids.step_id(*what),
            "name": at_work.worker,
            "type": at_work.worker,
            "args": ids.shown_args(*what) if safe else list(what),
            "time_start": at_work.since_ms / 1000,
        }


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Any:
    """Celery's strategy without its event for a received message, which `StepRequest` sends.

    A message of a fan-out stands for a slot, and another process has often begun its step already.
    Monitors would show that step as received again, by another worker.
    """
    sends_events = task.send_events
    task.send_events = sends_events and task.Request != STEP_REQUEST
    try:
        return default(task, app, consumer, **options)
    finally:
        task.send_events = sends_events


_telling: WeakValueDictionary[str, StepRequest] = WeakValueDictionary()


def receive(delivery: str, at: str | None, events: list[Event]) -> None:
    """Pass a child's report to its delivery."""
    request = _telling.get(delivery)
    if request is not None:
        request.report(at, events)


def _listens(eventer: Any) -> bool:
    """Whether a worker sends task events: with ``-E``, or since a monitor enabled them."""
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))


class Sight:
    """Reads the store for a main process that must not wait long for it."""

    def __init__(self) -> None:
        self._look: Look | None = None
        self._blind_until = 0.0
        self._seen: dict[str, Mapping[str, AtWork]] = {}
        self._seen_until = 0.0

    def open(self, look: Look) -> None:
        """Set the reader, in a worker that starts."""
        self._look, self._blind_until, self._seen_until = look, 0.0, 0.0

    def look(self, saga_id: str, delivery: str) -> AtWork | None:
        """A delivery's running step; None if there is none, or the store does not answer.

        An ``inspect`` reads a saga once for all its deliveries.
        """
        now = time.monotonic()
        if now >= self._seen_until:
            self._seen, self._seen_until = {}, now + SEEN_S
        if saga_id not in self._seen:
            self._seen[saga_id] = self._read(saga_id)
        return self._seen[saga_id].get(delivery)

    def _read(self, saga_id: str) -> Mapping[str, AtWork]:
        if self._look is None or time.monotonic() < self._blind_until:
            return {}
        try:
            return self._look(saga_id)
        except (StoreError, MultiAgentsError) as error:
            if isinstance(error, StoreError):
                self._blind_until = time.monotonic() + BLIND_S
            log.warning("cannot see which step is at work", saga=saga_id, error=str(error))
            return {}


sight = Sight()
"""Of the one worker that a process has."""
