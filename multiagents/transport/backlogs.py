"""How many messages wait in a queue of the broker, and since when?

A Redis broker gives the number of messages and, if the oldest is the engine's, the time of its
sending.  RabbitMQ gives only the number of ready messages: fetched ones do not count, as on Redis,
and all priorities share one queue.  Other brokers give nothing.

For kombu 5.7.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError
from kombu.transport.redis import PRIORITY_STEPS

from multiagents.core.marks import read_mark
from multiagents.engine.queue_heads import Backlog, QueueDepth, QueueHead
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.refusals import concerns_a_key
from multiagents.transport.direct_publish import list_of, priority_of
from multiagents.transport.publisher import is_amqp, is_redis, kind_of

NOT_FOUND = 404
"""RabbitMQ's reply code for a queue that is not declared."""


def depth_of(look: Callable[[QueueHead], Backlog], queue: QueueDepth) -> Backlog:
    """The number of messages in a queue's lists; ``look`` reads one list.

    It is unknown if the broker does not answer.
    """
    total = 0
    for priority in PRIORITY_STEPS if queue.any_priority else (queue.priority,):
        try:
            found = look(replace(queue, priority=priority))
        except (*UNREACHABLE, KombuError, OSError):
            return Backlog(None)
        if found.length is None or found.is_whole:
            return found
        total += found.length
    return Backlog(total)


def backlog_of(app: Celery, connection: Any, queue: QueueHead) -> Backlog:
    """The content of a queue; unknown for one that cannot be read.

    Raises the broker's error if it does not answer.
    """
    if queue.broker not in ("", kind_of(connection)):
        return Backlog(None)  # this process has another broker than the queue's workers
    if is_redis(connection):
        return _of_redis(app, connection, queue)
    if is_amqp(connection):
        return Backlog(_ready(connection, queue.queue), is_whole=True)
    return Backlog(None)


def _of_redis(app: Celery, connection: Any, queue: QueueHead) -> Backlog:
    channel = connection.default_channel
    name = list_of(queue.queue, priority_of(app, queue.priority), channel)
    try:
        with channel.conn_or_acquire() as client:
            length, head = int(client.llen(name)), client.lindex(name, -1)
    except Exception as error:
        if concerns_a_key(error):
            return Backlog(None)
        raise
    return Backlog(length, _sent_ms(head) if head else None)


def _sent_ms(raw: bytes) -> int | None:
    """The time of an engine message's sending; None for any foreign message."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    mark = read_mark(message.get("headers")) if isinstance(message, dict) else None
    return int(mark.sent_ms) if mark else None


def _ready(connection: Any, queue: str) -> int | None:
    """The number of ready messages in an AMQP queue; None if access is refused."""
    _ = connection.default_channel  # connects by its options, which `channel` ignores
    channel = connection.channel()  # of its own: an error would close it for others
    found: int | None
    try:
        found = int(channel.queue_declare(queue, passive=True).message_count)
    except connection.channel_errors as error:
        found = 0 if getattr(error, "reply_code", None) == NOT_FOUND else None
    channel.close()  # skipped for a silent broker, which would have to answer this too
    return found
