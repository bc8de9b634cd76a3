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
