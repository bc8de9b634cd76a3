"""Which states can a saga, a step and an undo be in?

`multiagents.saga.transitions` has the legal moves between them, as tables.  No I/O, no clock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

WorkflowState = Literal["pending", "running", "completed", "failed", "compensated", "cancelled"]
"""The ordinary states of a saga, for annotations.

`SagaState` has two more, in which a saga waits for an operator or undoes its steps.
"""


class SagaState(StrEnum):
    """The state of a saga; users see its value."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """The state of a step's forward work."""

    WAITING = "waiting"
    """Not dispatched: its dependencies have not ended, or the saga is paused."""
    DISPATCHED = "dispatched"
    """Its command is in the outbox; no worker has claimed it."""
    RUNNING = "running"
    RETRYING = "retrying"
    """The last attempt failed; the next waits for its back-off."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    PARKED = "parked"
    """A dead letter: only an operator moves it."""


class UndoState(StrEnum):
    """The state of a step's compensation."""

    NONE = "none"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    PARKED = "parked"
    SKIPPED = "skipped"
    """An operator decided not to undo, and gave a reason."""
    RESOLVED = "resolved"
    """An operator undid it by hand, and gave a reason."""


class FailureEffect(StrEnum):
    """The effect of a failed attempt: none, or unknown."""

    CLEAN = "failed_clean"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """The two kinds of work on a step."""

    RUN = "run"
    UNDO = "undo"


class Action(StrEnum):
    """The actions that an operator can request."""

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
"""States in which only a recorded action (or a late effect) moves a saga."""

STEP_BUSY = frozenset({StepState.DISPATCHED, StepState.RUNNING})
UNDO_BUSY = frozenset({UndoState.DISPATCHED, UndoState.RUNNING, UndoState.RETRYING})
UNDO_SETTLED = frozenset(
    {UndoState.SUCCEEDED, UndoState.PARKED, UndoState.SKIPPED, UndoState.RESOLVED}
)
