"""To which queue does an app send a task whose message names none?

To the queue of the task itself, of the app's `task_routes`, or its `task_default_queue`.  All are
read at each call, and none is kept: Celery reads routes at its first sending, and would make
missing queues.

For Celery 5.7.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.routes import Router, prepare
from kombu.entity import Queue

from multiagents.transport.custom_senders import sends_itself


def routed(app: Celery, name: str) -> str:
    """The queue that the app's `task_routes` names for a task; "" if they name none."""
    return _queue_in(_route(app, name) or {})


def queue_of(app: Celery, name: str) -> str:
    """The queue of an app's task; "" if the app lacks the task, or the queue is not known.

    It is not known if the task has its own way to send, or names an exchange instead.  Raises the
    error of a router of the app.
    """
    task = app.tasks.get(name)
    if task is None or sends_itself(task):
        return ""
    own = {key: getattr(task, key, None) for key in ("queue", "exchange", "routing_key")}
    for found in (own, _route(app, name)):
        if isinstance(found, str) or (found and any(found.values())):
            return _queue_in(found)
    return str(app.conf.task_default_queue)


def _route(app: Celery, name: str) -> Any:
    if not app.conf.task_routes:
        return None
    routes = prepare(app.conf.task_routes)
    return Router(routes, app=app).lookup_route(name, (), {}, {}, None)


def _queue_in(route: Any) -> str:
    found = route if isinstance(route, str) else route.get("queue") or ""
    return str(found.name) if isinstance(found, Queue) else str(found)
