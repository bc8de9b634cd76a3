"""Can a user's own Celery task be called as a workflow says?

A task that is given as an object has a signature.  One that takes nothing is called with nothing;
one that cannot be called so is refused where the workflow is built, with its file and line, not by
a TypeError where it runs.  One that is given by its name is compared with its call by a starting
worker that has both (`misfits`); one that lacks the task says so (`unregistered`).  Nothing is said
of a task whose class calls or sends it in a way of its own.

Celery is not imported for it: a task is what has a name and ``apply_async``.
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
"""Where Celery defines how a task is called; in a worker its tracer replaces ``__call__``."""


@dataclass(frozen=True, slots=True)
class UncallableTask:
    """A task that cannot be called as it is wanted."""

    why: str


def is_task(target: Any) -> bool:
    """Whether it is a Celery task of the user's own."""
    name = getattr(target, "name", None)
    return isinstance(name, str) and bool(name) and hasattr(target, "apply_async")


def call_of(task: Any) -> TaskCall | UncallableTask:
    """The call of a task that is given as it is: with the context, or with nothing."""
    signature = _signature(task)
    if signature is None or _takes(signature, (None,), {}):
        return TaskCall(task=task.name)
    if _takes(signature, (), {}):
        return TaskCall(task=task.name, args=())
    by_place = any(each.kind is not each.KEYWORD_ONLY for each in signature.parameters.values())
    function = getattr(task.run, "__name__", "") or repr(task.name)
    return UncallableTask(
        f"{_told(task, signature)}, and gets the context alone: write task({function},"
        f" {'args=[...]' if by_place else 'kwargs={...}'})"
    )


def refusal(task: Any, call: TaskCall) -> UncallableTask | None:
    """Why a task cannot be called with so many arguments, and with these by name."""
    signature = _signature(task)
    args, kwargs = call.args or (), call.kwargs or {}
    if signature is None or _takes(signature, args if call.computes else (None,), kwargs):
        return None
    given = ", ".join([f"{len(args)} in args", *(f"{name!r} in kwargs" for name in kwargs)])
    return UncallableTask(
        f"{_told(task, signature)}, not {given if call.computes else 'the context'}"
    )


def misfits(workflows: Iterable[Workflow], tasks: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The steps whose task, one of these, cannot be called as they say: place, and why."""
    for each, call in plain_tasks(workflows):
        if call.task in tasks and (found := refusal(tasks[call.task], call)):
            yield each.place, found.why


def unregistered(
    workflows: Iterable[Workflow], tasks: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The steps whose task is none of these: place, and why, with what was probably meant."""
    for each, call in plain_tasks(workflows):
        if call.task not in tasks:
            yield each.place, f"this worker has no task {call.task!r}{meant(call.task, tasks)}"


def meant(name: str, known: Iterable[str]) -> str:
    """What was probably meant by the name of a task, as a clause; empty if nothing is close."""
    found = nearest_dotted(name, known)
    return f"; {did_you_mean(found)}" if found else ""


def _signature(task: Any) -> inspect.Signature | None:
    """Of the function; None if it is not known, or not all that there is to a call."""
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
    """What the task takes, and where it is defined."""
    code = getattr(inspect.unwrap(task.run), "__code__", None)
    place = f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
    names = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    bare = signature.replace(parameters=names, return_annotation=signature.empty)
    return f"task {task.name!r}{place} takes {bare}"
