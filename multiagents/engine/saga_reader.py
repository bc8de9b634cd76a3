"""Which saga do the store's texts describe?  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from multiagents.core.fields import late_field, refused_field, result_field
from multiagents.core.states import Kind
from multiagents.saga.state import Saga, StepRun, decode_saga, new_saga
from multiagents.storage.replies import View
from multiagents.workflows.workflow import Workflow


def read_saga(saga_id: str, workflow: Workflow, view: View) -> Saga:
    """The saga of a view that brought its state, steps in definition order."""
    rows = view.steps or {}
    return decode_saga(
        saga_id,
        (workflow.name, workflow.version),
        head=view.head or [],
        steps={name: rows.get(name, []) for name in workflow.by_name},
    )


def late_fields(run: StepRun) -> tuple[str, ...]:
    """The fields where late results of a step may lie, even if no decision has noted one yet."""
    return tuple(map(late_field, run.given_up))


def own_fields(step: str, run: StepRun) -> tuple[str, ...]:
    """The fields that may hold a step's result for its undo; the first that exists counts.

    A late or refused result, too, may say what there is to undo.
    """
    return result_field(Kind.RUN, step), *late_fields(run), refused_field(step)


def own_result(step: str, run: StepRun, data: Mapping[str, str | None]) -> str | None:
    """The step's result that its undo gets."""
    return next((text for field in own_fields(step, run) if (text := data.get(field))), None)


def blank_saga(workflow: Workflow, saga_id: str, now_ms: int, data: dict[str, str]) -> Saga:
    """A saga before its first decision; ``data`` is its data hash, results included."""
    blank = new_saga(
        saga_id,
        workflow=workflow.name,
        version=workflow.version,
        steps=tuple(workflow.by_name),
        now_ms=now_ms,
    )
    if not workflow.has_conditions:
        return blank
    return replace(blank, values=_values(workflow, data))


def _values(workflow: Workflow, data: Mapping[str, str]) -> dict[str, Any]:
    """The values for conditions, as `Saga.values` holds them."""
    results = {
        name: json.loads(data[field])
        for name in workflow.names
        if (field := result_field(Kind.RUN, name)) in data
    }
    aside = late_field("")
    late = {
        field.removeprefix(aside): json.loads(text)
        for field, text in data.items()
        if field.startswith(aside)
    }
    return {"input": json.loads(data.get("input", "{}")), "results": results, "late": late}
