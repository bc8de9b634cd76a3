"""Which names do several rooms (and other programs) rely on?"""

from __future__ import annotations

START_SAGA = "multiagents.start_saga"
COORDINATE = "multiagents.coordinate"
COMPENSATE = "multiagents.compensate"

QUEUE_IO = "io"
QUEUE_LLM = "llm"
DEFAULT_QUEUES = (QUEUE_LLM, QUEUE_IO)
"""What ``celery -A multiagents worker -Q llm,io`` consumes; with those two everything runs."""
COORDINATOR_QUEUE = QUEUE_IO

HEADER = "multiagents"
"""Message header of every engine message; a list ``[saga, kind, step, attempt, version, sent_ms]``,
that of a plain task with its time-out in seconds at the end."""

TELLS = "multiagents_tells"
"""Set in a worker's own request of a delivery where Celery's monitors listen, see
`worker_sdk.step_events`."""

MAX_QUEUE = 128
"""Characters in the name of a queue."""
_KEYS = ("ma:", "celery-task-meta-", "celery-taskset-meta-", "_kombu", "celeryev.")
"""How keys begin that the engine, Celery and kombu keep beside the queues."""
_KEPT = frozenset({"unacked", "unacked_index", "unacked_mutex"})
"""Likewise, whole."""


def queue_flaw(name: object) -> str:
    """Why no queue for steps may have this name; empty: one may.

    On a Redis a queue is a list under its name, so that no other key's name can be a queue's.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_QUEUE:
        return f"expected text of 1 to {MAX_QUEUE} characters"
    if not name.isprintable():
        return "a queue's name has no control characters and no line breaks"
    if name in _KEPT or name.startswith(_KEYS) or name.endswith(".pidbox"):
        return "the name belongs to a key of the engine, of Celery or of kombu; choose another"
    return ""
