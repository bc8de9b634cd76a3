"""Does the broker answer, and when does it redeliver a message?

If the broker is the sagas' own Redis, the checks of that server cover it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery

from multiagents.cli.doctor import checks
from multiagents.cli.doctor.checks import Check
from multiagents.core.settings import Settings
from multiagents.transport.app_settings import BROKER, faults
from multiagents.transport.direct_publish import same_server
from multiagents.transport.publisher import HastyBroker, is_amqp, is_away, is_redis
from multiagents.workflows.workflow import Workflow

ACKNOWLEDGED_S = 1800.0
"""The default of RabbitMQ's ``consumer_timeout``."""


def of_broker(app: Celery, settings: Settings) -> Iterable[Check]:
    """Whether it answers; nothing if it is the sagas' server, or if its URL is invalid."""
    if _is_no_url(app):
        return
    conf = app.conf
    url = conf.broker_write_url or conf.broker_url
    if settings.state_urls or not same_server(
        settings, url, conf.broker_transport_options, conf.broker_use_ssl
    ):
        yield checks.broker(*_asked(app))


def _is_no_url(app: Celery) -> bool:
    """Whether kombu cannot parse the broker's URL: another check reports that."""
    return any(fault.setting in BROKER for fault in faults(app))


def _asked(app: Celery) -> tuple[str, str]:
    """The broker's URL without its password, and why it does not answer; empty if it does."""
    with HastyBroker(app).connection() as connection:
        where = connection.as_uri()
        try:
            _ = connection.default_channel
        except Exception as error:
            if not is_away(error, connection):
                raise
            return where, f"no broker answers at {where} ({type(error).__name__})"
        finally:
            connection.release()
    return where, ""


def redelivery(app: Celery, workflows: Iterable[Workflow]) -> Iterable[Check]:
    """The broker does not redeliver a message while its step is still running."""
    if _is_no_url(app):
        return
    connection: Any = app.connection_for_read()  # not connected
    if is_redis(connection):
        yield checks.visibility(app.conf.broker_transport_options or {}, workflows)
    elif is_amqp(connection):
        yield acknowledgement(workflows)


def acknowledgement(workflows: Iterable[Workflow]) -> Check:
    """RabbitMQ does not take back a message that a worker has not acknowledged."""
    name = "acknowledgement"
    longest = checks.longest_step(workflows)
    limit = f"{ACKNOWLEDGED_S:g} s (consumer_timeout of RabbitMQ, unless it is set)"
    if longest is None or longest[0] < ACKNOWLEDGED_S:
        return Check(name, "ok", f"{limit}, longer than every step's timeout")
    seconds, step = longest
    return Check(
        name,
        "warn",
        f"{limit}, but step {step} may take {seconds:g} s: RabbitMQ then closes the worker's"
        " connection, and plain tasks with late acknowledgement run twice",
        f"set consumer_timeout = {2000 * seconds:.0f} (milliseconds) in rabbitmq.conf",
    )
