"""What is a saga's outcome, and what did it leave behind?  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multiagents.core.effects import Effect
from multiagents.core.fields import part_field, result_field
from multiagents.core.json_text import loads
from multiagents.core.states import Kind, SagaState, StepState, UndoState
from multiagents.saga.dead_letters import parked
from multiagents.saga.state import Saga
from multiagents.saga.targets import Told, parked_notes, parked_targets, targets_of
from multiagents.workflows.workflow import Workflow


@dataclass(frozen=True, slots=True)
class SagaOutcome(Effect[Told]):
    """Effect: deliver a saga's outcome to all its waiters; the reply is a `Told`.

    ``waiting``: Celery task id -> its canvas (the tasks that the end of a Celery task would start).
    ``settled``: by task id, the targets that have the outcome already or wait for an operator.
    ``result`` is set for a completed saga; ``failure`` (arguments of `SagaFailed`) otherwise.
    """

    saga_id: str
    state: str
    waiting: dict[str, dict[str, Any]]
    result: dict[str, Any] | None = None
    failure: dict[str, Any] = field(default_factory=dict)
    settled: Mapping[str, frozenset[str]] = field(default_factory=dict)


def has_dead_letters(saga: Saga) -> bool:
    """Whether a step, an undo or a target of the outcome waits for an operator."""
    return bool(saga.attention and parked_notes(saga)) or any(
        parked(step) for step in saga.steps.values()
    )


def fields_of(workflow: Workflow, state: SagaState) -> tuple[str, ...]:
    """The data fields that make up the outcome of this end, besides those of the waiters."""
    steps = workflow.last_steps if state is SagaState.COMPLETED else ()
    return tuple(result_field(Kind.RUN, step) for step in steps)


def outcome_of(
    saga: Saga, workflow: Workflow, data: dict[str, str], *, now: Saga | None = None
) -> SagaOutcome:
    """A saga's outcome for its waiters; ``data``: the waiters, and the fields of `fields_of`.

    A second delivery stores the outcome again, but starts no canvas again.  ``now``: the present
    saga, if it has moved since that end.
    """
    waiting: dict[str, dict[str, Any]] = {}
    parked = parked_targets(now or saga)
    completed = saga.state is SagaState.COMPLETED
    for name, canvas in data.items():
        prefix, _, task_id = name.partition(":")
        if prefix == "alias":
            started = f"told:{task_id}" in data
            own: dict[str, Any] = {} if started else loads(canvas or "{}")
            names = {each.name for each in targets_of(own, completed=completed)} if own else set()
            # All that is left of its canvas waits for an operator.
            waits = names and names <= parked.get(task_id, set()) | parts_in(data, task_id)
            waiting[task_id] = {} if waits else own
    settled = {task_id: frozenset(names) for task_id, names in parked.items()}
    if completed:
        merged = merged_result(workflow, data)
        return SagaOutcome(saga.id, saga.state, waiting, result=merged, settled=settled)
    failure = failure_of(saga)
    return SagaOutcome(saga.id, saga.state, waiting, failure=failure, settled=settled)


def parts_in(data: dict[str, str], task_id: str) -> set[str]:
    """The targets of a canvas that got the outcome although others did not."""
    return set(loads(data.get(part_field(task_id), "[]")))


def merged_result(workflow: Workflow, data: dict[str, str]) -> dict[str, Any]:
    """The results of the last steps, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for step in workflow.last_steps:
        merged.update(loads(data.get(result_field(Kind.RUN, step), "{}")))
    return merged


def failure_of(saga: Saga) -> dict[str, Any]:
    """The arguments of `SagaFailed` for a saga that did not complete."""
    undo = {
        name: {
            "state": step.undo.state.value,
            "attempts": step.undo.attempt,
            "error": step.undo.error.to_dict() if step.undo.error else None,
        }
        for name, step in saga.steps.items()
        if step.undo.state is not UndoState.NONE
    }
    return {
        "transaction_id": saga.id,
        "state": saga.state.value,
        "step": saga.error_step or None,
        "error": saga.error.to_dict() if saga.error else None,
        "undo": undo,
    }


def left_of(workflow: Workflow, saga: Saga) -> list[str]:
    """The steps that are done, or may be, and have no undo yet; for an operator.

    After a termination, steps and undos may still be running.
    """
    found = []
    for name, step in saga.steps.items():
        done, at_work = step.run.state is StepState.SUCCEEDED, step.run.state is StepState.RUNNING
        if step.undo.state is UndoState.RUNNING:
            found.append(f"{name} (its undo is still at work)")
        elif step.undo.state is UndoState.NONE and (done or at_work or step.unknown):
            notes = ["still at work"] if at_work else []
            notes += [] if done else ["perhaps done"]
            if workflow.by_name[name].compensation is None:
                notes.append("it has no compensation")
            found.append(f"{name} ({', '.join(notes)})" if notes else name)
    return found
