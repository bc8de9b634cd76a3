"""What does a saga's state allow a person to ask?

`decide` passes over what it does not allow; here that is told beforehand, with the reason, and
afterwards whether a command had its effect.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from multiagents.core.states import ENDED, Command, SagaState
from multiagents.orchestrator.attention import dead_letters_of, parked_at
from multiagents.orchestrator.backward import pivot_passed
from multiagents.orchestrator.saga import Saga
from multiagents.orchestrator.workflow import Workflow

SETTLING = (Command.RETRY, Command.SKIP, Command.RESOLVE)
"""A person's words on dead letters."""
_OPEN = frozenset(SagaState) - ENDED
_UNDOING = frozenset({SagaState.COMPENSATING, SagaState.COMPENSATED, SagaState.CANCELLED})


def allowed(workflow: Workflow, saga: Saga) -> list[Command]:
    """What can be asked of it now."""
    return [command for command in Command if not refusal(workflow, saga, command)]


def refusal(workflow: Workflow, saga: Saga, command: Command, step: str = "") -> str:
    """Why a command would change nothing; "" if it would, or if what it asks for is so already.

    ``step``: whose dead letter is meant; "" = all of the saga's.
    """
    match command:
        case Command.PAUSE if saga.halting:
            return f"its {saga.halting} is under way"
        case Command.PAUSE:
            return _unless(saga, _OPEN - {SagaState.COMPENSATING})
        case Command.RESUME:
            return _unless(saga, {SagaState.PAUSED})
        case Command.CANCEL:
            return _unless(saga, _OPEN)
        case Command.ROLLBACK:
            return _unless(saga, {SagaState.COMPLETED}) or _past_pivot(workflow, saga)
        case Command.TERMINATE:
            return _unless(saga, frozenset(SagaState) - {SagaState.FAILED})
        case _:
            return _no_letter(saga, command, step)


def done(before: Saga, saga: Saga, command: Command, step: str = "") -> bool:
    """Whether the saga is now where a command was to bring it; ``before``: when it was asked."""
    match command:
        case Command.PAUSE:
            return saga.state is SagaState.PAUSED
        case Command.RESUME:
            return saga.state is not SagaState.PAUSED
        case Command.CANCEL:
            ended = saga.state in {*_UNDOING, SagaState.FAILED}
            return ended or saga.halting != ""
        case Command.ROLLBACK:
            return saga.rolled_back
        case Command.TERMINATE:
            return saga.terminated or saga.state is SagaState.FAILED
        case _:
            return not _letters(before, step) & _letters(saga, step)


def refused(workflow: Workflow, saga: Saga, command: Command, why: str) -> str:
    """The message for whoever asked: what, which, why, and what could be asked instead."""
    others = ", ".join(allowed(workflow, saga)) or "nothing"
    return f"cannot {command} saga {saga.id}: {why}; what can be asked of it now: {others}"


def _unless(saga: Saga, states: Iterable[SagaState]) -> str:
    return "" if saga.state in states else f"it is {saga.state}"


def _past_pivot(workflow: Workflow, saga: Saga) -> str:
    if not pivot_passed(workflow, saga.steps):
        return ""
    name = workflow.pivot.name if workflow.pivot else ""
    return f"step {name!r}, its point of no return, is done, so that nothing of it is undone"


def _no_letter(saga: Saga, command: Command, step: str) -> str:
    if saga.terminated:
        return "it was terminated"
    names = [name for name, _ in dead_letters_of(saga)]
    if step and step not in saga.steps:
        return f"it has no step {step!r}; known: {', '.join(saga.steps)}"
    if step and step not in names:
        state = saga.steps[step].state
        return f"step {step!r} is {state}, no dead letter; its dead letters: {_listed(names)}"
    acknowledged = command is Command.RESOLVE and saga.attention
    return "" if names or acknowledged else f"it is {saga.state} and has no dead letter"


def _letters(saga: Saga, step: str) -> set[tuple[str, str, int]]:
    return {
        (name, kind, parked_at(saga, name, kind))
        for name, kind in dead_letters_of(saga)
        if step in ("", name)
    }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
