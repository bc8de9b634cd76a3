"""How is a saga undone?

Rules 3 to 5 and 7: stop new work, wait for what runs, undo last completed first; never past the
pivot.  And E6: an effect that comes to light after its undo is undone again.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from multiagents.workflows.workflow import Workflow

_STOPPABLE = LIVE | {SagaState.PENDING}


def pivot_passed(workflow: Workflow, steps: Mapping[str, StepRun]) -> bool:
    """Rule 7 and E17: from its first claim until all its attempts are known to be clean."""
    if workflow.pivot is None:
        return False
    run = steps[workflow.pivot.name]
    return run.unknown or run.state in {StepState.RUNNING, StepState.SUCCEEDED}


class Backward(Draft):
    """The way back."""

    def _rewind(self) -> None:
        """Stop new work, wait for running siblings, then undo, last completed first (rule 4)."""
        if self.saga.state in _STOPPABLE:
            self.move(SagaState.COMPENSATING)
            self._stop_forward_work()
        if self.saga.state is not SagaState.COMPENSATING:
            return
        if any(run.state in STEP_BUSY for run in self.steps.values()):
            return
        to_undo = self._to_undo()
        if self.workflow.parallel_undo:
            self._undo_free_ones(to_undo)
        elif not any(run.undo_state in UNDO_BUSY for run in self.steps.values()):
            for name in to_undo[:1]:
                self.dispatch(name, Kind.UNDO)
        if not any(run.undo_state in UNDO_BUSY for run in self.steps.values()):
            self.move(self._verdict())

    def _to_undo(self) -> list[str]:
        """What remains to be undone and has not begun to be, last completed first."""
        names = [
            name
            for name, run in self.steps.items()
            if run.undo_state is UndoState.NONE and self._needs_undo(name)
        ]
        return sorted(names, key=lambda name: -self.steps[name].order)

    def _undo_free_ones(self, to_undo: list[str]) -> None:
        """Undo every step all of whose successors are undone: independent branches at once."""
        waiting = {*to_undo, *(n for n, r in self.steps.items() if r.undo_state in UNDO_BUSY)}
        held = {a for name in waiting for a in self.workflow.ancestors(name)}
        for name in to_undo:
            if name not in held:
                self.dispatch(name, Kind.UNDO)

    def _needs_undo(self, name: str) -> bool:
        """Rule 3: what succeeded, and what may have left an effect."""
        run, step = self.steps[name], self.workflow.by_name[name]
        if step.compensation is None:
            return False
        if run.state is StepState.SUCCEEDED or run.done:
            return True
        if step.compensate_on_failure == "always":
            return bool(run.work.nonce)
        return run.unknown and step.compensate_on_failure == "unknown"

    def _stop_forward_work(self) -> None:
        for name, run in list(self.steps.items()):
            if run.state is StepState.DISPATCHED:
                self.commands.append(Withdraw(Kind.RUN, name, run.work.attempt))
            elif run.state is StepState.RETRYING:
                self.commands.append(ClearTimer(retry_timer(Kind.RUN, name, run.work.attempt)))
                self.give_up(name)
            elif run.state is StepState.PARKED or (
                run.state is StepState.WAITING and self.has_begun(name)
            ):
                self.give_up(name)

    def _verdict(self) -> SagaState:
        undos = {run.undo_state for run in self.steps.values()}
        if undos & {UndoState.PARKED, UndoState.SKIPPED}:
            return SagaState.FAILED
        if self.saga.cancelled:
            return SagaState.CANCELLED
        if self.saga.rolled_back or undos & UNDO_SETTLED:
            return SagaState.COMPENSATED
        return SagaState.FAILED

    def _undo_afresh(self, name: str) -> None:
        run = self.steps[name]
        self.set_step(name, undo_state=UndoState.NONE, generation=run.generation + 1, again=False)
        self.set_work(name, Kind.UNDO, tries=0)

    def _surface(self, name: str) -> None:
        """An effect has come to light after the decision to go backward: undo it (again).

        A step with an attempt under way keeps its state: that attempt must settle first.
        """
        run = self.steps[name]
        if self.saga.state in LIVE or self.saga.state is SagaState.COMPLETED:
            return
        if run.done and run.state is StepState.FAILED:
            self.set_step(name, state=StepState.SUCCEEDED)
            self.adopt(name)
        if self.saga.terminated:
            self.call_for_attention(f"late effect of step {name!r} after terminate")
        if self.saga.terminated or not self._needs_undo(name):
            return
        if run.undo_state in {UndoState.RUNNING, UndoState.RETRYING}:
            self.set_step(name, again=True)
        elif run.undo_state in {UndoState.SUCCEEDED, UndoState.RESOLVED}:
            self._undo_afresh(name)
        if self.saga.state in ENDED and run.undo_state is not UndoState.PARKED:
            self.call_for_attention(f"late effect of step {name!r} after the end")
            self.move(SagaState.COMPENSATING)
        if self.saga.state is SagaState.COMPENSATING:
            self._rewind()

    def _pivot_passed(self, *, but: str = "") -> bool:
        """``but``: a step whose attempt has just ended, so that only what it left counts."""
        pivot = self.workflow.pivot
        if pivot is not None and pivot.name == but:
            return self.steps[but].unknown
        return pivot_passed(self.workflow, self.steps)

    def _blame_and_stop(self, why: str, error: Failure) -> None:
        """Cancel or deadline: go backward, unless the pivot is passed or may be just now."""
        if self.saga.state not in _STOPPABLE or self.saga.halting:
            return
        self.set_saga(halting=why)
        if self._pivot_passed():
            self._refuse_past_pivot()
            return
        self.blame(error)
        pivot = self.workflow.pivot
        run = self.steps[pivot.name] if pivot else None
        if pivot and run and run.state is StepState.DISPATCHED:
            self.commands.append(Withdraw(Kind.RUN, pivot.name, run.work.attempt))
            return
        self._halt()

    def _halt(self) -> None:
        cancelled = self.saga.cancelled or self.saga.halting == "cancel"
        self.set_saga(halting="", cancelled=cancelled)
        self._rewind()

    def _refuse_past_pivot(self) -> None:
        self.call_for_attention(f"{self.saga.halting} came after the pivot: not undone")
        self.set_saga(halting="")
        if self.saga.error is not None and not self.saga.error_step:
            self.set_saga(error=None)

    def _go_on_stopping(self) -> None:
        """A dispatched attempt that stood in the way is gone."""
        if self.saga.halting:
            self._halt()
        elif self.saga.state is SagaState.COMPENSATING:
            self._rewind()
