"""Which saga do the store's texts describe?  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from multiagents.core.states import Kind
from multiagents.orchestrator.saga import Saga, decode_saga, new_saga
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import keys as k
from multiagents.storage.views import View


def read_saga(saga_id: str, workflow: Workflow, view: View) -> Saga:
    """The saga of a view that brought its state, steps in definition order."""
    rows = view.steps or {}
    return decode_saga(
        saga_id,
        (workflow.name, workflow.version),
        head=view.head or [],
        steps={name: rows.get(name, []) for name in workflow.by_name},
    )


def own_result(step: str, data: Mapping[str, str | None]) -> str | None:
    """What an undo is given of its step: a late or refused result may say what there is to undo."""
    fields = (k.result_field(Kind.RUN, step), k.late_field(step), k.refused_field(step))
    return next((text for field in fields if (text := data.get(field))), None)


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
    """What conditions read, as `Saga.values` holds it."""
    fields = {name: (k.result_field(Kind.RUN, name), k.late_field(name)) for name in workflow.names}
    results, late = (
        {name: json.loads(data[own[at]]) for name, own in fields.items() if own[at] in data}
        for at in (0, 1)
    )
    return {"input": json.loads(data.get("input", "{}")), "results": results, "late": late}
