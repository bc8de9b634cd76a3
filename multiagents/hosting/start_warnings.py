"""Of what does a starting worker warn, and what does it publish of its app?

Of what was forgotten or misspelled: each is a line of its log, with what to do.
"""

from __future__ import annotations

from typing import TypedDict

import structlog
from celery import Celery

from multiagents.core.places import in_brackets
from multiagents.hosting.app import OWN_NAME
from multiagents.hosting.step_task import WorkerTask
from multiagents.transport import app_broker
from multiagents.worker_sdk import registry as workers
from multiagents.workflows import registry
from multiagents.workflows.task_calls import misfits, unregistered

log = structlog.get_logger(__name__)


def warn_of_no_functions(app: Celery, *, own: bool) -> None:
    """Somebody has forgotten to import them: such a worker can do nothing but take messages."""
    if workers.workers() or _own_tasks(app):
        return
    place = "MULTIAGENTS_IMPORTS" if own else "the app's imports"
    log.warning(
        "this worker has no worker functions: it gives back every step that it takes",
        fix=f"name the modules with your workers in {place}, and start it again",
    )


def warn_of_forgotten() -> None:
    """Name what modules have built and not registered: it cannot be started by its name."""
    for name, place in registry.forgotten().items():
        log.warning(
            f"workflow {name!r} is built but not registered{in_brackets(place)}",
            fix="call .register() on it, or start it as an object",
        )
    for name, place in registry.unbuilt().items():
        log.warning(
            f"the builder of workflow {name!r} is never built{in_brackets(place)}",
            fix="call .build().register() on it",
        )


def warn_of_misfits(app: Celery) -> None:
    """Name steps whose task takes other arguments: a definition knows only its name."""
    for place, why in misfits(registry.registered().values(), app.tasks):
        log.warning(f"{place}: {why}", fix="say in its args and kwargs what it gets; [] is nothing")


def warn_of_unregistered(app: Celery) -> None:
    """Name tasks that workflows call by name and this app does not have: perhaps nobody does."""
    for place, why in unregistered(registry.registered().values(), app.tasks):
        log.warning(f"{place}: {why}", fix="correct the name, unless another worker has the task")


class About(TypedDict):
    """What a worker publishes of its app."""

    app: str
    broker: str
    tasks: tuple[str, ...]


def about(app: Celery) -> About:
    """The app's name, the kind of its broker, and its own plain tasks."""
    tasks = sorted(name for name in _own_tasks(app) if not isinstance(app.tasks[name], WorkerTask))
    return About(app=app.main or OWN_NAME, broker=app_broker.kind(app), tasks=tuple(tasks))


def _own_tasks(app: Celery) -> list[str]:
    """The tasks that are neither Celery's nor the engine's."""
    return [name for name in app.tasks if not name.startswith(workers.OWN_PREFIXES)]
