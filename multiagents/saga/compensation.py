"""How is a saga undone?

Rules 3 to 5 and 7: stop new work, wait for running steps, undo the last completed step first, and
nothing after the pivot.  E6: an effect that comes to light after its undo is undone again.
"""

from __future__ import annotations

from collections.abc import Mapping

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure
from multiagents.core.states import (
    ENDED,
    STEP_BUSY,
    UNDO_BUSY,
    UNDO_SETTLED,
    Kind,
    SagaState,
    StepState,
    UndoState,
)
from multiagents.saga.commands import ClearTimer, Withdraw, retry_timer
from multiagents.saga.draft import LIVE, Draft
from multiagents.saga.state import StepRun
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow

_STOPPABLE = LIVE | {SagaState.PENDING}


def pivot_passed(workflow: Workflow, steps: Mapping[str, StepRun]) -> bool:
    """Rule 7 and E17: from its first claim until all its attempts are known to be clean."""
    if workflow.pivot is None:
        return False
    step = steps[workflow.pivot.name]
    return step.unknown or step.run.state in {StepState.RUNNING, StepState.SUCCEEDED}


def rewind(draft: Draft) -> None:
    """Stop new work, wait for running siblings, then undo, last completed first (rule 4)."""
    if draft.saga.state in _STOPPABLE:
        draft.move(SagaState.COMPENSATING)
        _stop_forward_work(draft)
    if draft.saga.state is not SagaState.COMPENSATING:
        return
    if not STEP_BUSY.isdisjoint([step.run.state for step in draft.steps.values()]):
        return
    to_undo = remaining_undos(draft)
    undoing = not UNDO_BUSY.isdisjoint([step.undo.state for step in draft.steps.values()])
    if not undoing and not to_undo:
        draft.move(_verdict(draft))
    elif draft.workflow.parallel_undo:
        _undo_free_ones(draft, to_undo)
    elif not undoing:
        draft.dispatch(to_undo[0], Kind.UNDO)


def remaining_undos(draft: Draft) -> list[str]:
    """The steps whose undo has to begin, last completed first."""
    specs = draft.workflow.by_name
    names = [
        name
        for name, step in draft.steps.items()
        if step.undo.state is UndoState.NONE and _needs_undo(specs[name], step)
    ]
    return sorted(names, key=lambda name: -draft.steps[name].order)


def _undo_free_ones(draft: Draft, to_undo: list[str]) -> None:
    """Undo every step all of whose successors are undone: independent branches at once."""
    waiting = {*to_undo, *(n for n, s in draft.steps.items() if s.undo.state in UNDO_BUSY)}
    held = {a for name in waiting for a in draft.workflow.ancestors(name)}
    for name in to_undo:
        if name not in held:
            draft.dispatch(name, Kind.UNDO)


def _needs_undo(spec: Step, step: StepRun) -> bool:
    """Rule 3: whether a step succeeded, or may have left an effect."""
    if spec.compensation is None:
        return False
    if step.run.state is StepState.SUCCEEDED or step.done:
        return True
    if spec.compensate_on_failure == "always":
        return bool(step.run.nonce)
    return step.unknown and spec.compensate_on_failure == "unknown"


def _stop_forward_work(draft: Draft) -> None:
    for name, step in list(draft.steps.items()):
        if step.run.state is StepState.DISPATCHED:
            draft.commands.append(Withdraw(Kind.RUN, name, step.run.attempt))
        elif step.run.state is StepState.RETRYING:
            timer = retry_timer(AttemptRef(Kind.RUN, name, step.run.attempt))
            draft.commands.append(ClearTimer(timer))
            draft.give_up(name)
        elif step.run.state is StepState.PARKED or (
            step.run.state is StepState.WAITING and draft.has_begun(name)
        ):
            draft.give_up(name)


def _verdict(draft: Draft) -> SagaState:
    undos = {step.undo.state for step in draft.steps.values()}
    if undos & {UndoState.PARKED, UndoState.SKIPPED}:
        return SagaState.FAILED
    if draft.saga.cancelled:
        return SagaState.CANCELLED
    if draft.saga.rolled_back or undos & UNDO_SETTLED:
        return SagaState.COMPENSATED
    return SagaState.FAILED


def undo_afresh(draft: Draft, name: str) -> None:
    """Let an undone step wait for another undo."""
    step = draft.steps[name]
    draft.move_work(name, Kind.UNDO, UndoState.NONE, tries=0)
    draft.set_step(name, generation=step.generation + 1, again=False)


def surface(draft: Draft, name: str) -> None:
    """An effect has come to light after the decision to go backward: undo it (again).

    A step with an attempt under way keeps its state: that attempt must settle first.
    """
    step = draft.steps[name]
    if draft.saga.state in LIVE or draft.saga.state is SagaState.COMPLETED:
        return
    if step.done and step.run.state is StepState.FAILED:
        draft.move_work(name, Kind.RUN, StepState.SUCCEEDED)
        draft.adopt(name)
    if draft.saga.terminated:
        draft.call_for_attention(f"late effect of step {name!r} after terminate")
    if draft.saga.terminated or not _needs_undo(draft.workflow.by_name[name], draft.steps[name]):
        return
    if step.undo.state in {UndoState.RUNNING, UndoState.RETRYING}:
        draft.set_step(name, again=True)
    elif step.undo.state in {UndoState.SUCCEEDED, UndoState.RESOLVED}:
        undo_afresh(draft, name)
    if draft.saga.state in ENDED and step.undo.state is not UndoState.PARKED:
        draft.call_for_attention(f"late effect of step {name!r} after the end")
        draft.move(SagaState.COMPENSATING)
    if draft.saga.state is SagaState.COMPENSATING:
        rewind(draft)


def is_past_pivot(draft: Draft, *, but: str = "") -> bool:
    """``but``: a step whose attempt has just ended, so only its effects count."""
    pivot = draft.workflow.pivot
    if pivot is not None and pivot.name == but:
        return draft.steps[but].unknown
    return pivot_passed(draft.workflow, draft.steps)


def blame_and_stop(draft: Draft, why: str, error: Failure) -> None:
    """Cancel or deadline: go backward, unless the pivot is passed or may be just now."""
    if draft.saga.state not in _STOPPABLE or draft.saga.halting:
        return
    draft.set_saga(halting=why)
    if is_past_pivot(draft):
        refuse_past_pivot(draft)
        return
    draft.blame(error)
    pivot = draft.workflow.pivot
    step = draft.steps[pivot.name] if pivot else None
    if pivot and step and step.run.state is StepState.DISPATCHED:
        draft.commands.append(Withdraw(Kind.RUN, pivot.name, step.run.attempt))
        return
    _halt(draft)


def _halt(draft: Draft) -> None:
    cancelled = draft.saga.cancelled or draft.saga.halting == "cancel"
    draft.set_saga(halting="", cancelled=cancelled)
    rewind(draft)


def refuse_past_pivot(draft: Draft) -> None:
    """A stop came too late: the saga continues, and asks for attention."""
    draft.call_for_attention(f"{draft.saga.halting} came after the pivot: not undone")
    draft.set_saga(halting="")
    if draft.saga.error is not None and not draft.saga.error_step:
        draft.set_saga(error=None)


def go_on_stopping(draft: Draft) -> None:
    """Continue a stop that waited for a dispatched attempt, which is gone now."""
    if draft.saga.halting:
        _halt(draft)
    elif draft.saga.state is SagaState.COMPENSATING:
        rewind(draft)
