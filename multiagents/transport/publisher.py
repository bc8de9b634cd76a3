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

PRECONDITION_FAILED = 406
"""AMQP's reply code for a queue that was declared with other arguments before."""
REST_S = 3.0
"""A sweep that finds a thousand commands to be sent must not wait for each."""
_TIMES = {"socket_timeout": MAIN_TIMEOUT_S, "socket_connect_timeout": MAIN_TIMEOUT_S}
_AT_ONCE = {"interval_start": 0, "interval_step": 0, "interval_max": 0}


class Broker:
    """An app's broker as Celery uses it: with the app's own connections and patience."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._declared_elsewhere: set[str] = set()

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

    def options(self, producer: Any, queue: str | None) -> dict[str, Any]:
        """For a message that Celery sends with this producer, to a queue that it names."""
        return {"declare": []} if queue in self._declared_elsewhere else {}

    def is_declared_elsewhere(self, queue: str | None, error: Exception, producer: Any) -> bool:
        """Whether a queue was refused because it is there already, in another form.

        A quorum queue of another app, for instance.  From now on it is not declared here, and the
        producer is one that can send to it: the refusal has closed its channel.
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
        """What looks into queues."""
        with self.app.connection_for_read() as connection:
            yield connection


class HastyBroker(Broker):
    """The same for who must not wait; a broker of another kind as it is, but with rests.

    Thread-safe: each thread has connections of its own.
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
        self._own.forget()
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
        """One try, where the connection is our own."""
        once = {"retry": False} if producer is self._own.producer else {}
        return {**once, **super().options(producer, queue)}

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """One that gives up soon: of AMQP this thread's own, because it is costly to open."""
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
    """What a thread keeps, and of which process it is."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self.producer: Any = None
        self.reader: Any = None
        """A connection to look into queues."""

    def keep_usable(self) -> None:
        """Forget what is another process's, and what the broker has closed meanwhile."""
        if self._pid != os.getpid():
            self._pid, self.producer, self.reader = os.getpid(), None, None
        if any(map(_has_closed, self._connections())):
            self.forget()

    def forget(self) -> None:
        """Close them; what is another process's is left to that."""
        if self._pid == os.getpid():
            for connection in self._connections():
                connection.collect()  # without a word to a broker that may be silent
        self.producer = self.reader = None

    def _connections(self) -> list[Any]:
        both = (self.producer and self.producer.connection, self.reader)
        return [each for each in both if each is not None]


def _has_closed(connection: Any) -> bool:
    """Whether an AMQP broker has closed a connection while it was idle.

    It does so when it stops, and after some minutes, because nobody answers its heartbeats there.
    """
    if not is_amqp(connection) or not connection.connected:
        return False
    try:
        connection.drain_events(timeout=0)
    except TimeoutError:  # nothing has come
        return False
    except (OSError, *connection.connection_errors):
        return True
    return False


_NEVER_SENT = (
    KeyError,  # of a router, or QueueNotFound; kombu's own, of a connection, are wrapped by then
    SerializationError,
    SerializerNotInstalled,
    ContentDisallowed,
)
"""What is wrong with a message itself, though kombu's errors all descend from one."""


def kind_of(connection: Any) -> str:
    """The kind of broker to which a connection of kombu leads: "redis", "amqp" …"""
    return str(connection.transport.driver_type)


def is_redis(connection: Any) -> bool:
    """Whether it leads to Redis, perhaps by way of Sentinels."""
    return kind_of(connection) == "redis"


def is_amqp(connection: Any) -> bool:
    """Whether it leads to RabbitMQ, or another broker that speaks AMQP."""
    return kind_of(connection) == "amqp"


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
