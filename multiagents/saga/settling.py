"""How does an operator settle dead letters?

By retry, skip or resolve: all dead letters of a saga, those of a step, or the one that the operator
has seen.  `unsettled` gives the reason beforehand if there is nothing to settle.
"""

from __future__ import annotations

from multiagents.core.clock import iso
from multiagents.core.entries import Requested
from multiagents.core.states import Action, Kind, SagaState, StepState, UndoState
from multiagents.saga.commands import TellAgain
from multiagents.saga.compensation import remaining_undos, rewind
from multiagents.saga.dead_letters import dead_letters_of, parked, parked_at
from multiagents.saga.draft import Draft, parked_note
from multiagents.saga.reports import succeed
from multiagents.saga.schedule import advance, skip
from multiagents.saga.state import Saga
from multiagents.saga.targets import parked_notes
from multiagents.workflows.workflow import Workflow

SETTLING = (Action.RETRY, Action.SKIP, Action.RESOLVE)
"""The actions on dead letters."""


def unsettled(_: Workflow, saga: Saga, entry: Requested) -> str:
    """Why an action would settle no dead letter; "" if it would."""
    return _no_letter(saga, entry) or _another(saga, entry)


def _no_letter(saga: Saga, entry: Requested) -> str:
    step = entry.step
    acknowledged = entry.action is Action.RESOLVE and saga.attention
    if saga.terminated:
        return "" if acknowledged and not step else "it was terminated"
    names = [name for name, _ in dead_letters_of(saga)]
    if step and step not in saga.steps:
        return f"it has no step {step!r}; known: {', '.join(saga.steps)}"
    if step and step not in names:
        state = saga.steps[step].run.state
        listed = ", ".join(names) or "none"
        return f"step {step!r} is {state}, no dead letter; its dead letters: {listed}"
    acknowledged = acknowledged or (entry.action is Action.RETRY and parked_notes(saga))
    return "" if names or acknowledged else f"it is {saga.state} and has no dead letter"


def _another(saga: Saga, entry: Requested) -> str:
    """Why the dead letter of a step is not the one that the operator has seen."""
    kind = parked(saga.steps[entry.step]) if entry.letter and entry.step else None
    if kind is None:
        return ""
    since_ms = parked_at(saga, entry.step, kind)
    if kind is entry.letter and entry.parked_at in (0, since_ms):
        return ""
    what = f"the undo of step {entry.step!r}" if kind is Kind.UNDO else f"step {entry.step!r}"
    return f"its dead letter is another one by now: {what}, parked at {iso(since_ms)}"


def settle(draft: Draft, entry: Requested) -> None:
    """Settle dead letters: all of the saga's, one step's, or just one."""
    if draft.saga.terminated:
        draft.set_saga(attention=())
        return
    if entry.action is Action.RETRY and not entry.step:
        _tell_again(draft)
    if entry.action is Action.RESOLVE and not entry.step and not _any_parked(draft):
        draft.set_saga(attention=())
    settled = False
    for name in [entry.step] if entry.step else list(draft.steps):
        kind = parked(draft.steps[name])
        if kind is Kind.UNDO:
            _settle_undo(draft, name, entry.action)
        elif kind is Kind.RUN:
            _settle_run(draft, name, entry.action)
        settled = settled or kind is not None
    if settled:
        _forget_what_is_parked_no_more(draft)
    _undo_what_was_retried(draft)


def _tell_again(draft: Draft) -> None:
    """Deliver the outcome again to the targets that were parked."""
    parked = parked_notes(draft.saga)
    if parked:
        left = tuple(note for note in draft.saga.attention if note not in parked)
        draft.set_saga(attention=left)
        draft.commands.append(TellAgain())


def _forget_what_is_parked_no_more(draft: Draft) -> None:
    """Drop the notes of what is no longer parked; other notes stay."""
    over = {
        parked_note(kind, name)
        for name, step in draft.steps.items()
        for kind in Kind
        if parked(step) is not kind
    }
    draft.set_saga(attention=tuple(note for note in draft.saga.attention if note not in over))


def _undo_what_was_retried(draft: Draft) -> None:
    """Retried undos wait for their turn like all others."""
    if draft.saga.state is SagaState.FAILED and remaining_undos(draft):
        draft.move(SagaState.COMPENSATING)
    if draft.saga.state is SagaState.COMPENSATING:
        rewind(draft)


def _settle_undo(draft: Draft, name: str, action: Action) -> None:
    if action is Action.RETRY:
        draft.set_work(name, Kind.UNDO, tries=0)
        draft.move_work(name, Kind.UNDO, UndoState.NONE)
    else:
        skipped = action is Action.SKIP
        draft.move_work(name, Kind.UNDO, UndoState.SKIPPED if skipped else UndoState.RESOLVED)


def _settle_run(draft: Draft, name: str, action: Action) -> None:
    if action is Action.RETRY:
        if draft.saga.state is SagaState.FAILED:
            draft.move(SagaState.RUNNING)
        draft.set_work(name, Kind.RUN, tries=0)
        if draft.saga.state is SagaState.PAUSED:
            draft.move_work(name, Kind.RUN, StepState.WAITING)
        else:
            draft.dispatch(name, Kind.RUN)
    elif action is Action.SKIP:
        draft.give_up(name)  # its attempts may have left effects: they have their place in undo
        skip(draft, name)
        advance(draft, draft.workflow.dependents[name])
    else:
        if draft.steps[name].done:
            draft.adopt(name)
        succeed(draft, name)


def _any_parked(draft: Draft) -> bool:
    return any(parked(step) for step in draft.steps.values())
