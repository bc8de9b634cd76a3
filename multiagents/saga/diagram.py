"""How do the states of a saga, a step and an undo look as diagrams?

They are drawn from the tables that drive `decide`, so the documentation cannot differ.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from multiagents.core.states import ENDED, SagaState, StepState, UndoState
from multiagents.saga.transitions import BY_OPERATOR, SAGA_MOVES, STEP_MOVES, UNDO_MOVES

State = TypeVar("State", bound=StrEnum)


def saga_diagram() -> str:
    """The legal moves of a saga as mermaid text; an operator's are marked ``by command``."""
    return _diagram(SAGA_MOVES, SagaState.PENDING, [each for each in SagaState if each in ENDED])


def step_diagram() -> str:
    """Likewise of a step's run."""
    ends = (StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED)
    return _diagram(STEP_MOVES, StepState.WAITING, ends)


def undo_diagram() -> str:
    """Likewise of a step's undo."""
    ends = (UndoState.SUCCEEDED, UndoState.SKIPPED, UndoState.RESOLVED)
    return _diagram(UNDO_MOVES, UndoState.NONE, ends)


def _diagram(moves: Mapping[tuple[State, State], str], first: State, ends: Iterable[State]) -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    for (before, after), cause in moves.items():
        label = ": by command" if cause == BY_OPERATOR else ""
        lines.append(f"    {before} --> {after}{label}")
    lines += [f"    {state} --> [*]" for state in ends]
    return "\n".join(lines) + "\n"
