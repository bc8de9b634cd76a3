"""Does an app or a task have a way of its own to send messages?

A package for many tenants, or for tracing, adds data of the call to each message.  It does so in an
app's `send_task`, a task's `apply_async`, or a replacement of Celery's own.  So each of these
messages must be made by that code.

For Celery 5.7.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from celery import Celery
from celery.app import amqp, base, task
from kombu import messaging

from multiagents.transport.app_broker import HostingAMQP

_OF_TASKS = ("apply_async", "shadow_name", "_get_exec_options")


def sends_itself(one: Any) -> bool:
    """Whether a task has code of its own for its messages."""
    return any(not _is_of(task, one, name) for name in _OF_TASKS)


def sends_its_own_way(app: Celery) -> bool:
    """Whether an app has code of its own for its messages."""
    return not (
        _is_of(base, app, "send_task")
        and type(app.amqp) in (amqp.AMQP, HostingAMQP)  # ours makes messages as Celery's does
        and _is_of(messaging, messaging.Producer, "publish")
    )


def _is_of(module: Any, holder: Any, name: str) -> bool:
    """Whether a method is the one that a module of Celery defines, and no wrapper of it."""
    found = inspect.getattr_static(holder, name)
    return type(found) is FunctionType and found.__code__.co_filename == module.__file__
