"""How does an app that hosts sagas reach its broker, and which queues does it know?

This file holds the part that `attach` adds to an app, and a starting worker's check of its
settings.  Connects to nothing.

For Celery 5.7 and kombu 5.7.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from celery import Celery
from celery.app.amqp import AMQP
from celery.exceptions import ImproperlyConfigured
from kombu.transport import redis

from multiagents.core.names import COORDINATOR_QUEUE, DEFAULT_QUEUES
from multiagents.transport.app_settings import BROKER, faults, refuse
from multiagents.transport.kombu_redis import (
    TRANSPORTS,
    FaithfulConnection,
    SentinelSteadyTransport,
    SteadyTransport,
)
from multiagents.transport.publisher import kind_of

log = structlog.get_logger(__name__)


def equip(app: Celery) -> None:
    """Give an app the class `HostingAMQP`; an app with a class of its own stays unchanged."""
    if app.amqp_cls == Celery.amqp_cls:
        app.amqp_cls = HostingAMQP
    if "amqp" in vars(app) and type(app.amqp) is AMQP:
        app.amqp.__class__ = HostingAMQP
        if "queues" in vars(app.amqp):
            _add_own_queue(app.amqp.queues)


class HostingAMQP(AMQP):  # type: ignore[misc]  # celery has no types
    """Celery's class, with two differences.

    ``broker_transport`` holds for a broker on a unix socket too.  And the app has the engine's
    queue even if ``task_create_missing_queues`` is off.  So its messages can be sent, and a worker
    without ``-Q`` consumes it.
    """

    Connection = FaithfulConnection

    def Queues(self, *args: Any, **options: Any) -> Any:  # noqa: N802 - the name is Celery's
        """The queues of the app."""
        return _add_own_queue(super().Queues(*args, **options))


def _add_own_queue(queues: Any) -> Any:
    if not queues.create_missing and COORDINATOR_QUEUE not in queues:
        queues.select_add(queues.new_missing(COORDINATOR_QUEUE))
    return queues


def kind(app: Celery) -> str:
    """The kind of an app's broker: "redis", "amqp" …"""
    return kind_of(app.connection_for_read())


def consume_all(app: Celery, homes: Iterable[str]) -> None:
    """Add ``homes``, the queues of a worker's functions, to those that it consumes.

    If the app may make no queues, a missing one is left out; `judge` names it.
    """
    known = {*DEFAULT_QUEUES, *homes}
    queues = app.amqp.queues
    if not queues.create_missing:
        known &= queues.keys()
    queues.select([*queues.consume_from, *sorted(known - set(queues.consume_from))])


def judge(app: Celery, homes: Iterable[str]) -> None:
    """Log the settings that do not work, when a worker starts.

    Raises ImproperlyConfigured for one that would end Celery, and InvalidInput for one that
    `attach` refuses and that was set after it.
    """
    refuse(app)
    for fault in faults(app, homes):
        if fault.setting in BROKER:
            raise ImproperlyConfigured(str(fault))
        log.error(
            "this app's sagas will not get far",
            setting=fault.setting,
            fix=fault.fix,
            why=fault.message,
        )


def skip_ack_emulation(app: Celery) -> None:
    """Skip kombu's ack emulation for engine messages, if the broker is a Redis (E11)."""
    scheme = str(app.conf.broker_url).partition("://")[0]
    if scheme in TRANSPORTS and not app.conf.broker_transport:
        app.conf.broker_transport = TRANSPORTS[scheme]


def steady_for(app: Celery) -> str:
    """The right ``broker_transport`` of an app; empty if it is right, or the broker is no Redis.

    Reads the URLs and connects to nothing.
    """
    found = app.connection_for_read().get_transport_cls()
    if not issubclass(found, redis.Transport) or issubclass(found, SteadyTransport):
        return ""
    sentinels = issubclass(found, redis.SentinelTransport)
    steady = SentinelSteadyTransport if sentinels else SteadyTransport
    return f"{steady.__module__}:{steady.__name__}"


def warn_of_transport(app: Celery) -> None:
    """Log the right ``broker_transport`` of an app that has another one."""
    name = steady_for(app)
    if name:
        log.warning(
            "this worker may end when its broker restarts or fails over",
            fix=f"set broker_transport to {name}",
            see="docs/explanation/celery-failures.md: A worker that outlives its broker",
        )
