"""Can a user's own Celery task be called as a workflow says?

A task object has a signature.  A task that takes no arguments is called with none.  If the
arguments do not fit, ``build`` refuses the workflow with the task's file and line; else the worker
would raise a TypeError.  For a task given by name, a starting worker that has the task compares the
two (`misfits`).  A worker that lacks it reports that (`unregistered`).  A task whose class has its
own way to call or send it is not checked.

This module does not import Celery: a task is any object with a name and ``apply_async``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiagents.core.near import did_you_mean, nearest_dotted
from multiagents.workflows.callees import plain_tasks
from multiagents.workflows.step import TaskCall
from multiagents.workflows.workflow import Workflow

_CELERYS = ("celery.app.task", "celery.app.trace")
"""The modules in which Celery defines a task's call; a worker's tracer replaces ``__call__``."""


@dataclass(frozen=True, slots=True)
class UncallableTask:
    """A task that does not fit its call in the workflow."""

    why: str


def is_task(target: Any) -> bool:
    """Whether it is a user's own Celery task."""
    name = getattr(target, "name", None)
    return isinstance(name, str) and bool(name) and hasattr(target, "apply_async")


def call_of(task: Any) -> TaskCall | UncallableTask:
    """The call of a task without expressions: with the context, or without arguments."""
    signature = _signature(task)
    if signature is None or _takes(signature, (None,), {}):
        return TaskCall(task=task.name)
    if _takes(signature, (), {}):
        return TaskCall(task=task.name, args=())
    by_place = any(each.kind is not each.KEYWORD_ONLY for each in signature.parameters.values())
    function = getattr(task.run, "__name__", "") or repr(task.name)
    return UncallableTask(
        f"{_told(task, signature)}, but would get only the context: write task({function},"
        f" {'args=[...]' if by_place else 'kwargs={...}'})"
    )


def refusal(task: Any, call: TaskCall) -> UncallableTask | None:
    """Why a task does not take the call's arguments; None if it takes them."""
    signature = _signature(task)
    args, kwargs = call.args or (), call.kwargs or {}
    if signature is None or _takes(signature, args if call.computes else (None,), kwargs):
        return None
    given = ", ".join([f"{len(args)} in args", *(f"{name!r} in kwargs" for name in kwargs)])
    return UncallableTask(
        f"{_told(task, signature)}, not {given if call.computes else 'the context'}"
    )


def misfits(workflows: Iterable[Workflow], tasks: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The steps whose task is among ``tasks`` and does not fit the call: place and reason."""
    for each, call in plain_tasks(workflows):
        if call.task in tasks and (found := refusal(tasks[call.task], call)):
            yield each.place, found.why


def unregistered(
    workflows: Iterable[Workflow], tasks: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The steps whose task is not among ``tasks``: place, and reason with a suggestion."""
    for each, call in plain_tasks(workflows):
        if call.task not in tasks:
            yield each.place, f"this worker has no task {call.task!r}{meant(call.task, tasks)}"


def meant(name: str, known: Iterable[str]) -> str:
    """A suggestion for the name of a task, as a clause; empty if no known name is close."""
    found = nearest_dotted(name, known)
    return f"; {did_you_mean(found)}" if found else ""


def _signature(task: Any) -> inspect.Signature | None:
    """The function's signature; None if it is unknown, or does not define the whole call."""
    ways = (getattr(task.__class__, name, None) for name in ("__call__", "apply_async"))
    if any(getattr(way, "__module__", "") not in _CELERYS for way in ways):
        return None
    try:
        return inspect.signature(task.run)
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _told(task: Any, signature: inspect.Signature) -> str:
    """The task's parameters, and the place of its definition."""
    code = getattr(inspect.unwrap(task.run), "__code__", None)
    place = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
    names = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    bare = signature.replace(parameters=names, return_annotation=signature.empty)
    return f"task {task.name!r}{place} takes {bare}"
