"""How does a message get into its queue together with the commit that wants it?

Where the broker is the very server that holds the state, a message is an LPUSH like any other
write: the commit's script does it, so a command is recorded and sent in one step, or not at all.
`Letters` writes a message as Celery and kombu would.  Where they would do more than that (another
broker, receivers of the publishing signals, special queues), it declines, and the message goes
through Celery after the commit.

For the wire format of Celery 5.7 and kombu 5.7 (message protocol 2); `tests/test_letters.py`
compares it with what they send.
"""

from __future__ import annotations

import base64
import json
from typing import Any, NamedTuple

from celery import Celery, signals
from kombu.transport import redis

from multiagents.core import ids
from multiagents.core.names import COMPENSATE, COORDINATOR_QUEUE
from multiagents.core.settings import Settings
from multiagents.orchestrator.outbox import Message
from multiagents.storage.sagas import Letter

_RENAMING = frozenset({"sep", "priority_steps", "global_keyprefix"})
"""Transport options that change what kombu's lists are called."""
_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


class _Queue(NamedTuple):
    """What is the same for all messages of one task to one queue."""

    key: str
    priority: int
    headers: dict[str, Any]


class Letters:
    """Writes messages for one app."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._possible: bool | None = None
        self._queues: dict[tuple[str, str, int | None], _Queue | None] = {}

    def __call__(self, message: Message) -> Letter | None:
        """The message as its queue stores it; None if Celery itself has to send it."""
        if message.plain or any(signal.receivers for signal in _SIGNALS):
            return None
        if self._possible is None:
            self._possible = self._is_possible()
        queue = self._queue(message) if self._possible else None
        return None if queue is None else Letter(queue.key, _envelope(message, queue))

    def _is_possible(self) -> bool:
        conf = self._app.conf
        url = conf.broker_write_url or conf.broker_url
        return (
            url == self._settings.redis_url
            and not self._settings.state_urls
            and conf.task_serializer == "json"
            and not conf.task_compression
            and not conf.task_send_sent_event
            and not _RENAMING & dict(conf.broker_transport_options or {}).keys()
        )

    def _queue(self, message: Message) -> _Queue | None:
        wanted = (message.task, message.queue, message.priority)
        if wanted not in self._queues:
            self._queues[wanted] = self._describe(*wanted)
        return self._queues[wanted]

    def _describe(self, task: str, name: str, priority: int | None) -> _Queue | None:
        queue = self._app.amqp.queues[name]
        if queue.exchange.type != "direct" or queue.expires or queue.queue_arguments:
            return None
        if priority is None:
            priority = self._app.conf.task_default_priority or 0
        return _Queue(list_of(name, priority), priority, _headers(task))


def list_of(queue: str, priority: int | None) -> str:
    """kombu's list for a queue: a priority lies in the list of the step at or below it."""
    step = max((s for s in redis.PRIORITY_STEPS if s <= (priority or 0)), default=0)
    return f"{queue}{redis.Channel.sep}{step}" if step else queue


def _headers(task: str) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": task,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "parent_id": None,
        "kwargsrepr": "{}",
        "origin": "multiagents",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def errback(args: list[Any]) -> dict[str, Any]:
    """The ``link_error`` of every step, as a message carries it."""
    return {
        "task": COMPENSATE,
        "args": args,
        "kwargs": {},
        "options": {"queue": COORDINATOR_QUEUE},
        "subtask_type": None,
        "immutable": False,
    }


def _envelope(message: Message, queue: _Queue) -> str:
    args = message.signature
    task_id = ids.derived_id(*args)
    canvas = {"callbacks": None, "errbacks": [errback(args)], "chain": None, "chord": None}
    body = json.dumps([args, {}, canvas]).encode()
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            **queue.headers,
            **message.headers,
            "id": task_id,
            "root_id": task_id,
            "argsrepr": repr(args),
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": message.queue},
            "priority": queue.priority,
            "body_encoding": "base64",
            "delivery_tag": ids.fresh_id(),
        },
    }
    return json.dumps(envelope)
