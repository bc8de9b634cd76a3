"""What does the fate of an attempt mean for its step?

A report counts only with the nonce of the present claim (fencing); that of a lost claim may come
late, and any other calls for attention (E5).
"""

from __future__ import annotations

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
from multiagents.core.states import ENDED, Kind, Outcome, SagaState, StepState, UndoState
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
from multiagents.workflows.workflow import TaskCall

_LEASE_LOST = Failure("LeaseLost", "the worker fell silent: its lease ran out")
_CLASSES = {cls.__name__: names_of_class(cls) for cls in (LeaseLost, StepTimeout)}
"""Of what is said of an attempt of which nobody has heard."""


class Attempts(Draft):
    """Claims, reports, and attempts that nobody took."""

    def _on_claimed(self, entry: Claimed) -> None:
        run = self.steps.get(entry.step)
        if run is None or not _is_dispatched(run, entry.kind, entry.attempt):
            self.call_for_attention(f"unexpected claim of {entry.kind} {entry.step!r}")
            return
        self.set_work(
            entry.step,
            entry.kind,
            nonce=entry.nonce,
            worker=entry.worker,
            started_at=self.now_ms,
            ended_at=0,
            retry_at=0,
            error=None,
            retry=entry.retry,
            most=0,
        )
        if entry.kind is Kind.UNDO:
            self.set_step(entry.step, undo_state=UndoState.RUNNING)
            return
        self.set_step(entry.step, state=StepState.RUNNING)
        if self.saga.halting and self.workflow.by_name[entry.step].pivot:
            refuse_past_pivot(self)

    def _on_report(self, entry: Report) -> None:
        run = self.steps.get(entry.step)
        claim = (entry.kind.value, entry.attempt, entry.nonce)
        if run is None:
            self.call_for_attention(f"report for unknown step {entry.step!r}")
        elif claim in run.lost and _may_still_report(entry):
            if isinstance(entry, Failed) and entry.part:
                self._on_late(entry)  # of some of what it left at work; else it is noted already
        elif claim in run.lost:
            self.set_step(entry.step, lost=tuple(item for item in run.lost if item != claim))
            self._on_late(entry)
        elif run.of(entry.kind).nonce != entry.nonce:
            self.call_for_attention(f"report of an unknown attempt of {entry.step!r}")
        elif _is_running(run, entry.kind):
            if entry.kind is Kind.RUN:
                self._on_run_report(entry, run)
            else:
                self._on_undo_report(entry, run)
        elif isinstance(entry, Succeeded) and run.state is not StepState.SUCCEEDED:
            self._on_late(entry)  # of an attempt whose failure somebody else has reported

    def _on_run_report(self, entry: Report, run: StepRun) -> None:
        self.set_work(entry.step, Kind.RUN, ended_at=self.now_ms)
        if isinstance(entry, Succeeded):
            self._succeed(entry.step)
        else:
            if isinstance(entry, Lost) or entry.running:
                self.set_step(entry.step, lost=(*run.lost, ("run", entry.attempt, entry.nonce)))
            self._fail(entry)

    def _succeed(self, name: str) -> None:
        self.set_saga(orders=self.saga.orders + 1, open_steps=self.saga.open_steps - 1)
        self.set_step(name, state=StepState.SUCCEEDED, order=self.saga.orders)
        if self.saga.state is SagaState.RUNNING:
            advance(self, self.workflow.dependents[name])
        elif self.saga.state is SagaState.COMPENSATING:
            rewind(self)
        elif self.saga.state in ENDED:
            surface(self, name)

    def _fail(self, entry: Failed | Lost) -> None:
        """A forward attempt did not succeed: retry it, park it, or give the step up."""
        name, run = entry.step, self.steps[entry.step]
        unknown = isinstance(entry, Lost) or entry.outcome is Outcome.UNKNOWN
        again, error = self._count(entry)
        self.set_step(name, unknown=run.unknown or unknown)
        if self.saga.state not in LIVE:
            self.give_up(name)
            if self.saga.state is SagaState.COMPENSATING:
                rewind(self)
            elif unknown:
                surface(self, name)
        elif again:
            self.retry_later(name, Kind.RUN, _after_ms(entry))
        elif is_past_pivot(self, but=name):
            self.park(name, Kind.RUN)
        else:
            self.blame(error, name)
            self.give_up(name)
            rewind(self)

    def _on_undo_report(self, entry: Report, run: StepRun) -> None:
        self.set_work(entry.step, Kind.UNDO, ended_at=self.now_ms)
        if isinstance(entry, Succeeded):
            self.set_step(entry.step, undo_state=UndoState.SUCCEEDED)
            if run.again:
                undo_afresh(self, entry.step)
            rewind(self)
            return
        if isinstance(entry, Lost) or entry.running:
            lost = (*run.lost, ("undo", entry.attempt, entry.nonce))
            self.set_step(entry.step, lost=lost)
        again, _ = self._count(entry)
        if self.saga.terminated:
            self.set_step(entry.step, undo_state=UndoState.SKIPPED)
        elif again:
            self.retry_later(entry.step, Kind.UNDO, _after_ms(entry))
        else:
            self.park(entry.step, Kind.UNDO)
            rewind(self)

    def _count(self, entry: Failed | Lost) -> tuple[bool, Failure]:
        """Put a failure to its work; return whether that is tried again, and the error."""
        name, kind = entry.step, entry.kind
        policy, work = self.policy(name, kind), self.steps[name].of(kind)
        if isinstance(entry, Failed):
            error, counts = entry.error, entry.counts
            most = most_tries(policy, kind, entry.classes, retryable=entry.retryable)
        else:
            error, counts = self._silence(entry), True
            most = most_tries(policy, kind, _CLASSES[error.type])
        tries = work.tries + counts
        fewer = most if most < policy.max_attempts else 0
        self.set_work(name, kind, error=error, tries=tries, most=fewer)
        return tries < most, error

    def _silence(self, entry: Report) -> Failure:
        """Why an attempt was given up of which nobody has heard."""
        spec = self.workflow.by_name[entry.step]
        target = spec.worker if entry.kind is Kind.RUN else spec.compensation
        if not isinstance(target, TaskCall):
            return _LEASE_LOST
        return Failure("StepTimeout", f"task {target.task!r} reported nothing within its timeout_s")

    def _on_late(self, entry: Report) -> None:
        """An attempt that was given up for lost has reported after all (E6, E7)."""
        if entry.kind is Kind.UNDO:
            return
        if isinstance(entry, Succeeded):
            self.set_step(entry.step, done=self.steps[entry.step].done or entry.nonce)
            surface(self, entry.step)
        elif isinstance(entry, Failed) and entry.outcome is Outcome.UNKNOWN:
            surface(self, entry.step)

    def _on_unroutable(self, entry: Unroutable) -> None:
        if entry.target:
            # A server that lost its last second may have lost the end that was told (E5): the
            # saga ends again, and what is refused then is noted then.
            if self.saga.delivered:
                self.call_for_attention(note_of(entry.target, entry.error))
            return
        run = self.steps.get(entry.step)
        if run is None or not _is_dispatched(run, entry.kind, entry.attempt):
            return
        self.set_work(entry.step, entry.kind, error=entry.error, ended_at=self.now_ms)
        if entry.kind is Kind.UNDO and self.saga.terminated:
            self.set_step(entry.step, undo_state=UndoState.NONE)
        elif entry.kind is Kind.UNDO:
            self.park(entry.step, entry.kind)
            rewind(self)
        elif self.saga.state in LIVE and not self.saga.halting:
            self.park(entry.step, entry.kind)
        else:
            self._leave_undone(entry.step)
            go_on_stopping(self)

    def _on_withdrawn(self, entry: Withdrawn) -> None:
        run = self.steps.get(entry.step)
        if run is None or not _is_dispatched(run, entry.kind, entry.attempt):
            return
        if entry.kind is Kind.UNDO:
            self.set_step(entry.step, undo_state=UndoState.NONE)
        else:
            self._take_back(entry.step)
        if self.saga.state is SagaState.RUNNING and not self.saga.halting:
            # Resumed before the withdrawal that its pause had asked for came through.
            advance(self, [entry.step])
        else:
            go_on_stopping(self)

    def _take_back(self, name: str) -> None:
        """A dispatched run that nobody claimed never happened; earlier attempts did."""
        if not self._leave_undone(name):
            self.set_work(name, Kind.RUN, attempt=self.steps[name].work.attempt - 1)

    def _leave_undone(self, name: str) -> bool:
        """The present attempt will not happen; return whether that is the end of the step."""
        over = self.saga.state is SagaState.COMPENSATING and self.has_begun(name)
        if over:
            self.give_up(name)
        else:
            self.set_step(name, state=StepState.WAITING)
        return over


def _after_ms(entry: Failed | Lost) -> int | None:
    """When the error asks to be tried again."""
    return entry.retry_after_ms if isinstance(entry, Failed) else None


def _is_dispatched(run: StepRun, kind: Kind, attempt: int) -> bool:
    busy = (
        run.state is StepState.DISPATCHED
        if kind is Kind.RUN
        else run.undo_state is UndoState.DISPATCHED
    )
    return busy and run.of(kind).attempt == attempt


def _may_still_report(entry: Report) -> bool:
    """Whether an attempt was only given up: what became of it is not known yet."""
    return isinstance(entry, Lost) or (isinstance(entry, Failed) and entry.running)


def _is_running(run: StepRun, kind: Kind) -> bool:
    if kind is Kind.RUN:
        return run.state is StepState.RUNNING
    return run.undo_state is UndoState.RUNNING
