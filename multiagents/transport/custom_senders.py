"""Do an app or a task send their messages in a way of their own?

A package for many tenants, or one that traces, adds to each message what holds for that call
alone: by an app's `send_task`, a task's `apply_async`, or by replacing Celery's own.  They must
make each such message anew.

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
    """Whether a task has a say of its own in its messages."""
    return any(not _is_of(task, one, name) for name in _OF_TASKS)


def sends_its_own_way(app: Celery) -> bool:
    """Whether an app has."""
    return not (
        _is_of(base, app, "send_task")
        and type(app.amqp) in (amqp.AMQP, HostingAMQP)  # ours makes messages as Celery's does
        and _is_of(messaging, messaging.Producer, "publish")
    )


def _is_of(module: Any, holder: Any, name: str) -> bool:
    """Whether a method is the one that a module of Celery defines, and no wrapper of it."""
    found = inspect.getattr_static(holder, name)
    return type(found) is FunctionType and found.__code__.co_filename == module.__file__
