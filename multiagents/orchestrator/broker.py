"""How is a message sent without keeping anybody waiting?

A worker's slot that sends a step may wait for as long as its app's settings say: Celery tries
several times, and waits for ever for a server that is silent.  A sweeper, or a keeper of leases,
acts for all sagas of its server, and what it sends stands in an outbox: for them one short try is
enough (E20), and a broker that did not answer is left alone for a while.

For Celery 5.7 and kombu 5.7.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from kombu.exceptions import (
    ContentDisallowed,
    KombuError,
    SerializationError,
    SerializerNotInstalled,
)

from multiagents.storage.client import MAIN_TIMEOUT_S
from multiagents.storage.refusals import concerns_a_key

REST_S = 3.0
"""A sweep that finds a thousand commands to be sent must not wait for each."""
_TIMES = {"socket_timeout": MAIN_TIMEOUT_S, "socket_connect_timeout": MAIN_TIMEOUT_S}
_AT_ONCE = {"interval_start": 0, "interval_step": 0, "interval_max": 0}


class Broker:
    """An app's broker as Celery uses it: with the app's own connections and patience."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def rests(self) -> bool:
        """Whether it is not to be asked now."""
        return False

    def note(self) -> bool:
        """Take down that it did not answer; whether the caller is to do without it."""
        return False

    def answers(self) -> bool:
        """Whether Celery may send to it by itself, however long that takes."""
        return True

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """What sends."""
        with self.app.producer_or_acquire() as producer:
            yield producer

    def options(self, producer: Any) -> dict[str, Any]:
        """For each message that Celery sends with this producer."""
        return {}

    def connection(self) -> Any:
        """A new one to look into queues, for a ``with``."""
        return self.app.connection_for_read()


class HastyBroker(Broker):
    """The same for who must not wait; a broker other than Redis as it is, but with rests.

    Thread-safe: each thread has a connection of its own.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self._own = _Own()
        self._rests_until = 0.0

    def rests(self) -> bool:
        """Whether it has just failed to answer."""
        return time.monotonic() < self._rests_until

    def note(self) -> bool:
        """Leave it alone for a while; then connect anew, for it may be another server."""
        self._rests_until = time.monotonic() + REST_S
        own, self._own.producer = self._own.producer, None
        if own is not None and self._own.pid == os.getpid():
            own.connection.release()
        return True

    def answers(self) -> bool:
        """Whether it does so right now: Celery, sending by itself, would wait until it does."""
        if self.rests():
            return False
        with self.connection() as connection:
            try:
                _ = connection.default_channel  # of Redis: which has answered a PING then
            except Exception as error:
                if not is_away(error, connection):
                    raise
                self.note()
                return False
        return True

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """This thread's own; a forked child makes its own."""
        own = self._own
        if own.producer is None or own.pid != os.getpid():
            connection = self.app.connection_for_write()
            if not is_redis(connection):
                with super().producer() as producer:
                    yield producer
                return
            own.producer = self.app.amqp.Producer(_impatient(connection), auto_declare=False)
            own.pid = os.getpid()
        yield own.producer

    def options(self, producer: Any) -> dict[str, Any]:
        """One try, where the connection is our own."""
        return {"retry": False} if producer is self._own.producer else {}

    def connection(self) -> Any:
        """A new one, which gives up soon."""
        connection = self.app.connection_for_read()
        return _impatient(connection) if is_redis(connection) else connection


class _Own(threading.local):
    """What a thread keeps, and of which process it is."""

    pid = 0
    producer: Any = None


_NEVER_SENT = (
    KeyError,  # of a router, or QueueNotFound; kombu's own, of a connection, are wrapped by then
    SerializationError,
    SerializerNotInstalled,
    ContentDisallowed,
)
"""What is wrong with a message itself, though kombu's errors all descend from one."""


def is_redis(connection: Any) -> bool:
    """Whether a connection of kombu leads to Redis, perhaps by way of Sentinels."""
    return bool(connection.transport.driver_type == "redis")


def is_away(error: Exception, connection: Any) -> bool:
    """Whether an error says that the broker does not answer, rather than what was wrong."""
    if concerns_a_key(error):
        return False
    if _of_a_closed_channel(error):
        return True
    away = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
    return isinstance(error, away) and not isinstance(error, _NEVER_SENT)


def _of_a_closed_channel(error: Exception) -> bool:
    """Whether kombu sent by a channel whose connection has been closed: it looks into None."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = str(frame.tb_frame.f_globals.get("__name__")) if frame is not None else ""
    return isinstance(error, AttributeError) and module.startswith("kombu.")


def _impatient(connection: Any) -> Any:
    """A connection, not connected yet, that tries each of its servers once and not for long."""
    options = connection.transport_options
    sentinels = {**(options.get("sentinel_kwargs") or {}), **_TIMES, "retry": None}
    connection.transport_options = {
        **options,
        **_TIMES,
        **_AT_ONCE,
        "retry_on_timeout": False,
        "sentinel_kwargs": sentinels,
        "max_retries": max(len(connection.alt) - 1, 0),
    }
    return connection
