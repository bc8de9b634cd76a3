"""What does a call of ``start_saga`` ask for, and which canvas does it belong to?

Pure: a call's arguments in their order, and the parts of a Celery canvas that its saga's outcome
goes on with, as data.
"""

from __future__ import annotations

import json
from typing import Any

from kombu.utils.json import dumps

_CANVAS = ("chain", "chord", "group_id", "group_index", "root_id", "parent_id")


def arguments(
    workflow: Any,
    input: Any = None,  # noqa: A002 - the public name of the argument
    *,
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """The arguments of a start by their names."""
    workflow, given = in_order(workflow, input)
    return {"workflow": workflow, "input": given, "idempotency_key": idempotency_key}


def in_order(workflow: Any, given: Any) -> tuple[Any, Any]:
    """A canvas puts the result of the task before it first: ``(result, "order")``."""
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
    """The canvas that ``apply_async`` was called with."""
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
