"""How do the engine's messages do without kombu's ack emulation?

kombu keeps every message that a worker holds in a hash on the server until it is acknowledged:
over half of Celery's cost for a small task.  An engine message stands in an outbox and is sent
again if nobody claims it, so it is kept in memory only; all other messages are treated as kombu
does (E11: switched off for a whole connection, a SIGKILL lost other people's tasks).

For kombu 5.7; `WorkerTransport` is only used by consumers of the package's own app.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis, virtual

from multiagents.core.names import HEADER


class OutboxQoS(redis.QoS):
    """kombu's QoS, but messages that stand in an outbox stay in memory."""

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

    def restore_unacked(self, client: Any = None) -> None:
        """Put everything that is held back into its queue, at a warm shutdown.

        Without a connection nothing can be put back, and nothing has to be: what the engine
        remembers is sent again, and all else stands on the server.  kombu 5.7 fails there, which
        ends the worker: it reads the message's host from a connection that is gone.
        """
        if getattr(self.channel.connection, "client", None) is None:
            self._delivered.clear()
            return
        for tag in [tag for tag in self._delivered if self._stands_in_outbox(tag)]:
            self._put_back(self._delivered.pop(tag))
        super().restore_unacked(client)

    def _stands_in_outbox(self, delivery_tag: str) -> bool:
        message = self._delivered.get(delivery_tag)
        return message is not None and self._is_remembered(message)

    def _is_remembered(self, message: Any) -> bool:
        """Whether the engine itself knows what to do should this message be lost.

        A command stands in its outbox.  A plain task's time-out decides, if it is over before
        kombu would deliver again: the fence would refuse what comes then.
        """
        mark = message.headers.get(HEADER)
        if mark is None:
            return False
        return len(mark) == 6 or mark[6] < self.visibility_timeout

    def _put_back(self, message: Any) -> None:
        virtual.Channel._restore(self.channel, message)


class WorkerChannel(redis.Channel):
    """kombu's channel with `OutboxQoS`."""

    QoS = OutboxQoS


class WorkerTransport(redis.Transport):
    """What ``broker_transport`` names for the package's own workers."""

    Channel = WorkerChannel


NAME = f"{__name__}:{WorkerTransport.__name__}"
