"""How do Celery's monitors see each step that a delivery runs?

A worker's main process sends the events of deliveries, and a delivery may run several steps (E14).
So where monitors listen (``-E``), a child reports each begin and end of a step to the main process.
There `step_request` sends the events in the worker's name, over its one connection, in their order.
A pool without children calls it directly.  Where no monitor listens, nothing here is called.

An event may be lost: nothing waits for a monitor, and no step fails for one.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from celery.states import FAILURE, RETRY
from celery.utils.serialization import get_pickled_exception
from kombu.utils.encoding import safe_repr

from multiagents.core import ids
from multiagents.core.exceptions import MultiAgentsError
from multiagents.core.ports import Assignment, Unclaimed
from multiagents.storage.client import StoreError

log = structlog.get_logger(__name__)

Event = tuple[str, str, dict[str, Any]]
"""The type, the id of the task, and the other fields."""
Receive = Callable[[str, str | None, list[Event]], None]
"""Called with a delivery's id, the id of its present step, and events.

The step is "" after the last one has ended; None before the first.
"""
MOST_TEXT = 16_384
"""Characters of an error or a traceback, of which the end is kept."""
LISTEN_S = 0.05
"""The delay of the events of continued steps."""
WAIT_S = 0.2
"""The time that a step waits for a slow main process before its event is lost."""
MOST_BYTES = 1 << 18
_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
"""A record arrives whole, or not at all."""

_REFUSED: dict[Unclaimed, tuple[str, dict[str, Any]]] = {
    Unclaimed.LATER: ("task-retried", {"exception": "its saga is paused", "traceback": None}),
    Unclaimed.WITHDRAWN: ("task-revoked", {"terminated": False, "signum": None, "expired": False}),
}
"""The event of a message whose attempt does not begin; for a taken one, its owner sends events."""


class Channel:
    """Leads from a worker's children to its main process, which never waits for them."""

    def __init__(self) -> None:
        self._main = 0
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._receive: Receive | None = None
        self._room = bytearray()
        self._losing = False

    def open(self, receive: Receive) -> None:
        """Open a channel before a worker forks; children of an earlier worker keep their own."""
        self.close()
        reader, writer = socket.socketpair(socket.AF_UNIX, _KIND)
        reader.setblocking(False)
        writer.setblocking(False)
        self._ends, self._receive, self._main = (reader, writer), receive, os.getpid()
        self._room, self._losing = bytearray(MOST_BYTES), False

    def close(self) -> None:
        """Close the channel; in a worker, the end of its process does that."""
        ends, self._ends = self._ends, None
        for end in ends or ():
            end.close()

    def send(self, delivery: str, at: str | None, events: list[Event]) -> None:
        """Send to the main process; a pool without children calls it at once."""
        if self._ends is None or self._receive is None:
            return
        if os.getpid() == self._main:
            self._receive(delivery, at, events)
            return
        try:
            self._put(self._ends[1], json.dumps([delivery, at, events]).encode())
        except OSError as error:  # the main process does not read, or is gone
            if not self._losing:
                log.warning("task events are lost: monitors miss some steps", error=str(error))
            self._losing = True
        else:
            self._losing = False

    def _put(self, writer: socket.socket, record: bytes) -> None:
        try:
            writer.send(record)
        except BlockingIOError:
            if self._losing:
                raise
            room = select.poll()
            room.register(writer, select.POLLOUT)
            room.poll(WAIT_S * 1000)
            writer.send(record)

    def listen(self, hub: Any) -> None:
        """Make the main process's event loop receive, in batches of `LISTEN_S`.

        Events that go to the monitors together cost a tenth each.
        """
        if self._ends is None:
            return
        reader = self._ends[0]

        def soon() -> None:
            hub.remove_reader(reader)
            hub.call_later(LISTEN_S, now)

        def now() -> None:
            self.drain()
            hub.add_reader(reader, soon)

        hub.add_reader(reader, soon)

    def drain(self) -> None:
        """Receive the records of the children; called in the main process."""
        if self._ends is None or self._receive is None:
            return
        while True:
            try:
                size = self._ends[0].recv_into(self._room)
            except BlockingIOError:
                return
            delivery, at, events = json.loads(self._room[:size])
            self._receive(delivery, at, events)


channel = Channel()
"""Of the one worker that a process has."""


class DeliveryEvents:
    """The events of one delivery."""

    def __init__(self, delivery: str) -> None:
        self._delivery = delivery
        self._at = delivery
        self._ended: list[Event] = []
        """Of the last ended step, until another begins."""

    def begins(self, task: Any, held: Assignment) -> None:
        """An attempt has been claimed; called where its ``task`` has a request."""
        request = task.request
        self._at = request.id
        events, self._ended = self._ended, []
        if task.send_events:
            now = time.time()
            if request.id != self._delivery:  # for a message's own step, Celery sends it
                events.append(("task-received", request.id, _about(request, held, now)))
            events.append(("task-started", request.id, {"timestamp": now}))
        channel.send(self._delivery, self._at if task.send_events else "", events)

    def ended(self, task: Any, task_id: str, outcome: Any) -> None:
        """Note a tracer's outcome; it is sent with the next step, or by `close`."""
        end = _end(outcome) if task.send_events else None
        if end is not None:
            kind, fields = end
            self._ended = [(kind, task_id, {"timestamp": time.time(), **fields})]

    def refused(self, ask: Callable[[], Unclaimed]) -> None:
        """Report a message whose attempt cannot be claimed, so does not run here."""
        try:
            why = ask()
        except (StoreError, MultiAgentsError) as error:
            log.warning("task event not sent", task_id=self._delivery, error=str(error))
            return
        if why in _REFUSED:
            kind, fields = _REFUSED[why]
            channel.send(self._delivery, None, [(kind, self._delivery, fields)])

    def close(self) -> None:
        """End the delivery; Celery itself sends the end of the message's own step."""
        if self._at != self._delivery:
            channel.send(self._delivery, "", self._ended)


def _about(request: Any, held: Assignment, now: float) -> dict[str, Any]:
    return {
        "timestamp": now,
        "name": held.worker,
        "args": ids.shown_args(held.saga_id, *held.ref),
        "kwargs": "{}",
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "retries": 0,
        "eta": None,
        "expires": None,
    }


def _end(outcome: Any) -> tuple[str, dict[str, Any]] | None:
    """The event of a tracer's outcome, in the main process's form; None for none."""
    value, info, runtime, shown = outcome
    if info is None:
        return "task-succeeded", {"result": shown, "runtime": runtime}
    kind = {FAILURE: "task-failed", RETRY: "task-retried"}.get(info.state)
    if kind is None:
        return None
    error: str = safe_repr(get_pickled_exception(value.exception))  # type: ignore[no-untyped-call]
    return kind, {"exception": error[:MOST_TEXT], "traceback": str(value.traceback)[-MOST_TEXT:]}
