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
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from multiagents.workflows.workflow import TaskCall, Workflow

MEANT = 0.7
"""So much of a task's own name (0 to 1, by difflib) makes another one that was probably meant."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A task that cannot be called as it is wanted."""

    why: str


def is_task(target: Any) -> bool:
    """Whether it is a Celery task of the user's own."""
    name = getattr(target, "name", None)
    return isinstance(name, str) and bool(name) and hasattr(target, "apply_async")


def call_of(task: Any) -> TaskCall | Refused:
    """The call of a task that is given as it is: with the context, or with nothing."""
    signature = _signature(task)
    if signature is None or _takes(signature, (None,), {}):
        return TaskCall(task=task.name)
    if _takes(signature, (), {}):
        return TaskCall(task=task.name, args=())
    by_place = any(each.kind is not each.KEYWORD_ONLY for each in signature.parameters.values())
    function = getattr(task.run, "__name__", "") or repr(task.name)
    return Refused(
        f"{_told(task, signature)}, and gets the context alone: write task({function},"
        f" {'args=[...]' if by_place else 'kwargs={...}'})"
    )


def refusal(task: Any, call: TaskCall) -> Refused | None:
    """Why a task cannot be called with so many arguments, and with these by name."""
    signature = _signature(task)
    args, kwargs = call.args or (), call.kwargs or {}
    if signature is None or _takes(signature, args if call.computes else (None,), kwargs):
        return None
    given = ", ".join([f"{len(args)} in args", *(f"{name!r} in kwargs" for name in kwargs)])
    return Refused(f"{_told(task, signature)}, not {given if call.computes else 'the context'}")


def misfits(workflows: Iterable[Workflow], tasks: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The steps whose task, one of these, cannot be called as they say: place, and why."""
    for place, call in _calls(workflows):
        if call.task in tasks and (found := refusal(tasks[call.task], call)):
            yield place, found.why


def unregistered(
    workflows: Iterable[Workflow], tasks: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The steps whose task is none of these: place, and why, with what was probably meant."""
    for place, call in _calls(workflows):
        if call.task not in tasks:
            yield place, f"this worker has no task {call.task!r}{meant(call.task, tasks)}"


def meant(name: str, known: Iterable[str]) -> str:
    """What was probably meant by the name of a task, in words; empty if nothing is close.

    The function's name tells: names of one module resemble each other anyway.
    """
    own = {each: each.rpartition(".")[2] for each in known}
    close = get_close_matches(name.rpartition(".")[2], list(own.values()), cutoff=MEANT)
    near = [each for each in own if own[each] in close]
    found = get_close_matches(name, near, n=1, cutoff=0)
    return f"; did you mean {found[0]!r}?" if found else ""


def _calls(workflows: Iterable[Workflow]) -> Iterator[tuple[str, TaskCall]]:
    """The plain tasks of workflows, each with its place."""
    for workflow in workflows:
        for step in workflow.steps:
            for key, call in (("worker", step.worker), ("compensation", step.compensation)):
                if isinstance(call, TaskCall):
                    yield f"workflow {workflow.name!r}, {key} of step {step.name!r}", call


def _signature(task: Any) -> inspect.Signature | None:
    """Of the function; None if it is not known, or not all that there is to a call."""
    ways = (getattr(task.__class__, name, None) for name in ("__call__", "apply_async"))
    if any(getattr(way, "__module__", "") != "celery.app.task" for way in ways):
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
