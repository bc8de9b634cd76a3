"""What does the outcome of an attempt mean for its step?

A report counts only with the nonce of the present claim (fencing).  The report of a lost claim may
come late.  Any other calls for attention (E5).
"""

from __future__ import annotations

from typing import Any

from multiagents.core.entries import (
    Claimed,
    Failed,
    Failure,
    Lost,
    Report,
    Succeeded,
    Unroutable,
    Withdrawn,
)
from multiagents.core.error_names import names_of_class
from multiagents.core.exceptions import LeaseLost, StepTimeout
from multiagents.core.states import ENDED, FailureEffect, Kind, SagaState, StepState, UndoState
from multiagents.saga.compensation import (
    go_on_stopping,
    is_past_pivot,
    refuse_past_pivot,
    rewind,
    surface,
    undo_afresh,
)
from multiagents.saga.draft import LIVE, Draft
from multiagents.saga.retry import most_tries
from multiagents.saga.schedule import advance
from multiagents.saga.state import StepRun
from multiagents.saga.targets import note_of
from multiagents.workflows.step import TaskCall
from multiagents.workflows.workflow import Workflow

_LEASE_LOST = Failure("LeaseLost", "the worker fell silent: its lease ran out")
_CLASSES = {cls.__name__: names_of_class(cls) for cls in (LeaseLost, StepTimeout)}
"""The classes of the errors of attempts that did not report."""


def on_claimed(draft: Draft, entry: Claimed) -> None:
    """A worker claimed a dispatched attempt."""
    step = draft.steps.get(entry.step)
    if step is None or not _is_dispatched(step, entry.kind, entry.attempt):
        draft.call_for_attention(f"unexpected claim of {entry.kind} {entry.step!r}")
        return
    draft.move_work(
        entry.step,
        entry.kind,
        StepState.RUNNING,
        nonce=entry.nonce,
        worker=entry.worker,
        started_at=draft.now_ms,
        ended_at=0,
        retry_at=0,
        error=None,
        retry=entry.retry,
        most=0,
    )
    is_run = entry.kind is Kind.RUN
    if is_run and draft.saga.halting and draft.workflow.by_name[entry.step].pivot:
        refuse_past_pivot(draft)


def on_report(draft: Draft, entry: Report) -> None:
    """An attempt ended, or was given up."""
    step = draft.steps.get(entry.step)
    claim = (entry.kind.value, entry.attempt, entry.nonce)
    if step is None:
        draft.call_for_attention(f"report for unknown step {entry.step!r}")
    elif claim in step.lost and _may_still_report(entry):
        if isinstance(entry, Failed) and entry.part:
            _on_late(draft, entry)  # of some of what it left at work; else it is noted already
    elif claim in step.lost:
        draft.set_step(entry.step, lost=tuple(item for item in step.lost if item != claim))
        _on_late(draft, entry)
    elif step.of(entry.kind).nonce != entry.nonce:
        draft.call_for_attention(f"report of an unknown attempt of {entry.step!r}")
    elif step.of(entry.kind).is_in(StepState.RUNNING):
        _on_end(draft, entry, step)
    elif isinstance(entry, Succeeded) and step.run.state is not StepState.SUCCEEDED:
        _on_late(draft, entry)  # another process reported its failure before


def _on_end(draft: Draft, entry: Report, step: StepRun) -> None:
    """The present attempt ended, or was given up."""
    is_run = entry.kind is Kind.RUN
    if not isinstance(entry, Succeeded):
        if isinstance(entry, Lost) or entry.running:
            claim = (entry.kind.value, entry.attempt, entry.nonce)
            draft.set_step(entry.step, lost=(*step.lost, claim))
        again, error = _count(draft, entry)
        if is_run:
            _fail(draft, entry, again, error)
        else:
            _fail_undo(draft, entry, again)
    elif is_run:
        succeed(draft, entry.step, ended_at=draft.now_ms)
    else:
        _succeed_undo(draft, entry.step)


def succeed(draft: Draft, name: str, **changes: Any) -> None:
    """A step succeeded, with these changes to its run: start its dependents, or undo it."""
    draft.set_saga(open_steps=draft.saga.open_steps - 1)
    draft.end_run(name, StepState.SUCCEEDED, **changes)
    if draft.saga.state is SagaState.RUNNING:
        advance(draft, draft.workflow.dependents[name])
    elif draft.saga.state is SagaState.COMPENSATING:
        rewind(draft)
    elif draft.saga.state in ENDED:
        surface(draft, name)


def _fail(draft: Draft, entry: Failed | Lost, again: bool, error: Failure) -> None:
    """An attempt to run a step did not succeed: retry it, park it, or give the step up."""
    name, step = entry.step, draft.steps[entry.step]
    unknown = isinstance(entry, Lost) or entry.effect is FailureEffect.UNKNOWN
    draft.set_step(name, unknown=step.unknown or unknown)
    if draft.saga.state not in LIVE:
        draft.give_up(name)
        if draft.saga.state is SagaState.COMPENSATING:
            rewind(draft)
        elif unknown:
            surface(draft, name)
    elif again:
        draft.retry_later(name, Kind.RUN, _after_ms(entry))
    elif is_past_pivot(draft, but=name):
        draft.park(name, Kind.RUN)
    else:
        draft.blame(error, name)
        draft.give_up(name)
        rewind(draft)


def _succeed_undo(draft: Draft, name: str) -> None:
    """A step is undone: undo it afresh if an effect came to light meanwhile."""
    draft.move_work(name, Kind.UNDO, StepState.SUCCEEDED, ended_at=draft.now_ms)
    if draft.steps[name].again:
        undo_afresh(draft, name)
    rewind(draft)


def _fail_undo(draft: Draft, entry: Failed | Lost, again: bool) -> None:
    """An attempt to undo a step did not succeed: retry it, or park it."""
    if draft.saga.terminated:
        draft.move_work(entry.step, Kind.UNDO, UndoState.SKIPPED)
    elif again:
        draft.retry_later(entry.step, Kind.UNDO, _after_ms(entry))
    else:
        draft.park(entry.step, Kind.UNDO)
        rewind(draft)


def _count(draft: Draft, entry: Failed | Lost) -> tuple[bool, Failure]:
    """Record a failure of a run or undo; return whether to retry it, and the error."""
    name, kind = entry.step, entry.kind
    policy, work = draft.policy(name, kind), draft.steps[name].of(kind)
    if isinstance(entry, Failed):
        error, counts = entry.error, entry.counts
        most = most_tries(policy, kind, entry.classes, retryable=entry.retryable)
    else:
        error, counts = silence_of(draft.workflow, kind, name), True
        most = most_tries(policy, kind, _CLASSES[error.type])
    tries = work.tries + counts
    fewer = most if most < policy.max_attempts else 0
    ended_at = draft.now_ms
    draft.set_work(name, kind, ended_at=ended_at, error=error, tries=tries, most=fewer)
    return tries < most, error


def silence_of(workflow: Workflow, kind: Kind, step: str) -> Failure:
    """The error of an attempt that was lost because it reported nothing in time."""
    target = workflow.by_name[step].target(kind)
    if not isinstance(target, TaskCall):
        return _LEASE_LOST
    return Failure("StepTimeout", f"task {target.task!r} reported nothing within its timeout_s")


def _on_late(draft: Draft, entry: Report) -> None:
    """A given-up attempt reported after all (E6, E7)."""
    if entry.kind is Kind.UNDO:
        return
    if isinstance(entry, Succeeded):
        draft.set_step(entry.step, done=draft.steps[entry.step].done or entry.nonce)
        surface(draft, entry.step)
    elif isinstance(entry, Failed) and entry.effect is FailureEffect.UNKNOWN:
        surface(draft, entry.step)


def on_unroutable(draft: Draft, entry: Unroutable) -> None:
    """A message cannot be sent at all: its step or target waits for an operator."""
    if entry.target:
        # A server that lost its last second may have lost the end that was delivered (E5).  Then
        # the saga ends again, and notes the refusals of that delivery.
        if draft.saga.delivered:
            draft.call_for_attention(note_of(entry.target, entry.error))
        return
    step = draft.steps.get(entry.step)
    if step is None or not _is_dispatched(step, entry.kind, entry.attempt):
        return
    draft.set_work(entry.step, entry.kind, error=entry.error, ended_at=draft.now_ms)
    if entry.kind is Kind.UNDO and draft.saga.terminated:
        draft.move_work(entry.step, Kind.UNDO, UndoState.NONE)
    elif entry.kind is Kind.UNDO:
        draft.park(entry.step, entry.kind)
        rewind(draft)
    elif draft.saga.state in LIVE and not draft.saga.halting:
        draft.park(entry.step, entry.kind)
    else:
        _leave_undone(draft, entry.step)
        go_on_stopping(draft)


def on_withdrawn(draft: Draft, entry: Withdrawn) -> None:
    """A dispatched attempt was withdrawn before a worker claimed it."""
    step = draft.steps.get(entry.step)
    if step is None or not _is_dispatched(step, entry.kind, entry.attempt):
        return
    if entry.kind is Kind.UNDO:
        draft.move_work(entry.step, Kind.UNDO, UndoState.NONE)
    else:
        _take_back(draft, entry.step)
    if draft.saga.state is SagaState.RUNNING and not draft.saga.halting:
        # The saga was resumed before the withdrawal of its pause arrived.
        advance(draft, [entry.step])
    else:
        go_on_stopping(draft)


def _take_back(draft: Draft, name: str) -> None:
    """Forget a dispatched attempt that no worker claimed; earlier attempts stay."""
    if not _leave_undone(draft, name):
        draft.set_work(name, Kind.RUN, attempt=draft.steps[name].run.attempt - 1)


def _leave_undone(draft: Draft, name: str) -> bool:
    """Drop the present attempt; return whether that ends the step."""
    over = draft.saga.state is SagaState.COMPENSATING and draft.has_begun(name)
    if over:
        draft.give_up(name)
    else:
        draft.move_work(name, Kind.RUN, StepState.WAITING)
    return over


def _after_ms(entry: Failed | Lost) -> int | None:
    """The delay that the error requests before a retry."""
    return entry.retry_after_ms if isinstance(entry, Failed) else None


def _is_dispatched(step: StepRun, kind: Kind, attempt: int) -> bool:
    work = step.of(kind)
    return work.attempt == attempt and work.is_in(StepState.DISPATCHED)


def _may_still_report(entry: Report) -> bool:
    """Whether an attempt was only given up: its real outcome is not known yet."""
    return isinstance(entry, Lost) or (isinstance(entry, Failed) and entry.running)
