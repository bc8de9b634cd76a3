"""How does Celery run a worker function?

Every worker is a Celery task with its own name, so that Flower and ``celery inspect`` show the
user's names.  A message names an attempt.  The task claims it, runs the function inside Celery's
tracer, and reports after that, outside the tracer.  So an error of the engine never looks like an
error of the function.  A failure is reported by `hosting.failures`, which the tracer calls inline
as the errback.

A report may bring the next attempt, already claimed.  It is traced at once, as a task with an id,
events and run time of its own, but without a message (E14).  The same holds for an attempt that a
claim brings in place of the message's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

import structlog
from celery import Task
from celery.exceptions import Ignore

from multiagents.core import ids
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.log_context import Bound, bind_step, unbind
from multiagents.core.marks import read_mark
from multiagents.core.message_headers import custom
from multiagents.core.names import TELLS
from multiagents.core.ports import Assignment, Engine, Verdict
from multiagents.core.states import Kind
from multiagents.hosting.step_events import DeliveryEvents
from multiagents.transport.callbacks import errback
from multiagents.worker_sdk.activity import Activity
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.worker_sdk.registry import Worker

log = structlog.get_logger(__name__)

_ON_THE_WAY = {"multiagents", "concurrent", "asyncio"}
"""Packages with frames between Celery's tracer and a worker function."""


@dataclass(slots=True)
class TaskProcess:
    """The shared parts of one process's tasks; made anew after a fork."""

    engine: Engine
    leases: LeaseKeeper
    perform: Callable[[Worker, Assignment, LeaseKeeper], tuple[dict[str, Any], str]]
    verdict_of: Callable[[BaseException, Kind], Verdict]
    persist: Callable[[Callable[[], Any]], Any]
    """Repeats a report until the store has taken it."""
    slice_s: float
    slice_steps: int
    stopping: Callable[[], bool]
    most_steps: int | None = None
    """``worker_max_tasks_per_child``; continued steps count, though billiard cannot see them."""
    steps: int = 0
    """The number of steps that this process has run."""
    left_by: Callable[[str], Activity | None] = lambda nonce: None
    """The running calls of a nonce's failed attempt; given out once."""
    can_be_ended: bool = False
    """Whether a new process replaces this one."""
    goes_alone: Callable[[str], bool] = lambda worker: False
    """Whether each step of a worker must be a message of its own."""

    def may_go_on(self, count: int, ends_at: float) -> bool:
        """Whether a delivery may continue after its ``count``-th continued step."""
        worn = self.most_steps is not None and self.steps >= self.most_steps
        in_time = count < self.slice_steps and time.monotonic() < ends_at
        return in_time and not worn and not self.stopping()


class _Slot(threading.local):
    """The values shared by a task's body, its errback and the loop around the tracer."""

    held: Assignment | None = None
    result: str | None = None
    following: Assignment | None = None
    count: int = 0
    """The number of continued steps of this delivery."""
    ends_at: float = 0.0
    """The end of the delivery's time slice, by the monotonic clock."""
    headers: dict[str, Any] | None = None
    """The sender's own headers of this delivery's message; None: not read yet."""
    instead: Callable[[], Any] | None = None
    """The call that eager mode makes instead of a claim."""
    telling: DeliveryEvents | None = None
    """The events of this delivery's steps, if Celery's monitors listen."""
    bound: Bound | None = None
    """The log fields of this thread's attempt."""


slot = _Slot()


class WorkerTask(Task):  # type: ignore[misc]  # celery has no types
    """One worker function as a Celery task; its other base is its app's own `Task`."""

    abstract = True
    ignore_result = True
    typing = False
    autoretry_for = ()
    """Steps are retried by their policy."""
    worker: Worker
    process_of: Callable[[], TaskProcess]

    _inner: Any = None

    @property
    def __trace__(self) -> Any:
        """The callable with which Celery runs a message: the tracer, then the next attempts."""
        return None if self._inner is None else self._trace

    @__trace__.setter
    def __trace__(self, tracer: Any) -> None:
        self._inner = tracer

    def run(self, saga_id: str, kind: str, step: str, attempt: int) -> Any:
        """Run one attempt; called inside the tracer."""
        if slot.instead is not None:
            instead, slot.instead = slot.instead, None
            return instead()
        process = self.process_of()
        held = slot.following
        slot.following = None
        if held is None:
            ref = AttemptRef(Kind(kind), step, int(attempt))
            held = process.engine.claim(
                saga_id,
                ref,
                delivery=self.request.id,
                queue=_queue(self.request),
                version=_version(self.request),
            )
            if held is None:
                if slot.telling is not None:
                    slot.telling.refused(partial(process.engine.unclaimed, saga_id, ref))
                raise Ignore
            if (held.step, held.attempt) != (ref.step, ref.attempt):
                slot.following = held  # traced next, under its own id
                raise Ignore
        slot.held = held
        _bind(held)
        process.leases.hold(held)
        if slot.telling is not None:
            slot.telling.begins(self, held)
        try:
            result, slot.result = process.perform(self.worker, held, process.leases)
        except Exception as error:
            error.__traceback__ = _of_the_user(error.__traceback__)
            raise
        finally:
            process.leases.ended(held)
        return result

    def _trace(self, uuid: str, args: Any, kwargs: Any, request: Any) -> Any:
        """Celery's tracer for this message, then the attempts that its reports bring."""
        slot.held = slot.result = slot.following = None
        process = self.process_of()
        process.steps += 1
        slot.headers = None
        slot.count, slot.ends_at = 0, time.monotonic() + process.slice_s
        telling = slot.telling = DeliveryEvents(uuid) if request.get(TELLS) else None
        try:
            outcome = self._inner(uuid, args, kwargs, request)
            if telling is not None:
                telling.ended(self, uuid, outcome)
            following = _report_success(process) or _taken_following()
            for count in range(1, process.slice_steps + 1):
                if following is None:
                    break
                process.steps += 1
                slot.count = count
                following = self._trace_following(process, following, request)
            if telling is not None:
                telling.close()
            return outcome
        finally:
            _let_go(process)
            _unbind()

    def _trace_following(
        self, process: TaskProcess, held: Assignment, request: Any
    ) -> Assignment | None:
        task = self.app.tasks[held.worker]
        task_id = ids.step_id(held.saga_id, *held.ref)
        args = [held.saga_id, held.kind.value, held.step, held.attempt]
        slot.held = slot.result = None
        slot.following = held
        outcome = task._inner(task_id, args, {}, _request(request, task_id, task.name, args))
        if slot.telling is not None:
            slot.telling.ended(task, task_id, outcome)
        slot.following = None if slot.following is held else slot.following
        return _report_success(process) or _taken_following()


def call_here(task: WorkerTask, held: Assignment, do: Callable[[], Any]) -> Any:
    """The result of ``do``, called through the task's ``__call__`` as in a worker."""
    slot.instead = do
    try:
        return task(held.saga_id, held.kind.value, held.step, held.attempt)
    finally:
        slot.instead = None


def _bind(held: Assignment) -> None:
    """Bind the log fields until the report, so that Celery's lines at the end have them."""
    _unbind()
    slot.bound = bind_step(
        saga=held.saga_id, workflow=held.workflow, step=held.step, attempt=held.attempt
    )


def _unbind() -> None:
    if slot.bound is not None:
        unbind(slot.bound)
        slot.bound = None


def _request(outer: Any, task_id: str, name: str, args: list[Any]) -> dict[str, Any]:
    """The request of a continued attempt, with the errback that a message would have.

    It has the same headers of the saga's start, or of its app, as the delivery's message.
    """
    info = outer.get("delivery_info") or {}
    headers = slot.headers = custom(outer) if slot.headers is None else slot.headers
    return {
        **headers,
        "id": task_id,
        "task": name,
        "root_id": outer.get("root_id") or task_id,
        "parent_id": outer.get("id"),
        "args": args,
        "kwargs": {},
        "hostname": outer.get("hostname"),
        "delivery_info": dict(info),
        "errbacks": [errback(args)],
        "callbacks": None,
        "ignore_result": True,
        "is_eager": False,
        "headers": headers,  # given here, so that Celery does not search all of the above
    }


def _of_the_user(found: TracebackType | None) -> TracebackType | None:
    """A traceback from the function's entry on; all of it if the error is from elsewhere."""
    frame = found
    while frame is not None and _package(frame) in _ON_THE_WAY:
        frame = frame.tb_next
    return frame or found


def _package(frame: TracebackType) -> str:
    return str(frame.tb_frame.f_globals.get("__name__")).partition(".")[0]


def _queue(request: Any) -> str:
    info = request.delivery_info or {}
    return str(info.get("routing_key") or "")


def _version(request: Any) -> str:
    mark = read_mark(request)
    return mark.version if mark else ""


def _taken_following() -> Assignment | None:
    following, slot.following = slot.following, None
    return following


def _report_success(process: TaskProcess) -> Assignment | None:
    held, result = slot.held, slot.result
    if held is None or result is None:
        return None
    slot.held = slot.result = None

    def report() -> Assignment | None:
        process.leases.flush(held)
        return process.engine.succeed(held, result, go_on=may_go_on(process, held))

    try:
        return process.persist(report)  # type: ignore[no-any-return]
    finally:
        process.leases.release(held)


def _let_go(process: TaskProcess) -> None:
    """Release an attempt of this delivery whose report an error has skipped."""
    held, slot.held = slot.held, None
    slot.result = slot.following = None
    if held is not None:
        process.leases.release(held)


def may_go_on(process: TaskProcess, held: Assignment) -> bool:
    """Whether the process may continue; checked at the report, since the worker may stop."""
    if process.goes_alone(held.worker):
        return False
    return process.may_go_on(slot.count, slot.ends_at)
