"""How does a Django project's worker leave its database connections?"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection

from multiagents import WorkflowBuilder, worker
from tests.support import django_counts  # noqa: F401 - registers "count_orders"


def _look() -> bool:
    """Whether this thread's connection was open; the call uses it."""
    was_open = connection.connection is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return was_open


def _look_afresh() -> bool:
    close_old_connections()
    return _look()


@worker("probe_plain")
def plain(context: dict[str, Any]) -> dict[str, Any]:
    """Look in the thread that runs the task."""
    return {"was_open": _look()}


@worker("probe_continued")
def continued(context: dict[str, Any]) -> dict[str, Any]:
    """Look in a step without its own message."""
    return {"was_open": _look()}


@worker("probe_async")
async def asynchronous(context: dict[str, Any]) -> dict[str, Any]:
    """Look in asgiref's one thread for all coroutines."""
    first = await sync_to_async(_look)()
    kept = await sync_to_async(_look)()
    afresh = await sync_to_async(_look_afresh)()
    return {"first": first, "kept": kept, "afresh": afresh}


(
    WorkflowBuilder("probe")
    .add_step("first", "probe_plain")
    .add_step("second", "probe_continued")
    .add_step("third", "probe_async")
    .add_step("fourth", "count_orders")
    .build()
    .register()
)
