"""How is a message published without a long wait?

A worker's slot that sends a step may wait as long as its app's settings allow.  Celery retries
several times, and waits without end for a silent server.  A sweeper, or a keeper of leases, acts
for all sagas of its server, and its messages are in an outbox.  So it makes one short try (E20),
and does not use a broker that did not answer for some seconds.

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

PRECONDITION_FAILED = 406
"""AMQP's reply code for a queue that exists with other arguments."""
REST_S = 3.0
"""The pause after a failed try: a sweep with a thousand commands must not wait for each."""
_TIMES = {"socket_timeout": MAIN_TIMEOUT_S, "socket_connect_timeout": MAIN_TIMEOUT_S}
_AT_ONCE = {"interval_start": 0, "interval_step": 0, "interval_max": 0}


class Broker:
    """An app's broker as Celery uses it: with the app's own connections and timeouts."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._declared_elsewhere: set[str] = set()

    def rests(self) -> bool:
        """Whether to skip the broker now."""
        return False

    def note(self) -> bool:
        """Note that it did not answer; returns whether the caller must continue without it."""
        return False

    def answers(self) -> bool:
        """Whether Celery itself may send to it, however long that takes."""
        return True

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """A producer for messages."""
        with self.app.producer_or_acquire() as producer:
            yield producer

    def options(self, producer: Any, queue: str | None) -> dict[str, Any]:
        """The options for a message that Celery sends to ``queue`` with this producer."""
        return {"declare": []} if queue in self._declared_elsewhere else {}

    def is_declared_elsewhere(self, queue: str | None, error: Exception, producer: Any) -> bool:
        """Whether a queue was refused because it exists in another form.

        It may be a quorum queue of another app.  From now on it is not declared here.  The refusal
        has closed the producer's channel, so the producer is revived.
        """
        if not queue or getattr(error, "reply_code", None) != PRECONDITION_FAILED:
            return False
        is_new = queue not in self._declared_elsewhere
        self._declared_elsewhere.add(queue)
        producer.connection.collect()
        producer.revive(producer.connection)
        return is_new

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection to read queues."""
        with self.app.connection_for_read() as connection:
            yield connection


class HastyBroker(Broker):
    """A broker for callers that must not wait: one short try, and pauses after a failure.

    A broker that is neither Redis nor AMQP only gets the pauses.  Thread-safe: each thread has
    connections of its own.
    """

    def __init__(self, app: Celery) -> None:
        super().__init__(app)
        self._own = _Own()
        self._rests_until = 0.0

    def rests(self) -> bool:
        """Whether the broker has just failed to answer."""
        return time.monotonic() < self._rests_until

    def note(self) -> bool:
        """Pause, and then connect anew, since it may be another server."""
        self._rests_until = time.monotonic() + REST_S
        self._own.forget()
        return True

    def answers(self) -> bool:
        """Whether the broker answers now; if not, Celery itself would wait until it does."""
        if self.rests():
            return False
        with self.connection() as connection:
            try:
                _ = connection.default_channel  # on Redis this sends a PING
            except Exception as error:
                if not is_away(error, connection):
                    raise
                self.note()
                return False
        return True

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """This thread's producer; a forked child makes its own."""
        own = self._own
        own.keep_usable()
        if own.producer is None:
            connection = self.app.connection_for_write()
            if not (is_redis(connection) or is_amqp(connection)):
                with super().producer() as producer:
                    yield producer
                return
            own.producer = self.app.amqp.Producer(_impatient(connection), auto_declare=False)
        yield own.producer

    def options(self, producer: Any, queue: str | None) -> dict[str, Any]:
        """The options for one try, if the producer is this thread's own."""
        once = {"retry": False} if producer is self._own.producer else {}
        return {**once, **super().options(producer, queue)}

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection that gives up soon; for AMQP this thread keeps one, costly to open."""
        own = self._own
        own.keep_usable()
        if own.reader is not None:
            yield own.reader
            return
        connection = self.app.connection_for_read()
        if is_amqp(connection):
            own.reader = _impatient(connection)
            yield own.reader
            return
        with _impatient(connection) if is_redis(connection) else connection:
            yield connection


class _Own(threading.local):
    """A thread's connections, and the process that made them."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.producer: Any = None
        self.reader: Any = None
        """A connection to look into queues."""

    def keep_usable(self) -> None:
        """Forget connections of another process, and those that the broker has closed."""
        if self._pid != os.getpid():
            self._pid, self.producer, self.reader = os.getpid(), None, None
        if any(map(_has_closed, self._connections())):
            self.forget()

    def forget(self) -> None:
        """Close the connections, unless they belong to another process."""
        if self._pid == os.getpid():
            for connection in self._connections():
                connection.collect()  # sends nothing, since the broker may be silent
        self.producer = self.reader = None

    def _connections(self) -> list[Any]:
        both = (self.producer and self.producer.connection, self.reader)
        return [each for each in both if each is not None]


def _has_closed(connection: Any) -> bool:
    """Whether an AMQP broker has closed an idle connection.

    It does so when it stops, and after some minutes without answers to its heartbeats.
    """
    if not is_amqp(connection) or not connection.connected:
        return False
    try:
        connection.drain_events(timeout=0)
    except TimeoutError:  # no event has arrived
        return False
    except (OSError, *connection.connection_errors):
        return True
    return False


_NEVER_SENT = (
    KeyError,  # of a router, or QueueNotFound; kombu wraps those of a connection
    SerializationError,
    SerializerNotInstalled,
    ContentDisallowed,
)
"""Errors of a message itself; all errors of kombu share one base class."""


def kind_of(connection: Any) -> str:
    """The kind of broker of a kombu connection: "redis", "amqp" …"""
    return str(connection.transport.driver_type)


def is_redis(connection: Any) -> bool:
    """Whether a connection leads to Redis, perhaps behind Sentinels."""
    return kind_of(connection) == "redis"


def is_amqp(connection: Any) -> bool:
    """Whether a connection leads to RabbitMQ, or another broker with AMQP."""
    return kind_of(connection) == "amqp"


def is_away(error: Exception, connection: Any) -> bool:
    """Whether an error means that the broker does not answer, rather than a bad message."""
    if concerns_a_key(error):
        return False
    if _of_a_closed_channel(error):
        return True
    away = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
    return isinstance(error, away) and not isinstance(error, _NEVER_SENT)


def _of_a_closed_channel(error: Exception) -> bool:
    """Whether kombu used a channel of a closed connection, which reads attributes of None."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = str(frame.tb_frame.f_globals.get("__name__")) if frame is not None else ""
    return isinstance(error, AttributeError) and module.startswith("kombu.")


def _impatient(connection: Any) -> Any:
    """The connection, not connected yet, with one short try for each of its servers."""
    options = connection.transport_options
    if is_amqp(connection):
        connection.connect_timeout = MAIN_TIMEOUT_S
        times = {"read_timeout": MAIN_TIMEOUT_S, "write_timeout": MAIN_TIMEOUT_S}
        tries = max(len(connection.alt) - 1, 0)
        connection.transport_options = {**options, **times, **_AT_ONCE, "max_retries": tries}
        return connection
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
