"""Which actions does a saga's state allow?

The table `ACTIONS`, which drives `decide`, gives the answer.  This module reads it before an
action, with the reason of a refusal.  After an action it checks whether that had its effect.  Pure.
"""

from __future__ import annotations

from multiagents.core.entries import Requested
from multiagents.core.exceptions import NotAllowed
from multiagents.core.states import Action, Kind, SagaState, StepState, UndoState
from multiagents.saga.actions import ACTIONS
from multiagents.saga.compensation import pivot_passed
from multiagents.saga.dead_letters import dead_letters_of, parked_at
from multiagents.saga.settling import SETTLING as SETTLING
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow

_UNDOING = frozenset({SagaState.COMPENSATING, SagaState.COMPENSATED, SagaState.CANCELLED})
_GIVEN_UP = frozenset({StepState.FAILED, StepState.SKIPPED, StepState.SUCCEEDED})
"""States that a parked step may reach without another attempt."""
_CLOSED = frozenset({UndoState.SKIPPED, UndoState.RESOLVED})
"""States that a parked undo may reach without another attempt."""

OneLetter = tuple[Kind, int]
"""One dead letter of a step: of its run or its undo, and when it was parked, Unix ms."""


def allowed(workflow: Workflow, saga: Saga) -> list[Action]:
    """The actions that are legal now and useful."""
    return [
        action
        for action in Action
        if ACTIONS[action, saga.state].offered and not refusal(workflow, saga, action)
    ]


def refusal(
    workflow: Workflow,
    saga: Saga,
    action: Action,
    step: str = "",
    letter: OneLetter | None = None,
) -> str:
    """Why an action is refused; "" if it is not, or if the saga is in that state already.

    ``step``: the step whose dead letter is meant; "" = all of the saga's.  ``letter``: the dead
    letter of that step; None: any.
    """
    kind, since_ms = letter or (None, 0)
    asked = Requested(0, action, "", step=step, letter=kind, parked_at=since_ms)
    return ACTIONS[action, saga.state].unless(workflow, saga, asked)


def done(
    before: Saga, saga: Saga, action: Action, step: str = "", letter: OneLetter | None = None
) -> bool:
    """Whether an action has had its effect; ``before``: the saga when it was requested."""
    match action:
        case Action.PAUSE:
            return saga.state is SagaState.PAUSED
        case Action.RESUME:
            return saga.state is not SagaState.PAUSED
        case Action.CANCEL:
            ended = saga.state in {*_UNDOING, SagaState.FAILED}
            return ended or saga.halting != ""
        case Action.ROLLBACK:
            return saga.rolled_back
        case Action.TERMINATE:
            return saga.terminated or saga.state is SagaState.FAILED
        case _ if _letters(before, step) & _letters(saga, step):
            return False
        case _:
            return letter is None or _is_settled(before, saga, action, step, letter[0])


def caution(workflow: Workflow, saga: Saga, action: Action) -> str:
    """A warning before an action that is allowed; "" if it has no side effects."""
    if action is Action.CANCEL and saga.state is not SagaState.COMPENSATING:
        if workflow.pivot is None or not pivot_passed(workflow, saga.steps):
            return ""
        pivot = f"step {workflow.pivot.name!r}, its point of no return, is or may be done"
        return f"{pivot}: nothing is undone, the saga continues and asks for attention"
    if action is not Action.TERMINATE:
        return ""
    runs = [repr(name) for name, step in saga.steps.items() if step.run.state is StepState.RUNNING]
    undos = [
        f"the undo of {name!r}"
        for name, step in saga.steps.items()
        if step.undo.state is UndoState.RUNNING
    ]
    found = ", ".join([*runs, *undos])
    return f"still running, and may complete: {found}" if found else ""


def not_allowed(workflow: Workflow, saga: Saga, action: Action, why: str) -> NotAllowed:
    """The error of a refused action: which, why, and the actions that are allowed instead."""
    others = tuple(map(str, allowed(workflow, saga)))
    instead = f"allowed actions: {', '.join(others)}"
    if not others:
        instead = "no action is allowed now"
    return NotAllowed(f"cannot {action} saga {saga.id}: {why}; {instead}", others)


def _is_settled(before: Saga, saga: Saga, action: Action, step: str, kind: Kind) -> bool:
    """Whether a dead letter that has gone was settled by this action, and not by another."""
    was, now = before.steps[step], saga.steps[step]
    if action is Action.RETRY:
        tried = now.of(kind).attempt > was.of(kind).attempt
        given_up = now.run.state in _GIVEN_UP if kind is Kind.RUN else now.undo.state in _CLOSED
        return tried or not given_up
    skipped = action is Action.SKIP
    if kind is Kind.UNDO:
        return now.undo.state is (UndoState.SKIPPED if skipped else UndoState.RESOLVED)
    return now.run.state is (StepState.SKIPPED if skipped else StepState.SUCCEEDED)


def _letters(saga: Saga, step: str) -> set[tuple[str, str, int]]:
    return {
        (name, kind, parked_at(saga, name, kind))
        for name, kind in dead_letters_of(saga)
        if step in ("", name)
    }
