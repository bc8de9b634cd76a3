"""How does a message name the callbacks that Celery calls at the end of its task?

As signatures in Celery's own form.  A callback that is not called in the task's process goes to the
coordinator's queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from multiagents.core.names import COMPENSATE, COORDINATE, COORDINATOR_QUEUE


def link(**about: Any) -> dict[str, Any]:
    """The ``link`` of a plain task: decide over its saga."""
    return _callback(COORDINATE, kwargs=about)


def errback(attempt: Sequence[Any]) -> dict[str, Any]:
    """The ``link_error`` of a step; ``attempt``: saga, kind, step, attempt."""
    return _callback(COMPENSATE, args=attempt)


def _callback(
    task: str, *, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "task": task,
        "args": list(args),
        "kwargs": kwargs or {},
        "options": {"queue": COORDINATOR_QUEUE},
        "subtask_type": None,
        "immutable": False,
    }
