"""How does a caller wait for a saga's outcome?

`SagaResult` is a more robust AsyncResult.  Celery's own gives up 20 s after its Redis has gone,
with an error that asks for a restart of the program.  It waits without end for a saga that the
server has lost.  It may also miss an outcome stored while it subscribes, because it subscribes and
polls on different connections.  `SagaResult` logs an outage, continues when the server is back, and
polls from time to time.

It waits by a Redis backend of its own, one for each thread, which reports a lost connection at
once instead of retrying.  For Celery 5.7; with other backends it behaves like AsyncResult.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, NoReturn

import structlog
from celery import Celery
from celery.backends.redis import RedisBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

from multiagents.core.exceptions import UnknownSaga
from multiagents.storage.client import UNREACHABLE, asking
from multiagents.storage.routing import told_at
from multiagents.transport.result_backend import impatient

FIRST_LOOK_S, LOOK_S = 0.1, 5.0
"""The first and the longest pause between two checks of the saga; each is twice the last."""
AWAY_S = 1.0
"""The pause between two tries while the server is away, and before the first check after."""

GOES_ON = "it goes on"

log = structlog.get_logger(__name__)


class ConnectionLost(Exception):
    """The backend's connection is lost.  No OSError, since Celery would swallow that."""


class SagaResult(AsyncResult):  # type: ignore[misc]  # celery has no types
    """The result object of `start_saga.delay`."""

    outcomes: Outcomes | None = None
    saga_id: str = ""
    """The task's id, unless an idempotency key led to an earlier saga."""

    def get(self, timeout: float | None = None, *args: Any, **options: Any) -> Any:
        """The saga's outcome, with the arguments of AsyncResult's.

        Raises SagaFailed, UnknownSaga for a saga that its server has lost, and Celery's
        TimeoutError.  Waits for a server that is away until the timeout.
        """
        if self.outcomes is None or self._cache or not self.outcomes.are_in_redis:
            return super().get(timeout, *args, **options)
        wait = _Wait(self.saga_id, timeout)
        while True:
            self.backend = self.outcomes.backend()
            try:
                with asking(self.outcomes.url):
                    return super().get(wait.slice_s(), *args, **options)
            except CeleryTimeoutError:
                wait.check(None, self.outcomes)
                self._look(wait)
            except (*UNREACHABLE, ConnectionLost) as error:
                self._wait_for_server(wait, self.outcomes.told_of_backend(error))

    def __del__(self) -> None:
        with suppress(ConnectionLost):  # it unsubscribes, perhaps while the server is away
            super().__del__()

    def _look(self, wait: _Wait) -> None:
        assert self.outcomes is not None
        try:
            known = self.outcomes.is_known(self.saga_id)
        except UNREACHABLE as error:
            self._wait_for_server(wait, self.outcomes.told(error))
            return
        try:
            with asking(self.outcomes.url):
                known = known or self.ready()
        except UNREACHABLE as error:
            self._wait_for_server(wait, self.outcomes.told_of_backend(error))
            return
        if known:
            wait.answered()
            return
        raise UnknownSaga(
            f"saga {self.saga_id!r} was started and is gone: its retention is over, or its server"
            " has lost it (a crash, a fail-over, an eviction: see `multiagents doctor`); find out"
            " what its steps have done before you start it again"
        )

    def _wait_for_server(self, wait: _Wait, away: str) -> None:
        assert self.outcomes is not None
        self.outcomes.forget_backend()
        wait.check(away)


class _Wait:
    """One wait: its end, its pauses, and the server's absence."""

    def __init__(self, saga_id: str, timeout_s: float | None) -> None:
        self._saga_id = saga_id
        self._ends_at = inf if timeout_s is None else time.monotonic() + timeout_s
        self._away_since = 0.0
        self._look_s = FIRST_LOOK_S

    def slice_s(self) -> float:
        """The seconds until the next check of the saga."""
        return max(0.0, min(self._look_s, self._ends_at - time.monotonic()))

    def check(self, away: str | None, outcomes: Outcomes | None = None) -> None:
        """Pause if the server is ``away``, and log that once.  Raises TimeoutError at the end.

        ``outcomes`` give the reason why the saga has not ended, for the error.
        """
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            why = f"{away}; " if away else ""
            then = _then(self._saga_id, outcomes) if outcomes else GOES_ON
            late = f"{why}saga {self._saga_id} has not ended in time: {then}"
            raise CeleryTimeoutError(late) from None  # it contains the store's error
        if away is None:
            return
        if not self._away_since:
            self._away_since = time.monotonic()
            until = "as long as it takes" if left_s == inf else f"{left_s:.0f} s more"
            log.warning(f"{away}: waiting for saga {self._saga_id}, {until}")
        self._look_s = AWAY_S
        time.sleep(min(AWAY_S, left_s))

    def answered(self) -> None:
        """Note that the server answered, and has the saga."""
        if self._away_since:
            away_s = round(time.monotonic() - self._away_since)
            log.warning(f"the server is back after {away_s} s: saga {self._saga_id} goes on")
        self._away_since = 0.0
        self._look_s = min(2 * self._look_s, LOOK_S)


def _then(saga_id: str, outcomes: Outcomes) -> str:
    """The further course of a saga whose wait timed out, for the error."""
    with suppress(*UNREACHABLE):
        person = outcomes.person_awaited(saga_id)
        if person:
            return f"it waits for an operator ({person}), see `multiagents explain {saga_id}`"
        stranded = outcomes.stranded(saga_id)
        if stranded:
            return f"{stranded}; see `multiagents explain {saga_id}`"
    return GOES_ON


class Outcomes:
    """The results of one app's sagas.

    They may lie on another server than the sagas.  The callbacks read the sagas' server.
    ``is_known``: whether a saga exists.  ``told``: the server that an error is about.
    ``person_awaited``: why a saga waits for an operator.  ``stranded``: why no worker runs its
    steps.  The last two are empty if that is not so, or not known.
    """

    def __init__(
        self,
        app: Celery,
        *,
        is_known: Callable[[str], bool],
        told: Callable[[Exception], str],
        person_awaited: Callable[[str], str] = lambda saga_id: "",
        stranded: Callable[[str], str] = lambda saga_id: "",
    ) -> None:
        self._app = app
        self.stranded = stranded
        self.person_awaited = person_awaited
        self.told = told
        self.is_known = is_known
        self._local = threading.local()

    @property
    def are_in_redis(self) -> bool:
        """Whether the app's result backend is a Redis."""
        return isinstance(self._app.backend, RedisBackend)

    def result(self, task_id: str, saga_id: str) -> SagaResult:
        """The result object for the caller of a start."""
        made = SagaResult(task_id, backend=self._app.backend, app=self._app)
        made.outcomes, made.saga_id = self, saga_id
        return made

    @property
    def url(self) -> str:
        """The URL of their server, with its password."""
        return _url_of(self._app.backend)

    def told_of_backend(self, error: Exception) -> str:
        """A text for the absence of the results' own server, with the reason."""
        cause = error.__cause__ if isinstance(error, ConnectionLost) else error
        return told_at(self.url, cause or error)

    def backend(self) -> Any:
        """This thread's backend for a wait."""
        own = getattr(self._local, "own", None)
        if own is None or own[0] != os.getpid():
            own = self._local.own = (os.getpid(), self._make())
        return own[1]

    def forget_backend(self) -> None:
        """Close this thread's backend; the next one connects anew."""
        own = self._local.__dict__.pop("own", None)
        if own is not None and own[0] == os.getpid():
            own[1].client.connection_pool.disconnect()

    def _make(self) -> Any:
        backend = impatient(self._app)
        backend.result_consumer._reconnect = _give_up
        return backend


def _url_of(backend: Any) -> str:
    """A backend's URL; its settings may have host, port and database one by one."""
    given = {"host": "localhost", "port": 6379, "db": 0, **backend.connparams}
    return str(backend.url or "redis://{host}:{port}/{db}".format_map(given))


def _give_up() -> NoReturn:
    """Raise ConnectionLost; Celery calls this in its handler of a lost connection."""
    error = sys.exc_info()[1]
    raise ConnectionLost(type(error).__name__) from error
