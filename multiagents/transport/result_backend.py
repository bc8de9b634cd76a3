"""How is an outcome stored without a long wait?

The process that ends a saga stores its outcome: a worker's slot, or the sweeper of all sagas.
Celery's Redis backend may retry for 10 s and more with ``always_retry``, and waits two minutes for
a silent server.  The engine itself retries, so here one short try is enough.  A server that did not
answer is not used for some seconds.

With ``rpc://`` an outcome is stored nowhere: it is a message to the queue on which the caller of
the start listens.  So that queue is recorded with the start, as a part of its canvas.

For Celery 5.7.
"""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery
from celery.backends.redis import RedisBackend
from celery.backends.rpc import RPCBackend

from multiagents.storage.client import UNREACHABLE
from multiagents.storage.refusals import word_of

TIMEOUT_S = 2.0
"""For one connection and for one reply."""
REST_S = 3.0
"""The pause after a failed try: a sweep with a thousand outcomes must not wait for each."""
ONE_TRY = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}


class HastyBackend:
    """An app's result backend; a Redis with one short try, any other unchanged."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._own: tuple[int, Any] | None = None
        self._rests_until = 0.0

    def get(self) -> Any:
        """The backend of this process; a forked child makes its own."""
        if not isinstance(self._app.backend, RedisBackend):
            return self._app.backend
        if self._own is None or self._own[0] != os.getpid():
            self._own = (os.getpid(), impatient(self._app))
        return self._own[1]

    def rests(self) -> bool:
        """Whether its server has just failed to answer."""
        return time.monotonic() < self._rests_until

    def note(self, error: Exception) -> None:
        """Pause if its server failed, or does nothing for now."""
        if isinstance(error, UNREACHABLE) or word_of(error):
            self._rests_until = time.monotonic() + REST_S


def impatient(app: Celery) -> Any:
    """A second Redis backend of an app, with one short try."""
    backend = app._get_backend()
    backend.always_retry = False
    backend._transport_options = {**backend._transport_options, "retry_policy": ONE_TRY}
    backend.connparams["socket_timeout"] = TIMEOUT_S
    if "socket_connect_timeout" in backend.connparams:  # not for a unix socket
        backend.connparams["socket_connect_timeout"] = TIMEOUT_S
    return backend


def reply_of(app: Celery, queue: str | None) -> dict[str, str]:
    """The part of a start's canvas that names its reply queue; empty if results are stored."""
    return {"reply_to": queue} if queue and isinstance(app.backend, RPCBackend) else {}


def declare_reply(app: Celery, task_id: str, producer: Any) -> None:
    """Declare the queue on which this thread listens, as Celery does when it sends a task."""
    with app.producer_or_acquire(producer) as sender:
        app.backend.on_task_call(sender, task_id)
