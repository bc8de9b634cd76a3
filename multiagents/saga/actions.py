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


class People(Draft):
    """Pause, resume, cancel, roll back, terminate, and the settling of dead letters."""

    def _on_asked(self, entry: Asked) -> None:
        match entry.command:
            case Command.PAUSE:
                self._pause()
            case Command.RESUME:
                self._resume()
            case Command.CANCEL:
                why = entry.reason or "cancelled"
                blame_and_stop(self, "cancel", Failure("Cancelled", why))
            case Command.ROLLBACK:
                self._roll_back(entry.reason)
            case Command.TERMINATE:
                self._terminate(entry.reason)
            case Command.RETRY | Command.SKIP | Command.RESOLVE:
                self._settle_parked(entry)
            case _:
                assert_never(entry.command)

    def _pause(self) -> None:
        if self.saga.state not in {SagaState.PENDING, SagaState.RUNNING} or self.saga.halting:
            return
        self.move(SagaState.PAUSED)
        for name, run in self.steps.items():
            if run.state is StepState.DISPATCHED:
                self.commands.append(Withdraw(Kind.RUN, name, run.work.attempt))

    def _resume(self) -> None:
        """Timers that came due meanwhile were only recorded (E19): start what they held back."""
        if self.saga.state is not SagaState.PAUSED:
            return
        self.move(SagaState.RUNNING)
        for name, run in list(self.steps.items()):
            if run.state is StepState.RETRYING and run.work.retry_at <= self.now_ms:
                self.dispatch(name, Kind.RUN)
        advance(self, self.workflow.by_name)

    def _roll_back(self, reason: str) -> None:
        if self.saga.state is not SagaState.COMPLETED:
            return
        if is_past_pivot(self):
            self.call_for_attention("rollback came after the pivot: not undone")
            return
        self.set_saga(rolled_back=True)
        self.blame(Failure("RolledBack", reason or "rolled back"))
        self.move(SagaState.COMPENSATING)
        rewind(self)

    def _terminate(self, reason: str) -> None:
        if self.saga.state is SagaState.FAILED:
            return
        self.blame(Failure("Terminated", reason or "terminated"))
        self.set_saga(terminated=True, halting="")
        self.call_for_attention("terminated without undo")
        for name, run in list(self.steps.items()):
            for kind in _dispatched(run):
                self.commands.append(Withdraw(kind, name, run.of(kind).attempt))
            for kind in _retrying(run):
                timer = retry_timer(kind, name, run.of(kind).attempt)
                self.commands.append(ClearTimer(timer))
            self._close(name)
        self.move(SagaState.FAILED)

    def _close(self, name: str) -> None:
        """Nobody will come back to what is parked or waits for its next attempt."""
        run = self.steps[name]
        if run.state in {StepState.PARKED, StepState.RETRYING}:
            self.give_up(name)
        if run.undo_state in {UndoState.PARKED, UndoState.RETRYING}:
            self.set_step(name, undo_state=UndoState.SKIPPED)

    def _settle_parked(self, entry: Asked) -> None:
        """An operator's word on dead letters: all of the saga's, one step's, or just one."""
        if self.saga.terminated:
            if entry.command is Command.RESOLVE and not entry.step:
                self.set_saga(attention=())
            return
        if entry.command is Command.RETRY and not entry.step:
            self._tell_again()
        if entry.command is Command.RESOLVE and not entry.step and not self._parked():
            self.set_saga(attention=())
        settled = False
        for name in [entry.step] if entry.step else list(self.steps):
            run = self.steps.get(name)
            kind = parked(run) if run and _is_meant(entry, run) else None
            if kind is Kind.UNDO:
                self._settle_undo(name, entry.command)
            elif kind is Kind.RUN:
                self._settle_run(name, entry.command)
            settled = settled or kind is not None
        if settled:
            self._forget_what_is_parked_no_more()
        self._undo_what_was_retried()

    def _tell_again(self) -> None:
        """What of the end could not be told is no longer left alone."""
        parked = parked_notes(self.saga)
        if parked:
            left = tuple(note for note in self.saga.attention if note not in parked)
            self.set_saga(attention=left)
            self.commands.append(TellAgain())

    def _forget_what_is_parked_no_more(self) -> None:
        """What else a person should know of is another matter, and stays."""
        over = {
            parked_note(kind, name)
            for name, run in self.steps.items()
            for kind in Kind
            if parked(run) is not kind
        }
        self.set_saga(attention=tuple(note for note in self.saga.attention if note not in over))

    def _undo_what_was_retried(self) -> None:
        """Retried undos wait for their turn like all others."""
        if self.saga.state is SagaState.FAILED and remaining_undos(self):
            self.move(SagaState.COMPENSATING)
        if self.saga.state is SagaState.COMPENSATING:
            rewind(self)

    def _settle_undo(self, name: str, command: Command) -> None:
        if command is Command.RETRY:
            self.set_work(name, Kind.UNDO, tries=0)
            self.set_step(name, undo_state=UndoState.NONE)
        else:
            skipped = command is Command.SKIP
            self.set_step(name, undo_state=UndoState.SKIPPED if skipped else UndoState.RESOLVED)

    def _settle_run(self, name: str, command: Command) -> None:
        if command is Command.RETRY:
            if self.saga.state is SagaState.FAILED:
                self.move(SagaState.RUNNING)
            self.set_work(name, Kind.RUN, tries=0)
            if self.saga.state is SagaState.PAUSED:
                self.set_step(name, state=StepState.WAITING)
            else:
                self.dispatch(name, Kind.RUN)
        elif command is Command.SKIP:
            self.give_up(name)  # its attempts may have left effects: they have their place in undo
            skip(self, name)
            advance(self, self.workflow.dependents[name])
        else:
            if self.steps[name].done:
                self.adopt(name)
            succeed(self, name)

    def _parked(self) -> bool:
        return any(parked(run) for run in self.steps.values())


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
