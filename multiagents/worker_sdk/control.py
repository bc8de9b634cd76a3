"""Which exceptions of Celery decide about an attempt?

The one place of this room that imports Celery: an ``except`` needs the classes themselves.
"""

from __future__ import annotations

from celery.exceptions import (
    SoftTimeLimitExceeded,
    TaskPredicate,
    WorkerShutdown,
    WorkerTerminate,
)

__all__ = ["STOPS", "SoftTimeLimitExceeded", "TaskPredicate"]

STOPS = (WorkerShutdown, WorkerTerminate)
"""Raised where a worker ends, in any code that its signal interrupts."""
