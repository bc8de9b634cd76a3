"""Which saga do the store's texts describe?  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

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
    """What an undo is given of its step: a refused result, too, may say what there is to undo."""
    return data.get(k.result_field(Kind.RUN, step)) or data.get(k.refused_field(step))


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
    results = {
        name: json.loads(data[result])
        for name in workflow.by_name
        if (result := k.result_field(Kind.RUN, name)) in data
    }
    return replace(blank, values={"input": json.loads(data["input"]), "results": results})
