"""What do users see of a saga?

Every face shows these shapes: a saga as JSON-safe data, and its history as events.  Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from multiagents.core import ids
from multiagents.core.clock import iso
from multiagents.core.entries import Claimed, Entry, Failure, Lost, Requested, Unroutable
from multiagents.core.fields import result_field
from multiagents.core.states import ENDED, Kind, SagaState, StepState, UndoState
from multiagents.core.texts import some_of
from multiagents.engine.saga_reader import blank_saga
from multiagents.saga.decide import fold
from multiagents.saga.outcome import failure_of, merged_result
from multiagents.saga.state import AnyWork, Saga, StepRun
from multiagents.workflows.workflow import Workflow

DAMAGED = "damaged"
"""The state that is shown for a damaged saga."""
NAMED = 3
"""How many items one line names."""
LastErrors = Mapping[tuple[Kind, str], Failure]
_NONE: LastErrors = MappingProxyType({})


def describe(
    saga: Saga, workflow: Workflow, data: dict[str, str], *, last_errors: LastErrors = _NONE
) -> dict[str, Any]:
    """A saga in the shape that users see everywhere.

    ``last_errors``: those that the state no longer has (`earlier_attempts`), by kind and step.
    """
    results = {
        name: json.loads(data[field])
        for name in workflow.by_name
        if (field := result_field(Kind.RUN, name)) in data
        and saga.steps[name].run.state is StepState.SUCCEEDED
    }
    error = failure_of(saga)["error"]
    completed = saga.state is SagaState.COMPLETED
    meta = json.loads(data.get("meta", "{}"))
    return {
        "transaction_id": saga.id,
        "workflow": saga.workflow,
        "version": saga.version,
        "state": saga.state.value,
        "current_step": current_step(saga),
        "input": json.loads(data.get("input", "{}")),
        "step_results": results,
        "result": merged_result(workflow, data) if completed else None,
        "error": {**error, "step": saga.error_step or None} if error else None,
        "needs_attention": bool(saga.attention),
        "attention": list(saga.attention),
        "task_ids": [name[6:] for name in data if name.startswith("alias:")],
        "correlation_id": meta.get("correlation_id", saga.id),
        "tags": meta.get("tags", []),
        "idempotency_key": meta.get("idempotency_key"),
        "created_at": iso(saga.created_at),
        "updated_at": iso(saga.updated_at),
        "ended_at": iso(saga.ended_at),
        "duration_s": _duration_s(saga),
        "steps": {
            name: _describe_step(
                saga.id, name, step=step, progress=data.get(f"p:{name}"), last_errors=last_errors
            )
            for name, step in saga.steps.items()
        },
    }


def damaged_row(saga_id: str, problems: Sequence[str]) -> dict[str, Any]:
    """A damaged saga, of which nothing else is known, in the shape of a list."""
    return {
        "transaction_id": saga_id,
        "workflow": "",
        "version": "",
        "state": DAMAGED,
        "current_step": None,
        "input": None,
        "error": None,
        "needs_attention": True,
        "attention": list(problems),
        "correlation_id": saga_id,
        "tags": [],
        "idempotency_key": None,
        "created_at": None,
        "updated_at": None,
        "ended_at": None,
        "duration_s": None,
        "steps": {},
    }


def _duration_s(saga: Saga) -> float | None:
    """Seconds from its start to its end; None before its end."""
    return (saga.ended_at - saga.created_at) / 1000 if saga.state in ENDED else None


def _describe_step(
    saga_id: str, name: str, *, step: StepRun, progress: str | None, last_errors: LastErrors
) -> dict[str, Any]:
    undone = step.undo.state is not UndoState.NONE
    return {
        "state": step.run.state.value,
        "attempts": step.run.attempt,
        "worker": step.run.worker or None,
        "task_id": _task_id(saga_id, Kind.RUN, name, step.run),
        "started_at": iso(step.run.started_at),
        "ended_at": iso(step.run.ended_at),
        "retry_at": iso(step.run.retry_at) if step.run.state is StepState.RETRYING else None,
        "error": _error(step.run.error),
        "last_error": _error(step.run.error or last_errors.get((Kind.RUN, name))),
        "progress": json.loads(progress) if progress else None,
        "compensation": {
            "state": step.undo.state.value,
            "attempts": step.undo.attempt,
            "task_id": _task_id(saga_id, Kind.UNDO, name, step.undo),
            "retry_at": iso(step.undo.retry_at) if step.undo.state is UndoState.RETRYING else None,
            "error": _error(step.undo.error),
            "last_error": _error(step.undo.error or last_errors.get((Kind.UNDO, name))),
        }
        if undone
        else None,
    }


def _task_id(saga_id: str, kind: Kind, step: str, work: AnyWork) -> str | None:
    """The Celery id of its last attempt."""
    return ids.step_id(saga_id, kind, step, work.attempt) if work.attempt else None


def _error(error: Failure | None) -> dict[str, str] | None:
    return error.to_dict() if error else None


def current_step(saga: Saga) -> str | None:
    """The first unfinished step in definition order; None at the end."""
    if saga.state in ENDED:
        return None
    busy = {StepState.RUNNING, StepState.DISPATCHED, StepState.RETRYING, StepState.PARKED}
    undoing = {UndoState.RUNNING, UndoState.DISPATCHED, UndoState.RETRYING}
    for name, step in saga.steps.items():
        if step.undo.state in undoing or step.run.state in busy:
            return name
    return None


def person_awaited(shown: Mapping[str, Any]) -> str:
    """Why a saga, as `describe` shows it, waits for an operator; empty: it does not."""
    found = ["it is paused"] if shown["state"] == SagaState.PAUSED else []
    for name, step in shown["steps"].items():
        if step["state"] == StepState.PARKED:
            found.append(f"step {name!r} is parked")
        if (step["compensation"] or {}).get("state") == UndoState.PARKED:
            found.append(f"the undo of {name!r} is parked")
    return some_of(found, NAMED)


def replay(
    saga_id: str, workflow: Workflow, entries: Sequence[Entry], data: dict[str, str]
) -> list[dict[str, Any]]:
    """The log as events; deciding again, entry by entry, gives the moves of the saga itself."""
    start_ms = entries[0].at_ms if entries else 0
    saga = blank_saga(workflow, saga_id, start_ms, data)
    events: list[dict[str, Any]] = []
    workers: dict[str, str] = {}
    for entry in entries:
        after = fold(workflow, saga, (entry,)).saga
        if isinstance(entry, Claimed):
            workers[entry.nonce] = entry.worker
        events.append(_event(entry, after, workers))
        if after.state is not saga.state:
            moved = {"from": saga.state.value, "to": after.state.value}
            events.append(_plain_event(f"saga_{after.state}", entry.at_ms, data=moved))
        saga = after
    return events


def _event(entry: Entry, after: Saga, workers: Mapping[str, str]) -> dict[str, Any]:
    """``after``: the saga after the entry; ``workers``: the claiming processes, by nonce."""
    kind = getattr(entry, "kind", None)
    prefix = {None: "", Kind.RUN: "step_", Kind.UNDO: "undo_"}[kind]
    of_end = isinstance(entry, Unroutable) and bool(entry.target)
    prefix = "end_" if of_end else prefix
    known = {
        "at_ms",
        "type",
        "kind",
        "step",
        "attempt",
        "worker",
        "nonce",
        "retry",
        "token",
        "request",
        "letter",
        "parked_at",
        "place",
    }
    rest = {
        _PUBLIC.get(name, name): getattr(entry, name)
        for name in entry.__dataclass_fields__
        if name not in known and getattr(entry, name) not in ("", None, ())
    }
    if isinstance(entry, Lost) and (error := _loss(entry, after)):
        rest["error"] = error
    if "error" in rest:
        rest["error"] = rest["error"].to_dict()
    if prefix in ("step_", "undo_"):
        rest["state"] = _state_of(after, getattr(entry, "step", ""), prefix)
    if isinstance(entry, Requested) and entry.letter:
        called = "step" if entry.letter is Kind.RUN else "undo"
        rest |= {"kind": called, "parked_at": iso(entry.parked_at)}
    return _plain_event(
        f"{prefix}{entry.type}",
        entry.at_ms,
        step=getattr(entry, "step", None) or None,
        attempt=None if of_end else getattr(entry, "attempt", None),
        worker=workers.get(getattr(entry, "nonce", "")) or None,
        data={name: str(v) if isinstance(v, str) else v for name, v in rest.items()},
    )


_PUBLIC = {"action": "command", "effect": "outcome"}
"""Fields of entries whose name in an event's ``data`` is another."""


def _loss(entry: Lost, after: Saga) -> Failure | None:
    """The error of a lost attempt."""
    step = after.steps.get(entry.step)
    work = step.of(entry.kind) if step else None
    return work.error if work and work.nonce == entry.nonce else None


def _state_of(saga: Saga, step: str, prefix: str) -> str | None:
    found = saga.steps.get(step)
    if found is None:  # a report of an unknown step changes nothing
        return None
    return found.of(Kind.RUN if prefix == "step_" else Kind.UNDO).state


def _plain_event(
    kind: str,
    at_ms: int,
    *,
    step: str | None = None,
    attempt: int | None = None,
    worker: str | None = None,
    data: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "type": kind,
        "step": step,
        "attempt": attempt,
        "at": iso(at_ms),
        "worker": worker,
        "data": data or {},
    }
