"""How does a worker outlive its broker, and how do engine messages do without ack emulation?

**A broker that goes away.**  With Celery 5.7 and kombu 5.7 a prefork or threads worker that holds
messages when its Redis goes away ends with ``AttributeError: 'NoneType' object has no attribute
'hostname'`` (or ``'client'``): kombu's channel cannot be closed, because it reads and restores
through dead sockets first, so Celery closes it once more, when its connection is gone.
`SteadyChannel` closes all the same.  What it held stays on the server, where kombu's visibility
time-out brings it back.  `SteadyTransport` is that alone, and the ``broker_transport`` that any
Celery app on Redis may name (`SentinelSteadyTransport` with Sentinels); `WorkerTransport` has it
too.

**A broker that takes no writes.**  A Redis that is full, has become a replica, cannot write to its
disk or lacks replicas answers with an error that Celery takes to be beyond repair.  A worker that
starts or reconnects then ends, and but for the first reason any worker: to fetch a message is a
write.  Here such an answer is a lost connection, so that the worker tries again until the server
takes writes.  For the last two redis-py has no class of error; `Refusals` gives them one.
Likewise one that does nothing for now: a script keeps it busy (BUSY), say.

**A message that cannot be read.**  kombu and Celery look into a message before they trust it, and
what no Celery has sent (no JSON, a header or a tag of another type) ends a worker, again and again
while kombu gives the message back.  Here it is logged and dropped, as Celery does with a body that
it cannot decode.

**Ack emulation.**  kombu keeps every message that a worker holds in a hash on the server until it
is acknowledged: over half of Celery's cost for a small task.  An engine message stands in an
outbox and is sent again if nobody claims it, so it is kept in memory only; all other messages are
treated as kombu does (E11: switched off for a whole connection, a SIGKILL lost other people's
tasks).

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
"""A key that never is, so that a SET which only overwrites changes nothing."""


DROPPED = "a message cannot be read, it is dropped"
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, DataError, SerializationError)
"""What kombu and Celery raise for a message that they take for another than it is."""


class Refused(ResponseError):
    """A server's refusal, of a write or of any command, for which redis-py has no class."""


REFUSED = (*CLASSES, Refused)
"""The server answers, and takes no writes, or nothing, for now."""


class Refusals:
    """What makes a `Refused` of an answer that says so, wherever it stands.

    Mixed into the parser that redis-py has chosen for a connection: hiredis's, or its own for the
    protocol that they speak.  So it costs nothing where there is no error, and reaches those that
    stand in the reply of a transaction.
    """

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        """The error that a server's answer means."""
        inherited: Any = super()
        error: Exception = inherited.parse_error(response)
        if isinstance(error, ResponseError) and not isinstance(error, REFUSED) and word_of(error):
            return Refused(response)
        return error


class _Telling:
    """Mixed into a connection of redis-py: its parser, whichever and whenever, has `Refusals`."""

    def set_parser(self, parser_class: type) -> None:
        """Take a new parser; redis-py does so at the start, and when protocols change."""
        inherited: Any = super()
        inherited.set_parser(telling_parser(parser_class))


@cache
def telling_parser(chosen: type) -> type:
    """redis-py's parser with `Refusals`."""
    return chosen if issubclass(chosen, Refusals) else type(chosen.__name__, (Refusals, chosen), {})


def _telling_connection(chosen: type) -> type:
    """Never kept: kombu makes a class for each channel, which holds the channel."""
    return type(chosen.__name__, (_Telling, chosen), {})


class SteadyQoS(redis.QoS):
    """kombu's QoS, but what cannot be put back is left where it is."""

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything that is held back into its queue, when its channel is closed.

        Without a connection nothing can be put back, and nothing has to be: it stands on the
        server, or the engine sends it again.
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
    """kombu's channel, which can be closed without its server."""

    QoS = SteadyQoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        found: dict[str, Any] = super()._connparams(asynchronous)
        found["connection_class"] = _telling_connection(found["connection_class"])
        return found

    def _brpop_read(self, **options: Any) -> Any:
        """Take one message; one that is no JSON is dropped."""
        try:
            return super()._brpop_read(**options)
        except (JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            log.error(DROPPED, error=f"{type(error).__name__}: {error}")
            return True

    def close(self) -> None:
        """Close, reading what still comes and removing bindings if the server is there."""
        try:
            super().close()
        except self.connection_errors as error:
            # It is past its read now, which is not repeated.  Without bindings to remove it asks
            # the server for nothing any more.
            log.info("broker is away, channel is closed", error=type(error).__name__)
            self._fanout_queues.clear()
            super().close()


class SteadyTransport(redis.Transport):
    """What any Celery app on Redis may name as its ``broker_transport``."""

    Channel = SteadyChannel
    connection_errors = (*redis.Transport.connection_errors, *REFUSED)

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        client.switch = partial(_switch, client, type(self))

    def establish_connection(self) -> Any:
        """Connect to a server that takes writes; raises its refusal as a connection's error."""
        connection = super().establish_connection()
        self._avail_channels[-1].client.set(PROBE, "", xx=True)
        return connection

    def _deliver(self, message: Any, queue: str) -> None:
        """Hand a message to its consumer; one that cannot be read is dropped."""
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
    """Where an error was raised: a file's name and line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _tag_of(message: Any) -> str:
    properties = message.get("properties") if isinstance(message, dict) else None
    tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
    return tag if isinstance(tag, str) else ""


def _switch(client: Any, transport: type[SteadyTransport], url: str) -> None:
    """Turn kombu's connection to its next URL, and leave it its transport.

    Left to itself it would take the one of the URL's scheme, for good: of several Sentinels it
    turns to the next whenever it cannot connect.
    """
    type(client).switch(client, url)
    client.transport_cls = f"{transport.__module__}:{transport.__name__}"


class FaithfulConnection(Connection):
    """kombu's connection, which takes a steady transport for ``redis+socket://`` too.

    Left to itself it would take the one that stands before the ``+``, whatever it is given.
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
    """Whether what ``broker_transport`` names is one of ours."""
    found: Any = get_transport_cls(transport)
    return issubclass(found, SteadyTransport)


class SentinelSteadyChannel(SteadyChannel, redis.SentinelChannel):
    """The same where Sentinels say which server is the primary."""


class SentinelSteadyTransport(SteadyTransport, redis.SentinelTransport):
    """What an app whose broker is behind Sentinels may name."""

    default_port = redis.SentinelTransport.default_port
    Channel = SentinelSteadyChannel


class OutboxQoS(SteadyQoS):
    """The steady QoS, but messages that stand in an outbox stay in memory."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Hold a message until it is acknowledged."""
        if self._is_remembered(message):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Let go of a message that is done with."""
        if self._stands_in_outbox(delivery_tag):
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Let go of a message, putting it back into its queue with ``requeue``."""
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
        """Whether the engine itself knows what to do should this message be lost.

        A command stands in its outbox.  A plain task's time-out decides, if it is over before
        kombu would deliver again: the fence would refuse what comes then.
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
    """What ``broker_transport`` names for the package's own workers."""

    Channel = WorkerChannel


class SentinelWorkerChannel(WorkerChannel, redis.SentinelChannel):
    """Likewise with Sentinels."""


class SentinelWorkerTransport(WorkerTransport, redis.SentinelTransport):
    """Likewise."""

    default_port = redis.SentinelTransport.default_port
    Channel = SentinelWorkerChannel


NAME = f"{__name__}:{WorkerTransport.__name__}"
TRANSPORTS = {
    "redis": NAME,
    "rediss": NAME,
    "redis+socket": NAME,
    "sentinel": f"{__name__}:{SentinelWorkerTransport.__name__}",
}
"""By the scheme of ``broker_url``."""
