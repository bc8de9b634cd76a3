"""What does a saga do next?

`decide` is the one place where the rules of a saga live (docs/reference/rules.md gives them
by number; E1 to E21 are the engine's).  It is pure: no Redis, no clock, no randomness.  A saga's
state is the fold of `decide` over its log, so what stands here must never depend on anything but
the definition, the state and the entry.

The rules are written in layers, each of which only knows those below it:

    people     what a person asks
    attempts   what became of an attempt
    forward    which steps may start
    backward   how a saga is undone, and the point of no return
    turn       the small changes all of them are made of

A late, duplicate or foreign entry changes nothing, or asks for attention.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from multiagents.core.entries import (
    Asked,
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Started,
    Succeeded,
    TimerDue,
    Unroutable,
    Withdrawn,
)
from multiagents.core.states import Kind, SagaState, StepState, UndoState
from multiagents.saga.actions import People
from multiagents.saga.commands import DEADLINE, SetTimer, parse_retry_timer
from multiagents.saga.compensation import blame_and_stop
from multiagents.saga.draft import Decision as Decision
from multiagents.saga.reports import on_claimed, on_report, on_unroutable, on_withdrawn
from multiagents.saga.schedule import advance
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow


def decide(workflow: Workflow, saga: Saga, entry: Entry, now_ms: int) -> Decision:
    """Return the saga's next value and the commands to send."""
    turn = _Decider(workflow, saga)
    turn.apply(entry, now_ms)
    return turn.decision()


def fold(workflow: Workflow, saga: Saga, entries: Iterable[Entry]) -> Decision:
    """`decide` over several entries in order, each at its own time."""
    turn = _Decider(workflow, saga)
    for entry in entries:
        turn.apply(entry, entry.at_ms)
    return turn.decision()


class _Decider(People):
    """All the rules; one method for each type of entry."""

    def apply(self, entry: Entry, now_ms: int) -> None:
        """Work one entry in."""
        self.now_ms = now_ms
        self.set_saga(updated_at=max(now_ms, self.saga.updated_at))
        match entry:
            case Started():
                self._on_started()
            case Claimed():
                on_claimed(self, entry)
            case Succeeded() | Failed() | Lost():
                on_report(self, entry)
            case Unroutable():
                on_unroutable(self, entry)
            case Withdrawn():
                on_withdrawn(self, entry)
            case TimerDue():
                self._on_timer(entry)
            case Asked():
                self._on_asked(entry)
            case _:
                assert_never(entry)

    def _on_started(self) -> None:
        if self.saga.state is not SagaState.PENDING:
            return
        self.move(SagaState.RUNNING)
        if self.workflow.timeout_s is not None:
            at_ms = self.now_ms + round(self.workflow.timeout_s * 1000)
            self.commands.append(SetTimer(DEADLINE, at_ms))
        advance(self, [step.name for step in self.workflow.steps if not step.depends_on])

    def _on_timer(self, entry: TimerDue) -> None:
        if entry.timer == DEADLINE:
            seconds = self.workflow.timeout_s
            blame_and_stop(self, "deadline", Failure("SagaDeadline", f"not done in {seconds:g} s"))
            return
        kind, name, attempt = parse_retry_timer(entry.timer)
        run = self.steps.get(name)
        if run is None or run.of(kind).attempt != attempt:
            return
        if kind is Kind.UNDO and run.undo_state is UndoState.RETRYING:
            self.dispatch(name, Kind.UNDO)
        elif run.state is StepState.RETRYING and self.saga.state is SagaState.RUNNING:
            self.dispatch(name, Kind.RUN)
        elif run.state is StepState.RETRYING:
            # Whoever resumes may have a clock behind the one that found the timer due.
            self.set_work(name, Kind.RUN, retry_at=0)
