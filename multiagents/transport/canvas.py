"""What are the arguments of a call of ``start_saga``, and which canvas does it belong to?

Pure: the arguments in order, and, as data, the canvas that the saga's outcome continues.
"""

from __future__ import annotations

import json
from typing import Any

from kombu.utils.json import dumps

from multiagents.core.input_digest import REFUSE
from multiagents.workflows.builder import WorkflowBuilder
from multiagents.workflows.workflow import Workflow

_CANVAS = ("chain", "chord", "group_id", "group_index", "root_id", "parent_id")


def arguments(
    workflow: Any = None,
    input: Any = None,  # noqa: A002 - the public name of the argument
    idempotency_key: str | None = None,
    *more: Any,
    on_conflict: str = REFUSE,
    **unknown: Any,
) -> dict[str, Any]:
    """The arguments of a start by their names.

    Raises TypeError for a call without a workflow, for an unknown name, and for a third argument
    that is no key.  In a canvas the previous result comes first, so a given input comes third.
    """
    workflow, given = in_order(workflow, input)
    if unknown:
        raise TypeError(_unexpected(next(iter(unknown)), workflow))
    if not isinstance(workflow, str | Workflow):
        got = "none" if workflow is None else type(workflow).__name__
        got += "; call .build() first" if isinstance(workflow, WorkflowBuilder) else ""
        raise TypeError(
            "start_saga takes first the name of a workflow, or the workflow, then its input, as in"
            f" ('order', {{'order_id': 17}}); there the workflow is {got}"
        )
    if more or not isinstance(idempotency_key, str | None):
        extra = (idempotency_key, *more)
        raise TypeError(
            "start_saga takes a workflow, an input and the text of an idempotency_key; there are"
            f" {2 + len(extra)} arguments, the third is {type(extra[0]).__name__}. In a chain the"
            " input is the result of the task before; with an input of its own write start_saga.si"
        )
    call = {"workflow": workflow, "input": given, "idempotency_key": idempotency_key}
    return {**call, "on_conflict": on_conflict}


def _unexpected(key: str, workflow: Any) -> str:
    name = workflow if isinstance(workflow, str) else "order"
    return (
        f"start_saga got an unexpected keyword argument {key!r}; it takes workflow, input,"
        " idempotency_key and on_conflict: put the saga's input into a dict, as in"
        f" ({name!r}, {{{key!r}: ...}})"
    )


def in_order(workflow: Any, given: Any) -> tuple[Any, Any]:
    """Workflow and input in order; a canvas puts the previous result first."""
    swapped = isinstance(given, str) and not isinstance(workflow, str)
    return (given, workflow) if swapped else (workflow, given)


def canvas_of_request(request: Any) -> dict[str, Any]:
    """The canvas that a message brought."""
    canvas = {
        "callbacks": request.callbacks,
        "errbacks": request.errbacks,
        "group_id": request.group,
        **{n: request.get(n) for n in _CANVAS if n != "group_id"},
    }
    return _plain(canvas)


def canvas_of_call(link: Any, link_error: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The canvas of a call of ``apply_async``."""
    canvas = {
        "callbacks": _listed(link),
        "errbacks": _listed(link_error),
        **{name: options.get(name) for name in _CANVAS},
    }
    return _plain(canvas)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _plain(canvas: dict[str, Any]) -> dict[str, Any]:
    """A canvas without its empty parts, as JSON-safe data."""
    kept = {name: value for name, value in canvas.items() if value}
    if not kept.keys() - {"root_id", "parent_id"}:
        return {}
    text: str = dumps(kept)  # type: ignore[no-untyped-call]  # kombu has no types
    plain: dict[str, Any] = json.loads(text)
    return plain
