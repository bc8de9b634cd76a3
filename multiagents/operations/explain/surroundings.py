"""What is known around a saga's steps that have begun and not ended?

The steps and undos that `explain` tells of, and what was read of queues and workers for that.
Pure; `underway` and `unclaimed` make the sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.fields import outbox_field
from multiagents.core.states import Kind, StepState
from multiagents.core.texts import some_of
from multiagents.engine.launches import Launch
from multiagents.engine.queue_heads import Backlog
from multiagents.operations.earlier_attempts import Earliers
from multiagents.operations.explain.late_reports import LateSuccesses
from multiagents.operations.explain.saga import SHOWN, Reason, Situation
from multiagents.workflows.step import TaskCall

BUSY = ("running", "dispatched", "retrying", "parked")
"""States of a step or an undo that are told of; what is parked is told of last."""


@dataclass(frozen=True, slots=True)
class Task:
    """One step's run or undo that has begun and not ended."""

    step: str
    kind: Kind
    state: str

    @property
    def name(self) -> str:
        return f"{'step' if self.kind is Kind.RUN else 'the undo of'} {self.step!r}"

    @property
    def called(self) -> str:
        return "step" if self.kind is Kind.RUN else "undo"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of queues and workers."""

    work: Mapping[str, str] = field(default_factory=dict)
    """Outbox and claims."""
    fleet: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The running workers that take work."""
    queue_of: Mapping[str, str] = field(default_factory=dict)
    """By outbox field; empty where the app that sends a plain task decides."""
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    """Likewise; one that is not there could not be looked into."""
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By step."""
    late: LateSuccesses = field(default_factory=dict)
    launches: Sequence[Launch] = ()
    imports: Sequence[str] = ()
    """MULTIAGENTS_IMPORTS of whoever asks."""
    loops: Sequence[Mapping[str, Any]] = ()
    """Event loops that are blocked: see `Catalog.tell_loop`."""
    earlier: Earliers = field(default_factory=dict)
    """What became of attempts before those that are under way."""
    stopping: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The workers that take no more, and end when their last task has."""


def tasks_of(now: Situation) -> list[Task]:
    """What has begun and not ended, in definition order, what is parked last."""
    found = [
        Task(name, kind, step.of(kind).state.value)
        for name, step in now.saga.steps.items()
        for kind in Kind
        if step.of(kind).state.value in BUSY
    ]
    return sorted(found, key=lambda task: task.state == StepState.PARKED.value)


def shown(tasks: Sequence[Task]) -> list[Task]:
    """The first of each state: the sentences are for a person."""
    return [
        task for state in BUSY for task in [each for each in tasks if each.state == state][:SHOWN]
    ]


def plain_task(now: Situation, task: Task) -> TaskCall | None:
    """The user's own Celery task that does this work, if that is what does it."""
    target = now.workflow.by_name[task.step].target(task.kind)
    return target if isinstance(target, TaskCall) else None


def ref_of(now: Situation, task: Task) -> AttemptRef:
    """Its present attempt."""
    return AttemptRef(task.kind, task.step, now.saga.steps[task.step].of(task.kind).attempt)


def field_of(now: Situation, task: Task) -> str:
    """The outbox field of its present attempt."""
    return outbox_field(ref_of(now, task))


def reason_of(now: Situation, task: Task, code: str, text: str, **more: Any) -> Reason:
    """A reason about one step or undo; ``more`` as for `Reason`."""
    work = now.saga.steps[task.step].of(task.kind)
    facts = {"attempt": work.attempt, **more.pop("facts", {})}
    text = text[0].upper() + text[1:]
    return Reason(code, text, step=task.step, kind=task.called, facts=facts, **more)


def consumers_of(around: Surroundings, queue: str) -> dict[str, Mapping[str, Any]]:
    """The running workers of a queue."""
    return {host: each for host, each in around.fleet.items() if queue in each["queues"]}


def able(around: Surroundings, function: str) -> dict[str, Mapping[str, Any]]:
    """The running workers that have a function, whatever they consume."""
    return {host: each for host, each in around.fleet.items() if function in each["workers"]}


def all_busy(crew: Mapping[str, Mapping[str, Any]]) -> str:
    """That all slots of these workers are at work, as a clause; empty: not known, or not so."""
    slots = sum(each.get("slots", 1) for each in crew.values())
    told = [each["busy"] for each in crew.values() if each.get("busy") is not None]
    if not crew or len(told) < len(crew) or sum(told) < slots:
        return ""
    what, verb = ("the only slot", "is") if slots == 1 else (f"all {slots} slots", "are")
    return f"{what} of {hosts(sorted(crew))} {verb} busy"


def hosts(names: Iterable[str]) -> str:
    """Some of these, and how many more."""
    return some_of(names, SHOWN)
