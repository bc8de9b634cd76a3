"""Which moves of a saga, of a step and of an undo are legal?

Three tables, each from a move to its cause.  The draft of a decision refuses every other move, and
the diagrams in docs/explanation/concepts.md are drawn from them.  ``BY_OPERATOR``: only an
operator's action causes the move, or it is the usual cause.  ``BY_ENGINE``: all other moves.  Pure.
"""

from __future__ import annotations

from multiagents.core.states import SagaState, StepState, UndoState

BY_ENGINE = "engine"
BY_OPERATOR = "operator"

_P, _R, _U, _C = SagaState.PENDING, SagaState.RUNNING, SagaState.PAUSED, SagaState.COMPENSATING
_DONE, _UNDONE = SagaState.COMPLETED, SagaState.COMPENSATED
_FAILED, _CANCELLED = SagaState.FAILED, SagaState.CANCELLED

SAGA_MOVES: dict[tuple[SagaState, SagaState], str] = {
    (_P, _R): BY_ENGINE,
    (_P, _U): BY_OPERATOR,
    (_P, _C): BY_OPERATOR,
    (_R, _U): BY_OPERATOR,
    (_U, _R): BY_OPERATOR,
    (_R, _DONE): BY_ENGINE,
    (_R, _C): BY_ENGINE,
    (_U, _C): BY_ENGINE,
    (_C, _UNDONE): BY_ENGINE,
    (_C, _FAILED): BY_ENGINE,
    (_C, _CANCELLED): BY_ENGINE,
    (_DONE, _C): BY_OPERATOR,
    (_FAILED, _C): BY_OPERATOR,
    (_FAILED, _R): BY_OPERATOR,
    (_UNDONE, _C): BY_ENGINE,
    (_CANCELLED, _C): BY_ENGINE,
    **{(state, _FAILED): BY_OPERATOR for state in (_P, _R, _U, _DONE, _UNDONE, _CANCELLED)},
}
"""Every legal move of a saga.

An ended saga that is compensating again "by engine" is the late success of rule E6: an effect
that came to light after its undo.
"""

STEP_MOVES: dict[tuple[StepState, StepState], str] = {
    (StepState.WAITING, StepState.DISPATCHED): BY_ENGINE,
    (StepState.WAITING, StepState.SKIPPED): BY_ENGINE,
    (StepState.WAITING, StepState.PARKED): BY_ENGINE,
    (StepState.WAITING, StepState.FAILED): BY_ENGINE,
    (StepState.DISPATCHED, StepState.RUNNING): BY_ENGINE,
    (StepState.DISPATCHED, StepState.WAITING): BY_ENGINE,
    (StepState.DISPATCHED, StepState.PARKED): BY_ENGINE,
    (StepState.DISPATCHED, StepState.FAILED): BY_ENGINE,
    (StepState.RUNNING, StepState.SUCCEEDED): BY_ENGINE,
    (StepState.RUNNING, StepState.RETRYING): BY_ENGINE,
    (StepState.RUNNING, StepState.PARKED): BY_ENGINE,
    (StepState.RUNNING, StepState.FAILED): BY_ENGINE,
    (StepState.RETRYING, StepState.DISPATCHED): BY_ENGINE,
    (StepState.RETRYING, StepState.FAILED): BY_ENGINE,
    (StepState.PARKED, StepState.DISPATCHED): BY_OPERATOR,
    (StepState.PARKED, StepState.WAITING): BY_OPERATOR,
    (StepState.PARKED, StepState.SUCCEEDED): BY_OPERATOR,
    (StepState.PARKED, StepState.FAILED): BY_ENGINE,
    (StepState.FAILED, StepState.SKIPPED): BY_OPERATOR,
    (StepState.FAILED, StepState.SUCCEEDED): BY_ENGINE,
}
"""Every legal move of a step's forward work.

A dispatched step that waits again was withdrawn.  A step that an operator skips has failed first,
so it keeps its place in the order of undo.  A failed step that succeeds is E6 again.
"""

UNDO_MOVES: dict[tuple[UndoState, UndoState], str] = {
    (UndoState.NONE, UndoState.DISPATCHED): BY_ENGINE,
    (UndoState.DISPATCHED, UndoState.RUNNING): BY_ENGINE,
    (UndoState.DISPATCHED, UndoState.NONE): BY_ENGINE,
    (UndoState.DISPATCHED, UndoState.PARKED): BY_ENGINE,
    (UndoState.RUNNING, UndoState.SUCCEEDED): BY_ENGINE,
    (UndoState.RUNNING, UndoState.RETRYING): BY_ENGINE,
    (UndoState.RUNNING, UndoState.PARKED): BY_ENGINE,
    (UndoState.RUNNING, UndoState.SKIPPED): BY_ENGINE,
    (UndoState.RETRYING, UndoState.DISPATCHED): BY_ENGINE,
    (UndoState.RETRYING, UndoState.SKIPPED): BY_OPERATOR,
    (UndoState.PARKED, UndoState.NONE): BY_OPERATOR,
    (UndoState.PARKED, UndoState.SKIPPED): BY_OPERATOR,
    (UndoState.PARKED, UndoState.RESOLVED): BY_OPERATOR,
    (UndoState.SUCCEEDED, UndoState.NONE): BY_ENGINE,
    (UndoState.RESOLVED, UndoState.NONE): BY_ENGINE,
}
"""Every legal move of a step's undo.

An ended undo that begins afresh is E6: an effect came to light after it.  A failed undo of a
terminated saga is skipped.
"""
