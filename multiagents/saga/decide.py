"""What does a saga do next?

`decide` is the one place for the rules of a saga.  docs/reference/rules.md gives them by number; E1
to E21 are the engine's.  It is pure: no Redis, no clock, no randomness.  A saga's state is the fold
of `decide` over its log.  So a decision depends only on the definition, the state and the entry.

`RULES` has one rule for each type of entry: a function over a draft.  Each module of rules imports
only those below it:

    actions       an operator's actions, and the reasons of refusals
    settling      actions on dead letters
    reports       the outcome of an attempt
    schedule      which steps may start
    compensation  how a saga is undone, and the point of no return
    draft         the small changes that make up all of them

A late, duplicate or foreign entry changes nothing, or asks for attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from multiagents.core.entries import (
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Requested,
    Started,
    Succeeded,
    TimerDue,
    Unroutable,
    Withdrawn,
)
from multiagents.core.states import Kind, SagaState, StepState, UndoState
from multiagents.saga.actions import on_requested
from multiagents.saga.commands import DEADLINE, SetTimer, parse_retry_timer
from multiagents.saga.compensation import blame_and_stop
from multiagents.saga.draft import Decision as Decision
from multiagents.saga.draft import Draft
from multiagents.saga.reports import on_claimed, on_report, on_unroutable, on_withdrawn
from multiagents.saga.schedule import advance
from multiagents.saga.state import Saga
from multiagents.workflows.workflow import Workflow


def decide(workflow: Workflow, saga: Saga, entry: Entry, now_ms: int) -> Decision:
    """Return the saga's next value and the commands to send."""
    draft = Draft(workflow, saga)
    _apply(draft, entry, now_ms)
    return draft.decision()


def fold(workflow: Workflow, saga: Saga, entries: Iterable[Entry]) -> Decision:
    """`decide` over several entries in order, each at its own time."""
    draft = Draft(workflow, saga)
    for entry in entries:
        _apply(draft, entry, entry.at_ms)
    return draft.decision()


def _apply(draft: Draft, entry: Entry, now_ms: int) -> None:
    """Apply one entry to a draft."""
    draft.now_ms = now_ms
    draft.set_saga(updated_at=max(now_ms, draft.saga.updated_at))
    RULES[type(entry)](draft, entry)


def _on_started(draft: Draft, _: Started) -> None:
    if draft.saga.state is not SagaState.PENDING:
        return
    draft.move(SagaState.RUNNING)
    if draft.workflow.timeout_s is not None:
        at_ms = draft.now_ms + round(draft.workflow.timeout_s * 1000)
        draft.commands.append(SetTimer(DEADLINE, at_ms))
    advance(draft, [step.name for step in draft.workflow.steps if not step.depends_on])


def _on_timer(draft: Draft, entry: TimerDue) -> None:
    if entry.timer == DEADLINE:
        seconds = draft.workflow.timeout_s
        blame_and_stop(draft, "deadline", Failure("SagaDeadline", f"not done in {seconds:g} s"))
        return
    kind, name, attempt = parse_retry_timer(entry.timer)
    step = draft.steps.get(name)
    if step is None or step.of(kind).attempt != attempt:
        return
    if kind is Kind.UNDO and step.undo.state is UndoState.RETRYING:
        draft.dispatch(name, Kind.UNDO)
    elif step.run.state is StepState.RETRYING and draft.saga.state is SagaState.RUNNING:
        draft.dispatch(name, Kind.RUN)
    elif step.run.state is StepState.RETRYING:
        # A later resume may use a clock behind the one that found the timer due.
        draft.set_work(name, Kind.RUN, retry_at=0)


Rule = Callable[[Draft, Any], None]
"""The changes of one type of entry to a draft."""

RULES: dict[type[Entry], Rule] = {
    Started: _on_started,
    Claimed: on_claimed,
    Succeeded: on_report,
    Failed: on_report,
    Lost: on_report,
    Unroutable: on_unroutable,
    Withdrawn: on_withdrawn,
    TimerDue: _on_timer,
    Requested: on_requested,
}
"""The rule for each type of entry."""
