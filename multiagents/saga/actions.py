"""What may people ask of a saga?

Each command is an entry of the log, with who and why; one that the saga's state does not allow
changes nothing.
"""

from __future__ import annotations

from typing import assert_never

from multiagents.core.entries import Asked, Failure
from multiagents.core.states import Command, Kind, SagaState, StepState, UndoState
from multiagents.saga.commands import ClearTimer, TellAgain, Withdraw, retry_timer
from multiagents.saga.compensation import (
    blame_and_stop,
    is_past_pivot,
    remaining_undos,
    rewind,
)
from multiagents.saga.dead_letters import parked
from multiagents.saga.draft import Draft, parked_note
from multiagents.saga.reports import succeed
from multiagents.saga.schedule import advance, skip
from multiagents.saga.state import StepRun
from multiagents.saga.targets import parked_notes


def on_asked(draft: Draft, entry: Asked) -> None:
    """A person asks something of the saga."""
    match entry.command:
        case Command.PAUSE:
            _pause(draft)
        case Command.RESUME:
            _resume(draft)
        case Command.CANCEL:
            why = entry.reason or "cancelled"
            blame_and_stop(draft, "cancel", Failure("Cancelled", why))
        case Command.ROLLBACK:
            _roll_back(draft, entry.reason)
        case Command.TERMINATE:
            _terminate(draft, entry.reason)
        case Command.RETRY | Command.SKIP | Command.RESOLVE:
            _settle_parked(draft, entry)
        case _:
            assert_never(entry.command)


def _pause(draft: Draft) -> None:
    if draft.saga.state not in {SagaState.PENDING, SagaState.RUNNING} or draft.saga.halting:
        return
    draft.move(SagaState.PAUSED)
    for name, run in draft.steps.items():
        if run.state is StepState.DISPATCHED:
            draft.commands.append(Withdraw(Kind.RUN, name, run.work.attempt))


def _resume(draft: Draft) -> None:
    """Timers that came due meanwhile were only recorded (E19): start what they held back."""
    if draft.saga.state is not SagaState.PAUSED:
        return
    draft.move(SagaState.RUNNING)
    for name, run in list(draft.steps.items()):
        if run.state is StepState.RETRYING and run.work.retry_at <= draft.now_ms:
            draft.dispatch(name, Kind.RUN)
    advance(draft, draft.workflow.by_name)


def _roll_back(draft: Draft, reason: str) -> None:
    if draft.saga.state is not SagaState.COMPLETED:
        return
    if is_past_pivot(draft):
        draft.call_for_attention("rollback came after the pivot: not undone")
        return
    draft.set_saga(rolled_back=True)
    draft.blame(Failure("RolledBack", reason or "rolled back"))
    draft.move(SagaState.COMPENSATING)
    rewind(draft)


def _terminate(draft: Draft, reason: str) -> None:
    if draft.saga.state is SagaState.FAILED:
        return
    draft.blame(Failure("Terminated", reason or "terminated"))
    draft.set_saga(terminated=True, halting="")
    draft.call_for_attention("terminated without undo")
    for name, run in list(draft.steps.items()):
        for kind in _dispatched(run):
            draft.commands.append(Withdraw(kind, name, run.of(kind).attempt))
        for kind in _retrying(run):
            timer = retry_timer(kind, name, run.of(kind).attempt)
            draft.commands.append(ClearTimer(timer))
        _close(draft, name)
    draft.move(SagaState.FAILED)


def _close(draft: Draft, name: str) -> None:
    """Nobody will come back to what is parked or waits for its next attempt."""
    run = draft.steps[name]
    if run.state in {StepState.PARKED, StepState.RETRYING}:
        draft.give_up(name)
    if run.undo_state in {UndoState.PARKED, UndoState.RETRYING}:
        draft.move_undo(name, UndoState.SKIPPED)


def _settle_parked(draft: Draft, entry: Asked) -> None:
    """An operator's word on dead letters: all of the saga's, one step's, or just one."""
    if draft.saga.terminated:
        if entry.command is Command.RESOLVE and not entry.step:
            draft.set_saga(attention=())
        return
    if entry.command is Command.RETRY and not entry.step:
        _tell_again(draft)
    if entry.command is Command.RESOLVE and not entry.step and not _any_parked(draft):
        draft.set_saga(attention=())
    settled = False
    for name in [entry.step] if entry.step else list(draft.steps):
        run = draft.steps.get(name)
        kind = parked(run) if run and _is_meant(entry, run) else None
        if kind is Kind.UNDO:
            _settle_undo(draft, name, entry.command)
        elif kind is Kind.RUN:
            _settle_run(draft, name, entry.command)
        settled = settled or kind is not None
    if settled:
        _forget_what_is_parked_no_more(draft)
    _undo_what_was_retried(draft)


def _tell_again(draft: Draft) -> None:
    """What of the end could not be told is no longer left alone."""
    parked = parked_notes(draft.saga)
    if parked:
        left = tuple(note for note in draft.saga.attention if note not in parked)
        draft.set_saga(attention=left)
        draft.commands.append(TellAgain())


def _forget_what_is_parked_no_more(draft: Draft) -> None:
    """What else a person should know of is another matter, and stays."""
    over = {
        parked_note(kind, name)
        for name, run in draft.steps.items()
        for kind in Kind
        if parked(run) is not kind
    }
    draft.set_saga(attention=tuple(note for note in draft.saga.attention if note not in over))


def _undo_what_was_retried(draft: Draft) -> None:
    """Retried undos wait for their turn like all others."""
    if draft.saga.state is SagaState.FAILED and remaining_undos(draft):
        draft.move(SagaState.COMPENSATING)
    if draft.saga.state is SagaState.COMPENSATING:
        rewind(draft)


def _settle_undo(draft: Draft, name: str, command: Command) -> None:
    if command is Command.RETRY:
        draft.set_work(name, Kind.UNDO, tries=0)
        draft.move_undo(name, UndoState.NONE)
    else:
        skipped = command is Command.SKIP
        draft.move_undo(name, UndoState.SKIPPED if skipped else UndoState.RESOLVED)


def _settle_run(draft: Draft, name: str, command: Command) -> None:
    if command is Command.RETRY:
        if draft.saga.state is SagaState.FAILED:
            draft.move(SagaState.RUNNING)
        draft.set_work(name, Kind.RUN, tries=0)
        if draft.saga.state is SagaState.PAUSED:
            draft.move_step(name, StepState.WAITING)
        else:
            draft.dispatch(name, Kind.RUN)
    elif command is Command.SKIP:
        draft.give_up(name)  # its attempts may have left effects: they have their place in undo
        skip(draft, name)
        advance(draft, draft.workflow.dependents[name])
    else:
        if draft.steps[name].done:
            draft.adopt(name)
        succeed(draft, name)


def _any_parked(draft: Draft) -> bool:
    return any(parked(run) for run in draft.steps.values())


def _is_meant(entry: Asked, run: StepRun) -> bool:
    """Whether what is parked of a step now is what the person has seen."""
    if entry.letter is None:
        return True
    since_ms = run.of(entry.letter).ended_at
    return parked(run) is entry.letter and entry.parked_at in (0, since_ms)


def _dispatched(run: StepRun) -> list[Kind]:
    states = ((Kind.RUN, run.state), (Kind.UNDO, run.undo_state))
    return [kind for kind, state in states if state.value == StepState.DISPATCHED.value]


def _retrying(run: StepRun) -> list[Kind]:
    states = ((Kind.RUN, run.state), (Kind.UNDO, run.undo_state))
    return [kind for kind, state in states if state.value == StepState.RETRYING.value]
