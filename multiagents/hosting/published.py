"""Which facts about its app does a worker publish?"""

from __future__ import annotations

from typing import TypedDict

import structlog
from celery import Celery

from multiagents.hosting.app import OWN_NAME
from multiagents.hosting.step_task import WorkerTask
from multiagents.transport import app_broker, routes
from multiagents.worker_sdk import registry as workers
from multiagents.workflows import registry
from multiagents.workflows.callees import plain_tasks

log = structlog.get_logger(__name__)


class About(TypedDict):
    """The published facts about an app."""

    app: str
    broker: str
    tasks: tuple[str, ...]
    routes: dict[str, str]


def about(app: Celery) -> About:
    """An app's name, the kind of its broker, its plain tasks, and the queues of some of them.

    The queues are those of tasks that a registered workflow calls without naming a queue.
    """
    tasks = sorted(name for name in own_tasks(app) if not isinstance(app.tasks[name], WorkerTask))
    called = {
        call.task for each, call in plain_tasks(registry.registered().values()) if not each.queue
    }
    found = {name: queue for name in sorted(called) if (queue := queue_of(app, name))}
    return About(
        app=app.main or OWN_NAME, broker=app_broker.kind(app), tasks=tuple(tasks), routes=found
    )


def queue_of(app: Celery, name: str) -> str:
    """The queue of a plain task that the app has; empty if it is not known."""
    try:
        return routes.queue_of(app, name)
    except Exception as error:  # noqa: BLE001 - a router of the app may raise anything
        why = f"{type(error).__name__}: {error}"
        log.warning("task_routes failed for a task", task=name, error=why)
        return ""


def own_tasks(app: Celery) -> list[str]:
    """The tasks that are neither Celery's nor the engine's."""
    return [name for name in app.tasks if not name.startswith(workers.OWN_PREFIXES)]
