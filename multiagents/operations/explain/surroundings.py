"""What is known about the unfinished steps of a saga, their queues and their workers?

The steps and undos that `explain` describes, and the facts that were read for them.  Pure;
`explain.steps` and `explain.unclaimed_steps` make the sentences.
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
"""The states of steps and undos that get a reason; parked ones come last."""


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
    """By outbox field; empty if the app that sends a plain task decides."""
    backlogs: Mapping[str, Backlog] = field(default_factory=dict)
    """By outbox field; a queue that could not be read is absent."""
    progress: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By step."""
    late: LateSuccesses = field(default_factory=dict)
    launches: Sequence[Launch] = ()
    imports: Sequence[str] = ()
    """MULTIAGENTS_IMPORTS of the calling process."""
    loops: Sequence[Mapping[str, Any]] = ()
    """Blocked event loops; see `Catalog.report_loop`."""
    earlier: Earliers = field(default_factory=dict)
    """The ends of the attempts before the present ones."""
    stopping: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The workers that take no more work and end with their last task."""


def tasks_of(now: Situation) -> list[Task]:
    """The unfinished steps and undos in definition order, parked ones last."""
    found = [
        Task(name, kind, step.of(kind).state.value)
        for name, step in now.saga.steps.items()
        for kind in Kind
        if step.of(kind).state.value in BUSY
    ]
    return sorted(found, key=lambda task: task.state == StepState.PARKED.value)


def shown(tasks: Sequence[Task]) -> list[Task]:
    """The first `SHOWN` of each state, so that a text stays short."""
    return [
        task for state in BUSY for task in [each for each in tasks if each.state == state][:SHOWN]
    ]


def plain_task(now: Situation, task: Task) -> TaskCall | None:
    """The user's own Celery task that does this work, if there is one."""
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
    """The running workers that have a function, on any queue."""
    return {host: each for host, each in around.fleet.items() if function in each["workers"]}


def all_busy(crew: Mapping[str, Mapping[str, Any]]) -> str:
    """The clause that all slots of these workers are busy; empty if they are not, or unknown."""
    slots = sum(each.get("slots", 1) for each in crew.values())
    told = [each["busy"] for each in crew.values() if each.get("busy") is not None]
    if not crew or len(told) < len(crew) or sum(told) < slots:
        return ""
    what, verb = ("the only slot", "is") if slots == 1 else (f"all {slots} slots", "are")
    return f"{what} of {hosts(sorted(crew))} {verb} busy"


def hosts(names: Iterable[str]) -> str:
    """The first of these names, and the number of the others."""
    return some_of(names, SHOWN)
