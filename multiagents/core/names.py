"""Which names do several rooms (and other programs) share?"""

from __future__ import annotations

START_SAGA = "multiagents.start_saga"
COORDINATE = "multiagents.coordinate"
COMPENSATE = "multiagents.compensate"

QUEUE_IO = "io"
QUEUE_LLM = "llm"
DEFAULT_QUEUES = (QUEUE_LLM, QUEUE_IO)
"""The queues of ``celery -A multiagents worker -Q llm,io``; these two serve all sagas."""
COORDINATOR_QUEUE = QUEUE_IO

HEADER = "multiagents"
"""Message header of every engine message; a list ``[saga, kind, step, attempt, version, sent_ms]``,
for a plain task with its timeout in seconds at the end."""

TELLS = "multiagents_tells"
"""Set in a worker's own request of a delivery if Celery's monitors listen, see
`hosting.step_request`."""

MAX_QUEUE = 128
"""Characters in the name of a queue."""
_KEYS = ("ma:", "celery-task-meta-", "celery-taskset-meta-", "_kombu", "celeryev.")
"""Prefixes of keys that the engine, Celery and kombu keep beside the queues."""
_KEPT = frozenset({"unacked", "unacked_index", "unacked_mutex"})
"""Whole names of such keys."""


def queue_flaw(name: object) -> str:
    """Why a queue for steps may not have this name; empty if it may.

    In Redis, a queue is a list with its name as the key, so it cannot have the name of another key.
    """
    if not isinstance(name, str) or not 0 < len(name) <= MAX_QUEUE:
        return f"expected text of 1 to {MAX_QUEUE} characters"
    if not name.isprintable():
        return "a queue's name has no control characters and no line breaks"
    if name in _KEPT or name.startswith(_KEYS) or name.endswith(".pidbox"):
        return "the name belongs to a key of the engine, of Celery or of kombu; choose another"
    return ""
