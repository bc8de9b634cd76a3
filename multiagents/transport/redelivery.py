"""What happens to an engine message whose saga's server takes no writes now?

A start by message, or a plain task's return by message, is recorded nowhere else, and is
idempotent.  So it is never given up because a server is away or takes no writes.  It goes back to
the broker for a later delivery, and leaves its slot to other work.  If the broker takes nothing
either, often because it is the same server, it waits in its slot.

Its task must be acked late: then the broker keeps the message until this ends, even if the worker
dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, repeat
from math import inf
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import Ignore, Reject

from multiagents.core.exceptions import NoServer, UnknownWorker
from multiagents.engine.catalog import Catalog
from multiagents.storage.client import UNREACHABLE
from multiagents.transport.publisher import HastyBroker

log = structlog.get_logger(__name__)

AWAY = (NoServer, *UNREACHABLE)
HEARD_S = 30.0
"""The time after an outage within which every worker has announced itself again."""
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""The delays of a message's redeliveries, in order; the last one holds for all later ones."""


class Insistence:
    """Repeats the action of a message until its server takes it.

    ``stopping``: whether this worker is stopping.
    """

    def __init__(self, app: Celery, stopping: Callable[[], bool], catalog: Catalog) -> None:
        self._app = app
        self._broker = HastyBroker(app)
        self._stopping = stopping
        self._catalog = catalog
        self._away_at = -HEARD_S
        self._waits = False

    def insist(self, task: Any, act: Callable[[], None]) -> None:
        """Do the action of the message of ``task``.

        Raises Ignore if the message comes again, and Reject if its worker stops first; the broker
        keeps it then.  Without a message, the action is tried once.
        """
        if task.request.called_directly or task.request.is_eager:
            act()
            return
        for delay_s in chain((0.1, 0.2, 0.5, 1.0), repeat(2.0)):
            try:
                act()
            except (*AWAY, UnknownWorker) as error:
                if not self._is_away(error):
                    raise
                self._note(task, error)
                if self._is_sent_again(task):
                    raise Ignore from error
                if self._stopping():
                    raise Reject(str(error), requeue=True) from error
                time.sleep(delay_s)
            else:
                self._note_taken()
                return

    def _is_away(self, error: Exception) -> bool:
        """Whether to retry; also if workers with the function may not be announced yet."""
        now = time.monotonic()
        if not isinstance(error, UnknownWorker):
            self._away_at = now
            return True
        return not self._catalog.has_signs_of_life or now - self._away_at < HEARD_S

    def _note(self, task: Any, error: Exception) -> None:
        """Log the wait once for each process and outage."""
        if not self._waits:
            self._waits = True
            log.warning("messages wait for their server", task=task.name, why=str(error))

    def _note_taken(self) -> None:
        if self._waits:
            self._waits = False
            log.info("messages are taken again")

    def _most_s(self) -> float:
        """The longest delay, well within the visibility timeout of kombu."""
        options = self._app.conf.broker_transport_options or {}
        return float(options.get("visibility_timeout", inf)) / 4

    def _is_sent_again(self, task: Any) -> bool:
        """Send the message again, in one short try; returns whether the broker has it."""
        if self._broker.rests():
            return False
        times = task.request.retries
        pause_s = min(PAUSES_S[min(times, len(PAUSES_S) - 1)], self._most_s())
        again = task.signature_from_request(countdown=pause_s, retries=times + 1)
        try:
            with self._broker.producer() as producer:
                options = {**again.options, **self._broker.options(producer, None)}
                # Not by the task's own `apply_async`, which would act at once if it can.
                self._app.send_task(
                    task.name, again.args, again.kwargs, producer=producer, **options
                )
        except Exception as error:  # noqa: BLE001 - a transport may raise anything
            self._broker.note()
            log.debug("a message is not sent again", task=task.name, error=type(error).__name__)
            return False
        return True
