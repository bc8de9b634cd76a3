"""How did a saga end, and what came of it?  Pure."""

from __future__ import annotations

from typing import Any

from multiagents.core.json_text import loads
from multiagents.core.states import Kind, SagaState, StepState, UndoState
from multiagents.orchestrator.outbox import Deliverance
from multiagents.orchestrator.saga import Saga
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import keys as k


def has_dead_letters(saga: Saga) -> bool:
    """Whether a step or an undo waits for a person."""
    return any(
        run.state is StepState.PARKED or run.undo_state is UndoState.PARKED
        for run in saga.steps.values()
    )


def outcome_of(saga: Saga, workflow: Workflow, data: dict[str, str]) -> Deliverance:
    """How the saga ended, for those who wait; ``data`` is its data hash.

    Told again, it is stored again; what a canvas starts is not started again.
    """
    waiting: dict[str, dict[str, Any]] = {}
    for name, canvas in data.items():
        prefix, _, task_id = name.partition(":")
        if prefix == "alias":
            started = f"told:{task_id}" in data
            waiting[task_id] = {} if started else loads(canvas or "{}")
    if saga.state is SagaState.COMPLETED:
        merged = merged_result(workflow, data)
        return Deliverance(saga.id, saga.state, waiting, result=merged)
    return Deliverance(saga.id, saga.state, waiting, failure=failure_of(saga))


def merged_result(workflow: Workflow, data: dict[str, str]) -> dict[str, Any]:
    """The results of the last steps, later ones over earlier ones."""
    merged: dict[str, Any] = {}
    for step in workflow.last_steps:
        merged.update(loads(data.get(k.result_field(Kind.RUN, step), "{}")))
    return merged


def failure_of(saga: Saga) -> dict[str, Any]:
    """The arguments of `SagaFailed` for a saga that did not complete."""
    undo = {
        name: {
            "state": run.undo_state.value,
            "attempts": run.undo.attempt,
            "error": run.undo.error.to_dict() if run.undo.error else None,
        }
        for name, run in saga.steps.items()
        if run.undo_state is not UndoState.NONE
    }
    return {
        "transaction_id": saga.id,
        "state": saga.state.value,
        "step": saga.error_step or None,
        "error": saga.error.to_dict() if saga.error else None,
        "undo": undo,
    }
