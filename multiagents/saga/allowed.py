"""What does a saga's state allow a person to ask?

The table `ACTIONS`, by which `decide` acts, says that; here it is told beforehand, with the reason,
and afterwards whether an action had its effect.  Pure.
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
"""Where a parked step may be without a further attempt."""
_CLOSED = frozenset({UndoState.SKIPPED, UndoState.RESOLVED})
"""Where a parked undo is without a further attempt."""

OneLetter = tuple[Kind, int]
"""Which dead letter of a step: of its run or its undo, parked since when, Unix ms."""


def allowed(workflow: Workflow, saga: Saga) -> list[Action]:
    """What can be asked of it now and makes sense."""
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
    """Why a command would change nothing; "" if it would, or if what it asks for is so already.

    ``step``: whose dead letter is meant; "" = all of the saga's.  ``letter``: which of that step;
    None: whichever there is.
    """
    kind, since_ms = letter or (None, 0)
    asked = Requested(0, action, "", step=step, letter=kind, parked_at=since_ms)
    return ACTIONS[action, saga.state].unless(workflow, saga, asked)


def done(
    before: Saga, saga: Saga, action: Action, step: str = "", letter: OneLetter | None = None
) -> bool:
    """Whether the saga is now where a command was to bring it; ``before``: when it was asked."""
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
    """What a person should know before a command that is allowed; "" where it does what it says."""
    if action is Action.CANCEL and saga.state is not SagaState.COMPENSATING:
        if workflow.pivot is None or not pivot_passed(workflow, saga.steps):
            return ""
        pivot = f"step {workflow.pivot.name!r}, its point of no return, is or may be done"
        return f"{pivot}: nothing is undone, it goes on and asks for attention"
    if action is not Action.TERMINATE:
        return ""
    runs = [repr(name) for name, step in saga.steps.items() if step.run.state is StepState.RUNNING]
    undos = [
        f"the undo of {name!r}"
        for name, step in saga.steps.items()
        if step.undo.state is UndoState.RUNNING
    ]
    found = ", ".join([*runs, *undos])
    return f"still at work, and may be done all the same: {found}" if found else ""


def not_allowed(workflow: Workflow, saga: Saga, action: Action, why: str) -> NotAllowed:
    """The error for whoever asked: what, which, why, and what could be asked instead."""
    others = tuple(map(str, allowed(workflow, saga)))
    instead = f"what can be asked of it now: {', '.join(others)}"
    if not others:
        instead = "nothing can be asked of it now"
    return NotAllowed(f"cannot {action} saga {saga.id}: {why}; {instead}", others)


def _is_settled(before: Saga, saga: Saga, action: Action, step: str, kind: Kind) -> bool:
    """Whether a dead letter that has gone was settled so; it may have been by others, otherwise."""
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
