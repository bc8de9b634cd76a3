"""How does a commit put its message into the queue?

If the broker is the server that holds the state, a message is an LPUSH like any other write.  The
commit's script does it, so a command is recorded and sent in one step, or not at all.  `Letters`
writes a message as Celery and kombu would.  It declines if they would do more, so that the message
goes through Celery after the commit.  Reasons are another broker, receivers of the publishing
signals, special queues, and an app's or a task's own way of sending.

For the wire format of Celery 5.7 and kombu 5.7 (message protocol 2); `tests/flows/test_letters.py`
compares it with what they send.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from celery import Celery, signals
from kombu.transport import redis

from multiagents.core import ids
from multiagents.core.exceptions import InvalidInput
from multiagents.core.names import queue_flaw
from multiagents.core.settings import Settings
from multiagents.engine.cache import Recent
from multiagents.engine.messages import Message, Unsendable
from multiagents.storage.commit import Letter
from multiagents.transport.app_urls import engine_url, is_redis, is_same, urls_of
from multiagents.transport.callbacks import errback, link
from multiagents.transport.custom_senders import sends_its_own_way, sends_itself

_RENAMING = frozenset({"sep", "priority_steps", "global_keyprefix"})
"""Transport options that change the names of kombu's lists."""
MOST_SHOWN = 1024
"""Characters of arguments in Flower and the logs, as with Celery."""
_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


class _Mould(NamedTuple):
    """The common part of all messages of one task to one queue."""

    queue: str
    priority: int
    headers: dict[str, Any]
    delivery_mode: int = 2
    check: Callable[..., Any] | None = None
    """Raises TypeError for arguments that do not fit, as the task itself would."""


class Letters:
    """Writes messages for one app."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._possible: bool | None = None
        self._moulds: Recent[tuple[str, str, int | None], tuple[_Mould | None]] = Recent()

    def __call__(self, message: Message) -> Letter | None:
        """The message as its queue stores it; None if Celery itself must send it."""
        if any(signal.receivers for signal in _SIGNALS):
            return None
        if self._possible is None:
            self._possible = self._is_possible()
        mould = self._mould(message) if self._possible else None
        if mould is None:
            return None
        if mould.check is not None:
            try:
                mould.check(*message.args, **message.kwargs)
            except TypeError as error:
                raise Unsendable(message.task, f"{type(error).__name__}: {error}") from error
        return Letter(list_of(mould.queue, mould.priority), _envelope(message, mould))

    def _mould(self, message: Message) -> _Mould | None:
        wanted = (message.task, message.queue, message.priority)
        known = self._moulds.get(wanted)
        if known is not None:
            return known[0]
        make = self._make_plain if message.plain else self._make
        mould = make(message)
        if message.plain and self._app.conf.task_routes:
            return mould  # routes may depend on the arguments
        return self._moulds.put(wanted, (mould,))[0]

    def _make(self, message: Message) -> _Mould | None:
        task = self._app.tasks.get(message.task)
        if self._is_special(message.queue) or (task is not None and sends_itself(task)):
            return None
        priority = priority_of(self._app, message.priority)
        return _Mould(message.queue, priority, _headers(message.task))

    def _make_plain(self, message: Message) -> _Mould | None:
        """The mould of a plain task, from one message by Celery, with its options and routes."""
        task = self._app.tasks.get(message.task)
        if task is not None and sends_itself(task):
            return None  # its code may differ for each message
        recorder = _Recorder()
        try:
            send_plain(self._app, replace(message, travelling={}), recorder, retry=False)
        except Exception as error:  # routers and options of the app may raise anything
            raise Unsendable(message.task, f"{type(error).__name__}: {error}") from error
        options, queue = recorder.options, recorder.options["routing_key"]
        headers = options["headers"]
        special = options["exchange"] or options["compression"] or headers["expires"]
        if special or options["serializer"] != "json" or self._is_special(queue):
            return None
        mode = options["delivery_mode"] or 2
        check = getattr(task, "__header__", None) if task is not None and task.typing else None
        return _Mould(queue, options.get("priority") or 0, headers, mode, check)

    def _is_special(self, name: str) -> bool:
        """Whether kombu does more for this queue than push a message into its list."""
        if queue_flaw(name):
            return True
        try:
            queue = self._app.amqp.queues[name]
        except Exception:  # noqa: BLE001 - an app may have closed its list, or make queues itself
            # Raised here, it would also lose the report that the message follows.
            return True
        return bool(queue.exchange.type != "direct" or queue.expires or queue.queue_arguments)

    def _is_possible(self) -> bool:
        conf = self._app.conf
        url = conf.broker_write_url or conf.broker_url
        return (
            not sends_its_own_way(self._app)
            and not self._settings.state_urls
            and same_server(self._settings, url, conf.broker_transport_options, conf.broker_use_ssl)
            and conf.task_serializer == "json"
            and not conf.task_compression
            and not conf.task_send_sent_event
            and not conf.task_inherit_parent_priority
            and not _RENAMING & dict(conf.broker_transport_options or {}).keys()
        )


def same_server(settings: Settings, url: Any, options: Any, tls: Any = None) -> bool:
    """Whether a URL of Celery's is the server of the sagas.

    ``options``: its transport options, ``tls``: its setting for TLS.  False for a list of servers,
    since Celery may have moved to another of them.
    """
    listed = urls_of(url)
    if len(listed) != 1 or not is_redis(listed[0]):
        return False
    try:
        theirs = engine_url(listed[0], options=options, tls=tls)
    except InvalidInput:
        return False  # such a server cannot hold sagas
    return is_same(theirs, settings.home.url)


class _Recorder:
    """Replaces a kombu producer, and notes the options of a publish."""

    options: dict[str, Any]

    @property
    def connection(self) -> Any:
        return self

    def _reraise_as_library_errors(self) -> AbstractContextManager[None]:
        return nullcontext()

    def publish(self, body: Any, **options: Any) -> None:
        self.options = options


def send_plain(app: Celery, message: Message, producer: Any, **options: Any) -> None:
    """Send a plain task as a step, with the callbacks that report its end to the saga.

    If this app has the task, its own `apply_async` sends it, as for a signature of Celery.
    """
    options.update(producer=producer, **routing(message))
    task = app.tasks.get(message.task)
    send = partial(app.send_task, message.task) if task is None else task.apply_async
    send(
        message.args,
        message.kwargs,
        task_id=message.task_id,
        link=[link(saga_id=message.saga_id, task_id=message.task_id)],
        link_error=[errback(message.signature)],
        ignore_result=True,
        **options,
    )


def routing(message: Message) -> dict[str, Any]:
    """The Celery options that a message names; Celery decides over the others.

    Raises InvalidInput for a bad queue in a definition that was stored before the check existed.
    """
    found: dict[str, Any] = {"headers": message.headers}
    if message.queue:
        if flaw := queue_flaw(message.queue):
            raise InvalidInput(f"queue {message.queue!r}: {flaw}")
        found["queue"] = message.queue
    if message.priority is not None:
        found["priority"] = message.priority
    return found


def priority_of(app: Celery, wanted: int | None) -> int:
    """The priority of an engine message; the app's default if its step names none."""
    return int(app.conf.task_default_priority or 0) if wanted is None else wanted


def list_of(queue: str, priority: int, channel: Any = redis.Channel) -> str:
    """kombu's list for a queue and a priority: that of the step at or below the priority.

    ``channel``: its transport options may have other steps than kombu's own.
    """
    step = max((s for s in channel.priority_steps if s <= priority), default=0)
    return f"{queue}{channel.sep}{step}" if step else queue


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
        "origin": "multiagents",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _envelope(message: Message, mould: _Mould) -> str:
    attempt = message.signature
    args = message.args if message.plain else attempt
    about = {"saga_id": message.saga_id, "task_id": message.task_id}
    callbacks = [link(**about)] if message.plain else None
    canvas = {
        "callbacks": callbacks,
        "errbacks": [errback(attempt)],
        "chain": None,
        "chord": None,
    }
    task_id, shown = ids.step_id(*attempt), ids.shown_args(*attempt)
    body = json.dumps([args, message.kwargs, canvas]).encode()
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            **mould.headers,
            **message.headers,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "argsrepr": (repr(args) if message.plain else shown)[:MOST_SHOWN],
            "kwargsrepr": repr(message.kwargs)[:MOST_SHOWN],
        },
        "properties": {
            "correlation_id": task_id,
            "reply_to": "",
            "delivery_mode": mould.delivery_mode,
            "delivery_info": {"exchange": "", "routing_key": mould.queue},
            "priority": mould.priority,
            "body_encoding": "base64",
            "delivery_tag": ids.fresh_id(),
        },
    }
    return json.dumps(envelope)
