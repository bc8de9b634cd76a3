"""Which states can a saga, a step and an undo be in?

The legal moves between them are tables in `multiagents.saga.transitions`.  No I/O, no clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

WorkflowState = Literal["pending", "running", "completed", "failed", "compensated", "cancelled"]
"""The states of a saga in which nothing out of the ordinary is going on, for annotations.

`SagaState` has these and two more, in which a saga waits for a person or undoes its steps.
"""


class SagaState(StrEnum):
    """Where a saga stands; its value is what users see."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """Where the forward work of a step stands."""

    WAITING = "waiting"
    """Not dispatched: its dependencies have not ended, or the saga is paused."""
    DISPATCHED = "dispatched"
    """A command stands in the outbox; no worker has claimed it."""
    RUNNING = "running"
    RETRYING = "retrying"
    """The last attempt failed; the next waits for its back-off."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    PARKED = "parked"
    """A dead letter: only a person moves it on."""


class UndoState(StrEnum):
    """Where the compensation of a step stands."""

    NONE = "none"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    PARKED = "parked"
    SKIPPED = "skipped"
    """An operator decided not to undo, and said why."""
    RESOLVED = "resolved"
    """An operator undid it by hand, and said how."""


class FailureEffect(StrEnum):
    """What an attempt that did not succeed has left behind."""

    CLEAN = "failed_clean"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """The two things a worker can be asked to do with a step."""

    RUN = "run"
    UNDO = "undo"


class Action(StrEnum):
    """What a person can ask of a saga."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    ROLLBACK = "rollback"
    TERMINATE = "terminate"
    RETRY = "retry"
    SKIP = "skip"
    RESOLVE = "resolve"


ENDED = frozenset(
    {SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.FAILED, SagaState.CANCELLED}
)
"""States in which nothing but a recorded command (or a late effect) moves a saga."""

STEP_BUSY = frozenset({StepState.DISPATCHED, StepState.RUNNING})
UNDO_BUSY = frozenset({UndoState.DISPATCHED, UndoState.RUNNING, UndoState.RETRYING})
UNDO_SETTLED = frozenset(
    {UndoState.SUCCEEDED, UndoState.PARKED, UndoState.SKIPPED, UndoState.RESOLVED}
)
