"""How is a plain task kept from running again once its attempt has ended (E13)?

A broker may deliver a message twice, and a plain task claims nothing itself.  So the engine checks
the claim before the task begins, in `before_start` of the task's class.  If another attempt holds
the step, Celery ignores the task.  After the check the class's own `before_start` runs.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any, Protocol

from celery import Celery, signals
from celery.exceptions import Ignore

from multiagents.core.log_context import Bound, bind_step, unbind
from multiagents.core.marks import Mark, read_mark
from multiagents.hosting.assembly import Host
from multiagents.hosting.step_task import WorkerTask
from multiagents.storage.sagas import Attempt

BEGIN_LATER = "a plain task waits to begin until its saga's server is back"
NOT_BEGUN = "a plain task that has not begun is given up; its timeout decides"
PASSED = "multiagents_passed"
"""Set in the request of a delivery that has passed the fence."""


class Hosting(Protocol):
    """The engine that checks the claims of an app's plain tasks."""

    host: Host
    persist: Callable[..., Any]
    """Repeats a call until the store answers: `report_retry.persist` for its processes."""


class _Fenced(threading.local):
    """The plain task that this thread runs, and the attempts that it holds."""

    last: tuple[str, list[Attempt]] = ("", [])
    bound: Bound | None = None
    """For its log lines, until Celery has reported its end."""


fenced = _Fenced()


def held_by(task_id: str) -> list[Attempt] | None:
    """What a plain task held when it began, if it is the last that ran in this thread."""
    last, held = fenced.last
    return held if last == task_id else None


def fence_plain_tasks(app: Celery, hosted: Hosting) -> None:
    """Fence the tasks that an app makes later, whatever its workers find when they start."""
    fence(app.Task, hosted)


def fence_registered(app: Celery, hosted: Hosting) -> None:
    """Fence every task that a worker is about to run, however it was made.

    Its class may descend from celery's own `Task`, have been made before `attach`, or override
    `before_start` without calling the inherited one.
    """
    for task in app.tasks.values():
        fence(type(task), hosted)


def fence(task_class: Any, hosted: Hosting) -> None:
    """Fence a task class, once; if several workers share it, the last one to start owns it."""
    if issubclass(task_class, WorkerTask):
        return
    found = inspect.getattr_static(task_class, "before_start")
    if isinstance(found, Fence) and found.hosted is hosted:
        return
    own = vars(task_class).get("before_start")
    inner = own.inner if isinstance(own, Fence) else own
    task_class.before_start = Fence(task_class, inner, hosted)


class Fence:
    """A task class's `before_start`: stops a redelivered plain task whose attempt has ended.

    A prerun receiver cannot stop a task.  The held attempts are kept for the task's link, which
    Celery calls in the same thread.
    """

    def __init__(self, task_class: type[Any], inner: Any, hosted: Hosting) -> None:
        """``inner``: what the class itself has defined; None if it has only inherited."""
        self.hosted = hosted
        self.inner = inner
        self._class = task_class

    def __get__(self, task: Any, task_class: type | None = None) -> Any:
        return self if task is None else MethodType(self, task)

    def __call__(self, task: Any, task_id: str, args: Any, kwargs: Any) -> None:
        request = task.request
        mark = None if isinstance(task, WorkerTask) else read_mark(request)
        # A class may call the one that it inherits, which is fenced too.
        if mark and not request.get(PASSED):
            self._check(task_id, mark)
            setattr(request, PASSED, True)
        self._go_on(task, task_id, args, kwargs)

    def _check(self, task_id: str, mark: Mark) -> None:
        """Note the attempts that the task holds.  Raises Ignore if it holds none."""
        held = self.hosted.persist(
            lambda: self.hosted.host.engine.fence(mark.saga_id, task_id, mark.version),
            kept=BEGIN_LATER,
            given_up=NOT_BEGUN,
        )
        if not held:
            raise Ignore
        fenced.last = (task_id, held)
        repository = self.hosted.host.coordinator.repository
        _bind(held[0], repository.workflow_name(mark.version))

    def _go_on(self, task: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Call the class's own `before_start`, or the inherited one."""
        if self.inner is None:
            inherited: Any = super(self._class, task)
            inherited.before_start(task_id, args, kwargs)
            return
        bind = getattr(self.inner, "__get__", None)  # it may be static, or no function at all
        (bind(task, type(task)) if bind else self.inner)(task_id, args, kwargs)


def _bind(held: Attempt, workflow: str) -> None:
    _unbind()
    _unbind_after_tasks()
    fenced.bound = bind_step(
        saga=held.saga_id, workflow=workflow, step=held.step, attempt=held.attempt
    )


@cache
def _unbind_after_tasks() -> None:
    """From the first plain task on: with a receiver, Celery sends it for workers' steps too."""
    signals.task_postrun.connect(_unbind)


def _unbind(**_: Any) -> None:
    if fenced.bound is not None:
        unbind(fenced.bound)
        fenced.bound = None
