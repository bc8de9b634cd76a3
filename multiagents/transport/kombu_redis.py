"""How does a worker survive its broker's outage, and why do engine messages need no ack emulation?

**A broker that goes away.**  With Celery 5.7 and kombu 5.7 this ends a prefork or threads worker
that holds messages: ``AttributeError: 'NoneType' object has no attribute 'hostname'`` (or
``'client'``).  kombu cannot close its channel, because it first reads and restores
through dead sockets.  So Celery closes it again when the connection is gone.  `SteadyChannel`
closes all the same.  The held messages stay on the server, and kombu's visibility timeout returns
them.
`SteadyTransport` does only that.  Any Celery app on Redis may name it as its ``broker_transport``
(`SentinelSteadyTransport` with Sentinels); `WorkerTransport` includes it.

**A broker that takes no writes.**  A Redis may be full, have become a replica, fail to write to its
disk, or lack replicas.  Its answer is then a fatal error to Celery.  A worker ends when it starts
or reconnects.  Unless the server is only full, a running worker ends too, since a fetch is a write.
Here such an answer counts as a lost connection: the worker retries until the server takes writes.
redis-py has no error class for the last two cases; `Refusals` adds one.  A server that does nothing
for now, such as one kept busy by a script (BUSY), is treated alike.

**A message that cannot be read.**  kombu and Celery read parts of a message before any check.  A
message that Celery did not send (no JSON, a header or a tag of another type) ends a worker, at each
redelivery by kombu.  Here it is logged and dropped, as Celery does with a body that it cannot
decode.

**Ack emulation.**  kombu keeps every message in a hash on the server until the worker acknowledges
it.  That is over half of Celery's cost for a small task.  An engine message is in an outbox, and is
sent again if no worker claims it.  So it is kept in memory only.  All other messages are treated as
by kombu (E11: without it for a whole connection, a SIGKILL lost tasks of other users).

For kombu 5.7; `WorkerTransport` is only used by consumers of the package's own app.
"""

from __future__ import annotations

import traceback
from functools import cache, partial
from json import JSONDecodeError
from pathlib import Path
from typing import Any

import structlog
from kombu.connection import Connection
from kombu.exceptions import SerializationError
from kombu.transport import get_transport_cls, redis, virtual
from redis.exceptions import DataError, ResponseError

from multiagents.core.marks import read_mark
from multiagents.storage.refusals import CLASSES, word_of
from multiagents.transport.mistyped_queues import TypedChannel

log = structlog.get_logger(__name__)

PROBE = "_kombu.takes-writes"
"""A key that never exists, so that a SET with XX changes nothing."""


DROPPED = "a message cannot be read, it is dropped"
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, DataError, SerializationError)
"""The errors of kombu and Celery for a message in an unexpected form."""


class Refused(ResponseError):
    """A server's refusal of a write or of any command, for which redis-py has no class."""


REFUSED = (*CLASSES, Refused)
"""Errors of a server that answers, but takes no writes, or no commands, for now."""


class Refusals:
    """Turns a refusal in any reply into a `Refused`.

    It is mixed into the parser that redis-py has chosen for a connection: hiredis's, or its own for
    the protocol in use.  So it costs nothing without an error, and sees errors inside the reply of
    a transaction.
    """

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """The error for a server's reply."""
        inherited: Any = super()
        error: Exception = inherited.parse_error(response)
        if isinstance(error, ResponseError) and not isinstance(error, REFUSED) and word_of(error):
            return Refused(response)
        return error


class _Telling:
    """Mixed into a redis-py connection, it adds `Refusals` to each parser that is set."""

    def set_parser(self, parser_class: type) -> None:
        """Set a new parser; redis-py does so at the start, and at a change of protocol."""
        inherited: Any = super()
        inherited.set_parser(telling_parser(parser_class))


@cache
def telling_parser(chosen: type) -> type:
    """redis-py's parser with `Refusals`."""
    return chosen if issubclass(chosen, Refusals) else type(chosen.__name__, (Refusals, chosen), {})


def _telling_connection(chosen: type) -> type:
    """A connection class with `_Telling`; not cached, since kombu's class holds its channel."""
    return type(chosen.__name__, (_Telling, chosen), {})


class SteadyQoS(redis.QoS):
    """kombu's QoS, but messages that cannot be put back stay in their place."""

    def restore_unacked(self, client: Any = None) -> None:
        """Put all held messages back into their queues, when the channel is closed.

        Without a connection none can be put back, and none needs to be: the server has it, or the
        engine sends it again.
        """
        if getattr(self.channel.connection, "client", None) is not None:
            try:
                self._restore_held(client)
            except self.channel.connection_errors as error:
                log.info("broker is away, messages are left to it", error=type(error).__name__)
        self._delivered.clear()

    def _restore_held(self, client: Any) -> None:
        super().restore_unacked(client)


class SteadyChannel(TypedChannel):
    """kombu's channel, which also closes without its server."""

    QoS = SteadyQoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = super()._connparams(asynchronous)
        found["connection_class"] = _telling_connection(found["connection_class"])
        return found

    def _brpop_read(self, **options: Any) -> Any:
        """Fetch one message; drop it if it is no JSON."""
        try:
            return super()._brpop_read(**options)
        except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            log.error(DROPPED, error=f"{type(error).__name__}: {error}")
            return True

    def close(self) -> None:
        """Close; if the server is there, read pending replies and remove bindings."""
        try:
            super().close()
        except self.connection_errors as error:
            # The read is past and is not repeated.  Without bindings to remove, the next call
            # sends nothing to the server.
            log.info("broker is away, channel is closed", error=type(error).__name__)
            self._fanout_queues.clear()
            super().close()


class SteadyTransport(redis.Transport):
    """A ``broker_transport`` for any Celery app on Redis."""

    Channel = SteadyChannel
    connection_errors = (*redis.Transport.connection_errors, *REFUSED)

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        client.switch = partial(_switch, client, type(self))

    def establish_connection(self) -> Any:
        """Connect to a server that takes writes; raises a refusal as a connection error."""
        connection = super().establish_connection()
        self._avail_channels[-1].client.set(PROBE, "", xx=True)
        return connection

    def _deliver(self, message: Any, queue: str) -> None:
        """Pass a message to its consumer; drop it if it cannot be read."""
        try:
            super()._deliver(message, queue)
        except UNREADABLE as error:
            why, at = f"{type(error).__name__}: {error}", _innermost(error)
            log.error(DROPPED, queue=queue, error=why, at=at)
            tag = _tag_of(message)
            for channel in self.channels:
                if tag in channel.qos._delivered:
                    channel.basic_ack(tag)


def _innermost(error: BaseException) -> str:
    """The place of an error: a file's name and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _tag_of(message: Any) -> str:
    properties = message.get("properties") if isinstance(message, dict) else None
    tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
    return tag if isinstance(tag, str) else ""


def _switch(client: Any, transport: type[SteadyTransport], url: str) -> None:
    """Switch kombu's connection to its next URL, and keep its transport.

    kombu itself would take the transport of the URL's scheme from then on.  Among several Sentinels
    it switches whenever it cannot connect.
    """
    type(client).switch(client, url)
    client.transport_cls = f"{transport.__module__}:{transport.__name__}"


class FaithfulConnection(Connection):
    """kombu's connection, which accepts a steady transport for ``redis+socket://`` too.

    kombu itself always takes the transport named before the ``+``.
    """

    def __init__(
        self,
        hostname: Any = "localhost",
        userid: Any = None,
        password: Any = None,
        virtual_host: Any = None,
        port: Any = None,
        *,
        transport: Any = None,
        **options: Any,
    ) -> None:
        address = (hostname, userid, password, virtual_host, port)
        super().__init__(*address, transport=transport, **options)
        if self.uri_prefix == "redis" and transport and is_steady(transport):
            self.transport_cls = self._initial_params["transport"] = transport


def is_steady(transport: Any) -> bool:
    """Whether a ``broker_transport`` is one of this file."""
    found: Any = get_transport_cls(transport)
    return issubclass(found, SteadyTransport)


class SentinelSteadyChannel(SteadyChannel, redis.SentinelChannel):
    """The steady channel behind Sentinels."""


class SentinelSteadyTransport(SteadyTransport, redis.SentinelTransport):
    """A ``broker_transport`` for any app whose broker is behind Sentinels."""

    default_port = redis.SentinelTransport.default_port
    Channel = SentinelSteadyChannel


class OutboxQoS(SteadyQoS):
    """The steady QoS, but messages that are in an outbox stay in memory."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message until it is acknowledged."""
        if self._is_remembered(message):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Drop a message that is done."""
        if self._stands_in_outbox(delivery_tag):
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message; with ``requeue`` put it back into its queue."""
        if not self._stands_in_outbox(delivery_tag):
            super().reject(delivery_tag, requeue)
            return
        if requeue:
            self._put_back(self._delivered[delivery_tag])
        virtual.QoS.ack(self, delivery_tag)

    def _restore_held(self, client: Any) -> None:
        for tag in [tag for tag in self._delivered if self._stands_in_outbox(tag)]:
            self._put_back(self._delivered.pop(tag))
        super()._restore_held(client)

    def _stands_in_outbox(self, delivery_tag: str) -> bool:
        message = self._delivered.get(delivery_tag)
        return message is not None and self._is_remembered(message)

    def _is_remembered(self, message: Any) -> bool:
        """Whether the engine recovers if this message is lost.

        A command is in its outbox.  A plain task's timeout decides, if it ends before kombu would
        deliver again: the fence would refuse a later delivery.
        """
        mark = read_mark(message.headers)
        if mark is None:
            return False
        return mark.timeout_s is None or mark.timeout_s < self.visibility_timeout

    def _put_back(self, message: Any) -> None:
        virtual.Channel._restore(self.channel, message)


class WorkerChannel(SteadyChannel):
    """The steady channel with `OutboxQoS`."""

    QoS = OutboxQoS


class WorkerTransport(SteadyTransport):
    """The ``broker_transport`` of the package's own workers."""

    Channel = WorkerChannel


class SentinelWorkerChannel(WorkerChannel, redis.SentinelChannel):
    """The worker channel behind Sentinels."""


class SentinelWorkerTransport(WorkerTransport, redis.SentinelTransport):
    """The worker transport behind Sentinels."""

    default_port = redis.SentinelTransport.default_port
    Channel = SentinelWorkerChannel


NAME = f"{__name__}:{WorkerTransport.__name__}"
TRANSPORTS = {
    "redis": NAME,
    "rediss": NAME,
    "redis+socket": NAME,
    "sentinel": f"{__name__}:{SentinelWorkerTransport.__name__}",
}
"""The transports by the scheme of ``broker_url``."""
