"""Which actions may an operator take on a saga?

Each action is an entry of the log, with its operator and reason.  For each action in each state of
a saga, `ACTIONS` gives the rule that applies, or the reason of a refusal.  A refused action
changes nothing.  `allowed` reads the same table before an action and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure, Requested
from multiagents.core.states import ENDED, Action, Kind, SagaState, StepState, UndoState
from multiagents.saga.commands import ClearTimer, Withdraw, retry_timer
from multiagents.saga.compensation import blame_and_stop, pivot_passed, rewind
from multiagents.saga.draft import Draft
from multiagents.saga.schedule import advance
from multiagents.saga.settling import SETTLING, settle, unsettled
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow


def on_requested(draft: Draft, entry: Requested) -> None:
    """An operator requests an action."""
    answer = ACTIONS[entry.action, draft.saga.state]
    is_refused = answer.unless(draft.workflow, draft.saga, entry) != ""
    rule = answer.instead if is_refused else answer.rule
    rule(draft, entry)


# ---- rules ----


def _nothing(_: Draft, __: Requested) -> None:
    """The saga is in that state already, or the action was refused."""


def _pause(draft: Draft, _: Requested) -> None:
    draft.move(SagaState.PAUSED)
    for name, step in draft.steps.items():
        if step.run.state is StepState.DISPATCHED:
            draft.commands.append(Withdraw(Kind.RUN, name, step.run.attempt))


def _resume(draft: Draft, _: Requested) -> None:
    """Start the retries whose timers came due in the pause and were only recorded (E19)."""
    draft.move(SagaState.RUNNING)
    for name, step in list(draft.steps.items()):
        if step.run.state is StepState.RETRYING and step.run.retry_at <= draft.now_ms:
            draft.dispatch(name, Kind.RUN)
    advance(draft, draft.workflow.by_name)


def _cancel(draft: Draft, entry: Requested) -> None:
    blame_and_stop(draft, "cancel", Failure("Cancelled", entry.reason or "cancelled"))


def _roll_back(draft: Draft, entry: Requested) -> None:
    draft.set_saga(rolled_back=True)
    draft.blame(Failure("RolledBack", entry.reason or "rolled back"))
    draft.move(SagaState.COMPENSATING)
    rewind(draft)


def _note_rollback(draft: Draft, _: Requested) -> None:
    draft.call_for_attention("rollback came after the pivot: not undone")


def _terminate(draft: Draft, entry: Requested) -> None:
    draft.blame(Failure("Terminated", entry.reason or "terminated"))
    draft.set_saga(terminated=True, halting="")
    draft.call_for_attention("terminated without undo")
    for name, step in list(draft.steps.items()):
        for kind in Kind:
            work = step.of(kind)
            if work.is_in(StepState.DISPATCHED):
                draft.commands.append(Withdraw(kind, name, work.attempt))
            elif work.is_in(StepState.RETRYING):
                timer = retry_timer(AttemptRef(kind, name, work.attempt))
                draft.commands.append(ClearTimer(timer))
        _close(draft, name)
    draft.move(SagaState.FAILED)


def _close(draft: Draft, name: str) -> None:
    """End what is parked or waits for a retry: nothing will continue it."""
    step = draft.steps[name]
    if step.run.state in {StepState.PARKED, StepState.RETRYING}:
        draft.give_up(name)
    if step.undo.state in {UndoState.PARKED, UndoState.RETRYING}:
        draft.move_work(name, Kind.UNDO, UndoState.SKIPPED)


# ---- reasons of refusals ----


def _no_reason(_: Workflow, __: Saga, ___: Requested) -> str:
    return ""


def _its_state(_: Workflow, saga: Saga, __: Requested) -> str:
    return f"it is {saga.state}"


def _its_halt(_: Workflow, saga: Saga, __: Requested) -> str:
    return f"its {saga.halting} is under way" if saga.halting else ""


def _its_halt_or_state(workflow: Workflow, saga: Saga, entry: Requested) -> str:
    return _its_halt(workflow, saga, entry) or _its_state(workflow, saga, entry)


def _its_pivot(workflow: Workflow, saga: Saga, _: Requested) -> str:
    if not pivot_passed(workflow, saga.steps):
        return ""
    name = workflow.pivot.name if workflow.pivot else ""
    return f"step {name!r}, its point of no return, is done, so that nothing of it is undone"


# ---- the table ----

Rule = Callable[[Draft, Requested], None]
Reason = Callable[[Workflow, Saga, Requested], str]
"""Why an action is refused; "" if it is not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to an action in one state of the saga."""

    rule: Rule = _nothing
    unless: Reason = _no_reason
    instead: Rule = _nothing
    """The rule that applies if the action is refused."""
    offered: bool = True
    """Whether the action is offered: terminating an ended saga is legal, but rarely useful."""


_PENDING, _RUNNING, _PAUSED = SagaState.PENDING, SagaState.RUNNING, SagaState.PAUSED
_COMPENSATING, _FAILED = SagaState.COMPENSATING, SagaState.FAILED
_ALL = frozenset(SagaState)

_ANSWERS: dict[Action, tuple[tuple[Iterable[SagaState], Answer], ...]] = {
    Action.PAUSE: (
        ({_PENDING, _RUNNING}, Answer(_pause, unless=_its_halt)),
        ({_PAUSED}, Answer(unless=_its_halt)),
        (_ALL - {_PENDING, _RUNNING, _PAUSED}, Answer(unless=_its_halt_or_state)),
    ),
    Action.RESUME: (
        ({_PAUSED}, Answer(_resume)),
        (_ALL - {_PAUSED}, Answer(unless=_its_state)),
    ),
    Action.CANCEL: (
        ({_PENDING, _RUNNING, _PAUSED}, Answer(_cancel)),
        ({_COMPENSATING}, Answer()),
        (ENDED, Answer(unless=_its_state)),
    ),
    Action.ROLLBACK: (
        ({SagaState.COMPLETED}, Answer(_roll_back, unless=_its_pivot, instead=_note_rollback)),
        (_ALL - {SagaState.COMPLETED}, Answer(unless=_its_state)),
    ),
    Action.TERMINATE: (
        (_ALL - ENDED, Answer(_terminate)),
        (ENDED - {_FAILED}, Answer(_terminate, offered=False)),
        ({_FAILED}, Answer(unless=_its_state)),
    ),
    **{action: ((_ALL, Answer(settle, unless=unsettled)),) for action in SETTLING},
}

ACTIONS: dict[tuple[Action, SagaState], Answer] = {
    (action, state): answer
    for action, answers in _ANSWERS.items()
    for states, answer in answers
    for state in states
}
"""For each action in each state of a saga: its rule, or the reason of its refusal."""
