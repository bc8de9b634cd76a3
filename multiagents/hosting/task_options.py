"""Which of Celery's options of a task hold for a worker's steps?

A step is a task.  So the options that an app sets for all tasks, by `task_annotations` or by its
base class, hold for the step's task too.  Celery's tracer applies most of them.  Options that apply
to each message need steps that are messages of their own (`goes_alone`).  Options that would be
lost, or would have two sources, are refused by name (`refuse`).

For Celery 5.7.
"""

from __future__ import annotations

from typing import Any

from celery import Task

from multiagents.core.exceptions import InvalidInput

PER_MESSAGE = ("rate_limit", "time_limit", "soft_time_limit")
"""A worker's main process applies these to each message.  So a step with one of them is always a
message of its own, and its process does not continue with another step."""
_REFUSED: dict[str, str] = {
    "queue": "name it with @worker(queue=), add_step(queue=) or task_routes",
    "exchange": "name a queue with @worker(queue=), add_step(queue=) or task_routes",
    "routing_key": "name a queue with @worker(queue=), add_step(queue=) or task_routes",
    "priority": "set it with add_step(priority=), or task_default_priority for all",
    "expires": "a step that waits is sent again: set timeout_s of its workflow",
    "serializer": "its messages follow the app's task_serializer",
    "compression": "its messages follow the app's task_compression",
    "delivery_mode": "its messages follow the app's queues",
    "ignore_result": "its result is kept with its saga: see sagas.get",
    "track_started": "its state is kept with its saga: see sagas.get",
    "store_eager_result": "its result is kept with its saga: see sagas.get",
}
"""The options that are refused, and the fix for each."""
_SETTINGS = {
    "priority": "task_default_priority",
    "serializer": "task_serializer",
    "compression": "task_compression",
    "track_started": "task_track_started",
    "store_eager_result": "task_store_eager_result",
}
"""The setting that gives a task its default for an option."""


STEP_REQUEST = "multiagents.hosting.step_request:StepRequest"
STEP_STRATEGY = "multiagents.hosting.step_request:strategy"
"""A step's `Request` and `Strategy`, unless its app has its own; only workers import them."""


def goes_alone(task: Task) -> bool:
    """Whether each step of a worker's task must be a message of its own."""
    own_request = task.Request not in (Task.Request, STEP_REQUEST)
    own_classes = own_request or task.Strategy not in (Task.Strategy, STEP_STRATEGY)
    return own_classes or any(getattr(task, name) for name in PER_MESSAGE)


def refuse(task: Task, conf: Any) -> None:
    """Raise InvalidInput for an option of a worker's task that cannot hold for a step.

    ``task``: bound to its app, so that it has its annotations.
    """
    for name, instead in _REFUSED.items():
        value = getattr(task, name, None)
        usual = True if name == "ignore_result" else conf.get(_SETTINGS.get(name, ""), None)
        if value != usual and value is not None:
            raise InvalidInput(
                f"{name} of worker {task.name!r} is {value!r}, by task_annotations or a base class"
                f" of its app: that cannot be kept for a step; {instead}"
            )
