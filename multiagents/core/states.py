"""Which states can a saga, a step and an undo be in, and which moves are legal?

``SAGA_MOVES`` is the truth: ``decide`` refuses every other move, and the diagram in
docs/explanation/concepts.md is drawn from it.  A move is marked by what may cause it.
No I/O, no clock.
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


class Outcome(StrEnum):
    """What an attempt that did not succeed has left behind."""

    CLEAN = "failed_clean"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """The two things a worker can be asked to do with a step."""

    RUN = "run"
    UNDO = "undo"


class Command(StrEnum):
    """What a person can ask of a saga."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    ROLLBACK = "rollback"
    TERMINATE = "terminate"
    RETRY = "retry"
    SKIP = "skip"
    RESOLVE = "resolve"


BY_ENGINE = "engine"
BY_OPERATOR = "operator"

_P, _R, _U, _C = SagaState.PENDING, SagaState.RUNNING, SagaState.PAUSED, SagaState.COMPENSATING
_DONE, _UNDONE = SagaState.COMPLETED, SagaState.COMPENSATED
_FAILED, _CANCELLED = SagaState.FAILED, SagaState.CANCELLED

SAGA_MOVES: dict[tuple[SagaState, SagaState], str] = {
    (_P, _R): BY_ENGINE,
    (_P, _U): BY_OPERATOR,
    (_P, _C): BY_OPERATOR,
    (_P, _CANCELLED): BY_OPERATOR,
    (_R, _U): BY_OPERATOR,
    (_U, _R): BY_OPERATOR,
    (_R, _DONE): BY_ENGINE,
    (_R, _C): BY_ENGINE,
    (_R, _FAILED): BY_ENGINE,
    (_R, _CANCELLED): BY_OPERATOR,
    (_U, _C): BY_ENGINE,
    (_U, _FAILED): BY_ENGINE,
    (_U, _CANCELLED): BY_OPERATOR,
    (_C, _UNDONE): BY_ENGINE,
    (_C, _FAILED): BY_ENGINE,
    (_C, _CANCELLED): BY_ENGINE,
    (_DONE, _C): BY_OPERATOR,
    (_DONE, _UNDONE): BY_OPERATOR,
    (_FAILED, _C): BY_OPERATOR,
    (_FAILED, _R): BY_OPERATOR,
    (_UNDONE, _C): BY_ENGINE,
    (_CANCELLED, _C): BY_ENGINE,
    **{(state, _FAILED): BY_OPERATOR for state in (_P, _DONE, _UNDONE, _CANCELLED)},
}
"""Every legal move of a saga and who causes it.

An ended saga that is compensating again "by engine" is the late success of rule E6: an effect
that came to light after its undo.
"""

ENDED = frozenset(
    {SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.FAILED, SagaState.CANCELLED}
)
"""States in which nothing but a recorded command (or a late effect) moves a saga."""

STEP_BUSY = frozenset({StepState.DISPATCHED, StepState.RUNNING})
UNDO_BUSY = frozenset({UndoState.DISPATCHED, UndoState.RUNNING, UndoState.RETRYING})
UNDO_SETTLED = frozenset(
    {UndoState.SUCCEEDED, UndoState.PARKED, UndoState.SKIPPED, UndoState.RESOLVED}
)
