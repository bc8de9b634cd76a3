"""How does a worker function become a task of an app?

The task has the function's name, which no other task of the app may have.  It derives from the
app's own base class, and has the app's options for tasks, if they can hold for a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import structlog
from celery import Celery, Task

from multiagents.core.exceptions import InvalidInput, NonRetryableError
from multiagents.core.places import defined, in_brackets
from multiagents.core.ports import WorkerInfo
from multiagents.hosting.step_task import TaskProcess, WorkerTask
from multiagents.hosting.task_options import STEP_REQUEST, STEP_STRATEGY, goes_alone, refuse
from multiagents.transport.routes import routed
from multiagents.worker_sdk.registry import Worker, workers

log = structlog.get_logger(__name__)


def register_worker(app: Celery, worker: Worker, process_of: Callable[[], TaskProcess]) -> None:
    """Make a Celery task of a worker function, under its own name.

    An app's base class applies to steps as to the app's other tasks.
    """
    if isinstance(app.tasks.get(worker.name), WorkerTask):
        app.tasks.unregister(worker.name)  # a reload; else Celery would warn of two tasks
    app.register_task(_task(app, worker, process_of))


def _task(app: Celery, worker: Worker, process_of: Callable[[], TaskProcess]) -> WorkerTask:
    attributes = {
        "name": worker.name,
        "worker": worker,
        "throws": (*app.Task.throws, NonRetryableError),
        "process_of": staticmethod(process_of),
        "__doc__": worker.__doc__,
        "__module__": worker.function.__module__,
    }
    if (app.Task.Request, app.Task.Strategy) == (Task.Request, Task.Strategy):
        attributes |= {"Request": STEP_REQUEST, "Strategy": STEP_STRATEGY}
    made: WorkerTask = type("WorkerTask", (WorkerTask, app.Task), attributes)()
    return made


def task_of(app: Celery, name: str, process_of: Callable[[], TaskProcess]) -> WorkerTask:
    """The task of a worker function, made anew if the app's base class has changed."""
    task: WorkerTask = app.tasks[name]
    if not isinstance(task, app.Task):
        register_worker(app, task.worker, process_of)
        task = app.tasks[name]
    return task


def info_of(app: Celery, worker: Worker) -> WorkerInfo:
    """The facts that the engine needs about a worker function, as a task of this app."""
    info = replace(worker.info, alone=goes_alone(app.tasks[worker.name]))
    if worker.queue:
        return info
    try:
        queue = routed(app, worker.name)
    except Exception as error:  # noqa: BLE001 - a router of the app may raise anything
        why = f"{type(error).__name__}: {error}"
        log.warning("task_routes failed for a worker", worker=worker.name, error=why)
        return info
    return replace(info, queue=queue or info.queue)


def renewed(app: Celery, process_of: Callable[[], TaskProcess]) -> Iterator[WorkerInfo]:
    """All workers, with new tasks if the app's base class has changed."""
    for name, worker in workers().items():
        task_of(app, name, process_of)
        yield info_of(app, worker)


def homes(app: Celery) -> set[str]:
    """The queues to which this app sends the steps of this process's workers."""
    return {info_of(app, worker).queue for worker in workers().values()}


def check(app: Celery, worker: Worker) -> None:
    """Raise InvalidInput for a worker that cannot be a task of this app."""
    task = app.tasks.get(worker.name)
    if task is not None and not isinstance(task, WorkerTask):
        raise _same_name(worker, task)
    made = _task(app, worker, _nowhere)
    made.bind(app)
    refuse(made, app.conf)


def _nowhere() -> TaskProcess:
    raise AssertionError("a task that is only checked runs nothing")


def check_all(app: Celery) -> None:
    """Raise InvalidInput if a setting, perhaps changed since, cannot hold for a step."""
    for task in app.tasks.values():
        if isinstance(task, WorkerTask):
            refuse(task, app.conf)


def guard_names(app: Celery) -> None:
    """Make an app refuse a task with a worker's name, at its registration.

    Else a decorated function would get the worker's task, and a class would replace that.
    """
    from_function, register = app._task_from_fun, app.register_task

    def task_from_fun(fun: Any, name: str | None = None, **options: Any) -> Any:
        taken = app._tasks.get(name or app.gen_task_name(fun.__name__, fun.__module__))
        if isinstance(taken, WorkerTask):
            raise _same_name(taken.worker, fun)
        return from_function(fun, name=name, **options)

    def register_task(task: Any, **options: Any) -> Any:
        taken = app._tasks.get(task.name)
        if isinstance(taken, WorkerTask) and not isinstance(task, WorkerTask):
            raise _same_name(taken.worker, task)
        return register(task, **options)

    app._task_from_fun, app.register_task = task_from_fun, register_task


def _same_name(worker: Worker, task: Any) -> InvalidInput:
    run = getattr(task, "run", task)
    module = getattr(task, "__module__", None) or type(task).__module__
    place = f"{module}.{getattr(run, '__qualname__', type(task).__qualname__)}"
    return InvalidInput(
        f"a worker and a Celery task are both called {worker.name!r}: {worker.named_place} and"
        f" {place}{in_brackets(defined(run))};"
        ' give the worker another name: @worker("...")'
    )
