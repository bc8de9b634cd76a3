"""What does a saga do next?

`decide` is the one place where the rules of a saga live (docs/rules.md gives them by number; E1 to
E20 are the engine's).  It is pure: no Redis, no clock, no randomness.  A saga's state is the fold
of `decide` over its log, so what stands here must never depend on anything but the definition,
the state and the entry.

How to read it: an entry changes one step (`_on_…`); then the saga goes forward (`_advance`,
`_try_start`) or backward (`_rewind`).  A late, duplicate or foreign entry changes nothing, or
asks for attention.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, assert_never

from multiagents.core.entries import (
    Asked,
    Claimed,
    Entry,
    Failed,
    Failure,
    Lost,
    Report,
    Started,
    Succeeded,
    TimerDue,
    Unroutable,
    Withdrawn,
)
from multiagents.core.policies import DEFAULT_RETRY, UNDO_RETRY, RetryPolicy
from multiagents.core.states import (
    ENDED,
    SAGA_MOVES,
    STEP_BUSY,
    UNDO_BUSY,
    UNDO_SETTLED,
    Kind,
    Outcome,
    SagaState,
    StepState,
    UndoState,
)
from multiagents.core.states import Command as Ask
from multiagents.orchestrator.commands import (
    DEADLINE,
    ClearTimer,
    Command,
    Deliver,
    Dispatch,
    SetTimer,
    Withdraw,
    parse_retry_timer,
    retry_timer,
)
from multiagents.orchestrator.conditions import ConditionError, evaluate
from multiagents.orchestrator.retry import delay_ms
from multiagents.orchestrator.saga import Saga, StepRun
from multiagents.orchestrator.workflow import Step, Workflow

_LIVE = frozenset({SagaState.RUNNING, SagaState.PAUSED})
_STOPPABLE = _LIVE | {SagaState.PENDING}
_PAST = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
"""What the dependents of a step wait for."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A saga's next value, the commands to send, and the steps that changed."""

    saga: Saga
    commands: tuple[Command, ...] = ()
    changed: frozenset[str] = frozenset()


def decide(workflow: Workflow, saga: Saga, entry: Entry, now_ms: int) -> Decision:
    """Return the saga's next value and the commands to send."""
    turn = _Turn(workflow, saga)
    turn.apply(entry, now_ms)
    return turn.decision()


def fold(workflow: Workflow, saga: Saga, entries: Iterable[Entry]) -> Decision:
    """`decide` over several entries in order, each at its own time."""
    turn = _Turn(workflow, saga)
    for entry in entries:
        turn.apply(entry, entry.at_ms)
    return turn.decision()


class _Turn:
    """One call of `decide` while it is being worked out.

    Mutable inside, never seen outside: copying every value at every change would make a wide
    saga quadratic.
    """

    def __init__(self, workflow: Workflow, saga: Saga) -> None:
        self.workflow = workflow
        self.saga = saga
        self.steps = dict(saga.steps)
        self.commands: list[Command] = []
        self.changed: set[str] = set()
        self.now_ms = 0

    def decision(self) -> Decision:
        saga = replace(self.saga, steps=self.steps)
        return Decision(saga, tuple(self.commands), frozenset(self.changed))

    def apply(self, entry: Entry, now_ms: int) -> None:
        """Work one entry in."""
        self.now_ms = now_ms
        self._set(updated_at=max(now_ms, self.saga.updated_at))
        match entry:
            case Started():
                self._on_started()
            case Claimed():
                self._on_claimed(entry)
            case Succeeded() | Failed() | Lost():
                self._on_report(entry)
            case Unroutable():
                self._on_unroutable(entry)
            case Withdrawn():
                self._on_withdrawn(entry)
            case TimerDue():
                self._on_timer(entry)
            case Asked():
                self._on_asked(entry)
            case _:
                assert_never(entry)

    # ---- the saga as a whole ----

    def _on_started(self) -> None:
        if self.saga.state is not SagaState.PENDING:
            return
        self._move(SagaState.RUNNING)
        if self.workflow.timeout_s is not None:
            at_ms = self.now_ms + round(self.workflow.timeout_s * 1000)
            self.commands.append(SetTimer(DEADLINE, at_ms))
        self._advance(step.name for step in self.workflow.steps if not step.depends_on)

    def _move(self, state: SagaState) -> None:
        """Change the saga's state; the table of legal moves is the judge."""
        if state is self.saga.state:
            return
        if (self.saga.state, state) not in SAGA_MOVES:
            raise AssertionError(f"illegal move {self.saga.state} -> {state}")
        self._set(state=state, ended_at=self.now_ms if state in ENDED else 0)
        if state in ENDED:
            self._end()

    def _end(self) -> None:
        self.commands.append(ClearTimer(DEADLINE))
        if not self.saga.delivered:
            self._set(delivered=True)
            self.commands.append(Deliver())

    def _blame(self, error: Failure, step: str = "") -> None:
        """Keep the first error: it stays the saga's error (rule 11)."""
        if self.saga.error is None:
            self._set(error=error, error_step=step)

    def _call_for_attention(self, reason: str) -> None:
        if reason not in self.saga.attention:
            self._set(attention=(*self.saga.attention, reason))

    # ---- what happens to an attempt ----

    def _on_claimed(self, entry: Claimed) -> None:
        run = self.steps.get(entry.step)
        if run is None or not _is_dispatched(run, entry.kind, entry.attempt):
            self._call_for_attention(f"unexpected claim of {entry.kind} {entry.step!r}")
            return
        self._work(
            entry.step,
            entry.kind,
            nonce=entry.nonce,
            worker=entry.worker,
            started_at=self.now_ms,
            ended_at=0,
            retry_at=0,
            error=None,
            retry=entry.retry,
        )
        if entry.kind is Kind.UNDO:
            self._step(entry.step, undo_state=UndoState.RUNNING)
            return
        self._step(entry.step, state=StepState.RUNNING)
        if self.saga.halting and self.workflow.by_name[entry.step].pivot:
            self._refuse_past_pivot()

    def _on_report(self, entry: Report) -> None:
        run = self.steps.get(entry.step)
        claim = (entry.kind.value, entry.attempt, entry.nonce)
        if run is None:
            self._call_for_attention(f"report for unknown step {entry.step!r}")
        elif claim in run.lost and _may_still_report(entry):
            return  # noted already
        elif claim in run.lost:
            self._step(entry.step, lost=tuple(item for item in run.lost if item != claim))
            self._on_late(entry)
        elif run.of(entry.kind).nonce != entry.nonce:
            self._call_for_attention(f"report of an unknown attempt of {entry.step!r}")
        elif _is_running(run, entry.kind):
            if entry.kind is Kind.RUN:
                self._on_run_report(entry, run)
            else:
                self._on_undo_report(entry, run)

    def _on_run_report(self, entry: Report, run: StepRun) -> None:
        self._work(entry.step, Kind.RUN, ended_at=self.now_ms)
        if isinstance(entry, Succeeded):
            refusal = self._refusal(entry.step)
            if refusal is None:
                self._succeed(entry.step)
            else:
                self._fail(entry.step, refusal, unknown=True, retryable=True)
        elif isinstance(entry, Failed):
            if entry.running:
                self._step(entry.step, lost=(*run.lost, ("run", entry.attempt, entry.nonce)))
            unknown = entry.outcome is Outcome.UNKNOWN
            self._fail(entry.step, entry.error, unknown, entry.retryable, entry.retry_after_ms)
        else:
            self._step(entry.step, lost=(*run.lost, ("run", entry.attempt, entry.nonce)))
            self._fail(entry.step, _LEASE_LOST, unknown=True, retryable=True)

    def _succeed(self, name: str) -> None:
        self._set(orders=self.saga.orders + 1, open_steps=self.saga.open_steps - 1)
        self._step(name, state=StepState.SUCCEEDED, order=self.saga.orders)
        if self.saga.state is SagaState.RUNNING:
            self._advance(self.workflow.dependents[name])
        elif self.saga.state is SagaState.COMPENSATING:
            self._rewind()
        elif self.saga.state in ENDED:
            self._surface(name)

    def _fail(
        self,
        name: str,
        error: Failure,
        unknown: bool,
        retryable: bool,
        retry_after_ms: int | None = None,
    ) -> None:
        """A forward attempt did not succeed: retry it, park it, or give the step up."""
        run = self.steps[name]
        tries = run.work.tries + 1
        self._work(name, Kind.RUN, error=error, tries=tries)
        self._step(name, unknown=run.unknown or unknown)
        if self.saga.state not in _LIVE:
            self._give_up(name)
            if self.saga.state is SagaState.COMPENSATING:
                self._rewind()
            elif unknown:
                self._surface(name)
        elif retryable and tries < self._policy(name, Kind.RUN).max_attempts:
            self._retry_later(name, Kind.RUN, retry_after_ms)
        elif self._pivot_passed():
            self._park(name, Kind.RUN)
        else:
            self._blame(error, name)
            self._give_up(name)
            self._rewind()

    def _give_up(self, name: str) -> None:
        self._set(orders=self.saga.orders + 1)
        self._step(name, state=StepState.FAILED, order=self.saga.orders)

    def _on_undo_report(self, entry: Report, run: StepRun) -> None:
        self._work(entry.step, Kind.UNDO, ended_at=self.now_ms)
        if isinstance(entry, Succeeded):
            self._step(entry.step, undo_state=UndoState.SUCCEEDED)
            if run.again:
                self._undo_afresh(entry.step)
            self._rewind()
            return
        if isinstance(entry, Lost) or entry.running:
            lost = (*run.lost, ("undo", entry.attempt, entry.nonce))
            self._step(entry.step, lost=lost)
        error = entry.error if isinstance(entry, Failed) else _LEASE_LOST
        retryable = not isinstance(entry, Failed) or entry.retryable
        after_ms = entry.retry_after_ms if isinstance(entry, Failed) else None
        tries = run.undo.tries + 1
        self._work(entry.step, Kind.UNDO, error=error, tries=tries)
        if self.saga.terminated:
            self._step(entry.step, undo_state=UndoState.SKIPPED)
        elif retryable and tries < self._policy(entry.step, Kind.UNDO).max_attempts:
            self._retry_later(entry.step, Kind.UNDO, after_ms)
        else:
            self._park(entry.step, Kind.UNDO)
            self._rewind()

    def _on_late(self, entry: Report) -> None:
        """An attempt that was given up for lost has reported after all (E6, E7)."""
        if entry.kind is Kind.UNDO:
            return
        if isinstance(entry, Succeeded):
            self._step(entry.step, done=True)
            self._surface(entry.step)
        elif isinstance(entry, Failed) and entry.outcome is Outcome.UNKNOWN:
            self._surface(entry.step)

    def _surface(self, name: str) -> None:
        """An effect has come to light after the decision to go backward: undo it (again).

        A step with an attempt under way keeps its state: that attempt must settle first.
        """
        run = self.steps[name]
        if self.saga.state in _LIVE or self.saga.state is SagaState.COMPLETED:
            return
        if run.done and run.state is StepState.FAILED:
            self._step(name, state=StepState.SUCCEEDED)
        if self.saga.terminated:
            self._call_for_attention(f"late effect of step {name!r} after terminate")
        if self.saga.terminated or not self._needs_undo(name):
            return
        if run.undo_state in {UndoState.RUNNING, UndoState.RETRYING}:
            self._step(name, again=True)
        elif run.undo_state in {UndoState.SUCCEEDED, UndoState.RESOLVED}:
            self._undo_afresh(name)
        if self.saga.state in ENDED and run.undo_state is not UndoState.PARKED:
            self._call_for_attention(f"late effect of step {name!r} after the end")
            self._move(SagaState.COMPENSATING)
        if self.saga.state is SagaState.COMPENSATING:
            self._rewind()

    def _undo_afresh(self, name: str) -> None:
        run = self.steps[name]
        self._step(name, undo_state=UndoState.NONE, generation=run.generation + 1, again=False)
        self._work(name, Kind.UNDO, tries=0)

    def _on_unroutable(self, entry: Unroutable) -> None:
        run = self.steps.get(entry.step)
        if run is None or not _is_dispatched(run, entry.kind, entry.attempt):
            return
        self._work(entry.step, entry.kind, error=entry.error)
        if entry.kind is Kind.UNDO and self.saga.terminated:
            self._step(entry.step, undo_state=UndoState.NONE)
        elif entry.kind is Kind.UNDO:
            self._park(entry.step, entry.kind)
            self._rewind()
        elif self.saga.state in _LIVE and not self.saga.halting:
            self._park(entry.step, entry.kind)
        else:
            self._leave_undone(entry.step)
            self._go_on_stopping()

    def _on_withdrawn(self, entry: Withdrawn) -> None:
        run = self.steps.get(entry.step)
        if run is None or not _is_dispatched(run, entry.kind, entry.attempt):
            return
        if entry.kind is Kind.UNDO:
            self._step(entry.step, undo_state=UndoState.NONE)
        else:
            self._take_back(entry.step)
        if self.saga.state is SagaState.RUNNING and not self.saga.halting:
            # Resumed before the withdrawal that its pause had asked for came through.
            self._advance([entry.step])
        else:
            self._go_on_stopping()

    def _go_on_stopping(self) -> None:
        """A dispatched attempt that stood in the way is gone."""
        if self.saga.halting:
            self._halt()
        elif self.saga.state is SagaState.COMPENSATING:
            self._rewind()

    def _take_back(self, name: str) -> None:
        """A dispatched run that nobody claimed never happened; earlier attempts did."""
        if not self._leave_undone(name):
            self._work(name, Kind.RUN, attempt=self.steps[name].work.attempt - 1)

    def _leave_undone(self, name: str) -> bool:
        """The present attempt will not happen; return whether that is the end of the step."""
        over = self.saga.state is SagaState.COMPENSATING and self._has_begun(name)
        if over:
            self._give_up(name)
        else:
            self._step(name, state=StepState.WAITING)
        return over

    def _has_begun(self, name: str) -> bool:
        """Whether some attempt was claimed: then its place in the order of undo counts."""
        return bool(self.steps[name].work.nonce)

    # ---- time ----

    def _on_timer(self, entry: TimerDue) -> None:
        if entry.timer == DEADLINE:
            seconds = self.workflow.timeout_s
            self._blame_and_stop("deadline", Failure("SagaDeadline", f"not done in {seconds:g} s"))
            return
        kind, name, attempt = parse_retry_timer(entry.timer)
        run = self.steps.get(name)
        if run is None or run.of(kind).attempt != attempt:
            return
        if kind is Kind.UNDO and run.undo_state is UndoState.RETRYING:
            self._dispatch(name, Kind.UNDO)
        elif run.state is StepState.RETRYING and self.saga.state is SagaState.RUNNING:
            self._dispatch(name, Kind.RUN)
        elif run.state is StepState.RETRYING:
            # Whoever resumes may have a clock behind the one that found the timer due.
            self._work(name, Kind.RUN, retry_at=0)

    def _retry_later(self, name: str, kind: Kind, retry_after_ms: int | None) -> None:
        work = self.steps[name].of(kind)
        seed = f"{self.saga.id}:{kind}:{name}:{work.attempt}"
        policy = self._policy(name, kind)
        delay = delay_ms(policy, work.tries, seed=seed, retry_after_ms=retry_after_ms)
        self._work(name, kind, retry_at=self.now_ms + delay)
        self._set_state(name, kind, StepState.RETRYING, UndoState.RETRYING)
        timer = retry_timer(kind, name, work.attempt)
        self.commands.append(SetTimer(timer, self.now_ms + delay))

    # ---- forward ----

    def _advance(self, names: Iterable[str]) -> None:
        """Start what is ready among ``names`` and whatever follows a skip; end when all ended."""
        queue = deque(names)
        while queue:
            name = queue.popleft()
            if self._try_start(name):
                queue.extend(self.workflow.dependents[name])
        if not self.saga.open_steps and self.saga.state is SagaState.RUNNING:
            self._move(SagaState.COMPLETED)

    def _try_start(self, name: str) -> bool:
        """Dispatch or skip a step if all it waits for has ended; return whether it was skipped."""
        if self.saga.state is not SagaState.RUNNING or self.saga.halting:
            return False
        if self.steps[name].state is not StepState.WAITING:
            return False
        step = self.workflow.by_name[name]
        before = [self.steps[dependency] for dependency in step.depends_on]
        if any(run.state not in _PAST for run in before):
            return False
        if _all_unchosen(before):
            return self._skip(name, unchosen=True)
        return self._choose(step)

    def _choose(self, step: Step) -> bool:
        if step.when is None:
            self._dispatch(step.name, Kind.RUN)
            return False
        try:
            chosen = evaluate(step.when, self._values())
        except ConditionError as error:
            self._refuse(step.name, Failure("ConditionError", str(error)))
            return False
        if chosen is True:
            self._dispatch(step.name, Kind.RUN)
            return False
        return self._skip(step.name)

    def _skip(self, name: str, unchosen: bool = False) -> bool:
        self._set(open_steps=self.saga.open_steps - 1)
        self._step(name, state=StepState.SKIPPED, unchosen=unchosen)
        return True

    def _refuse(self, name: str, error: Failure) -> None:
        """A step that cannot even begin: nothing was done, so it has failed clean."""
        self._work(name, Kind.RUN, error=error, ended_at=self.now_ms)
        if self._pivot_passed():
            self._park(name, Kind.RUN)
            return
        self._blame(error, name)
        self._give_up(name)
        self._rewind()

    def _dispatch(self, name: str, kind: Kind) -> None:
        attempt = self.steps[name].of(kind).attempt + 1
        self._work(name, kind, attempt=attempt, retry_at=0)
        self._set_state(name, kind, StepState.DISPATCHED, UndoState.DISPATCHED)
        self.commands.append(Dispatch(kind, name, attempt))

    def _refusal(self, name: str) -> Failure | None:
        """Why a returned result counts as a failure, by the step's ``failed_when``."""
        expression = self.workflow.by_name[name].failed_when
        if expression is None:
            return None
        try:
            refused = evaluate(expression, self._values(name))
        except ConditionError as error:
            return Failure("ConditionError", str(error))
        return Failure("ResultRefused", f"result meets {expression!r}") if refused else None

    def _values(self, name: str | None = None) -> dict[str, Any]:
        """What a condition reads; a result counts from the moment its step has succeeded."""
        results = self.saga.values.get("results", {})
        view: dict[str, Any] = {
            step: {"state": run.state.value, "result": results.get(step, {})}
            if run.state is StepState.SUCCEEDED or step == name
            else {"state": run.state.value}
            for step, run in self.steps.items()
        }
        values = {"input": self.saga.values.get("input", {}), "steps": view}
        return values if name is None else {**values, "result": results.get(name, {})}

    # ---- backward ----

    def _rewind(self) -> None:
        """Stop new work, wait for running siblings, then undo, last completed first (rule 4)."""
        if self.saga.state in _STOPPABLE:
            self._move(SagaState.COMPENSATING)
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
                self._dispatch(name, Kind.UNDO)
        if not any(run.undo_state in UNDO_BUSY for run in self.steps.values()):
            self._move(self._verdict())

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
                self._dispatch(name, Kind.UNDO)

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
                self._give_up(name)
            elif run.state is StepState.PARKED or (
                run.state is StepState.WAITING and self._has_begun(name)
            ):
                self._give_up(name)

    def _verdict(self) -> SagaState:
        undos = {run.undo_state for run in self.steps.values()}
        if undos & {UndoState.PARKED, UndoState.SKIPPED}:
            return SagaState.FAILED
        if self.saga.cancelled:
            return SagaState.CANCELLED
        if self.saga.rolled_back or undos & UNDO_SETTLED:
            return SagaState.COMPENSATED
        return SagaState.FAILED

    # ---- the point of no return ----

    def _pivot_passed(self) -> bool:
        """Rule 7 and E17: from its first claim until all its attempts are known to be clean."""
        pivot = self.workflow.pivot
        if pivot is None:
            return False
        run = self.steps[pivot.name]
        return run.unknown or run.state in {StepState.RUNNING, StepState.SUCCEEDED}

    def _blame_and_stop(self, why: str, error: Failure) -> None:
        """Cancel or deadline: go backward, unless the pivot is passed or may be just now."""
        if self.saga.state not in _STOPPABLE or self.saga.halting:
            return
        self._set(halting=why)
        if self._pivot_passed():
            self._refuse_past_pivot()
            return
        self._blame(error)
        pivot = self.workflow.pivot
        run = self.steps[pivot.name] if pivot else None
        if pivot and run and run.state is StepState.DISPATCHED:
            self.commands.append(Withdraw(Kind.RUN, pivot.name, run.work.attempt))
            return
        self._halt()

    def _halt(self) -> None:
        cancelled = self.saga.cancelled or self.saga.halting == "cancel"
        self._set(halting="", cancelled=cancelled)
        self._rewind()

    def _refuse_past_pivot(self) -> None:
        self._call_for_attention(f"{self.saga.halting} came after the pivot: not undone")
        self._set(halting="")
        if self.saga.error is not None and not self.saga.error_step:
            self._set(error=None)

    # ---- people ----

    def _on_asked(self, entry: Asked) -> None:
        match entry.command:
            case Ask.PAUSE:
                self._pause()
            case Ask.RESUME:
                self._resume()
            case Ask.CANCEL:
                why = entry.reason or "cancelled"
                self._blame_and_stop("cancel", Failure("Cancelled", why))
            case Ask.ROLLBACK:
                self._roll_back(entry.reason)
            case Ask.TERMINATE:
                self._terminate(entry.reason)
            case Ask.RETRY | Ask.SKIP | Ask.RESOLVE:
                self._settle_parked(entry)
            case _:
                assert_never(entry.command)

    def _pause(self) -> None:
        if self.saga.state not in {SagaState.PENDING, SagaState.RUNNING} or self.saga.halting:
            return
        self._move(SagaState.PAUSED)
        for name, run in self.steps.items():
            if run.state is StepState.DISPATCHED:
                self.commands.append(Withdraw(Kind.RUN, name, run.work.attempt))

    def _resume(self) -> None:
        """Timers that came due meanwhile were only recorded (E19): start what they held back."""
        if self.saga.state is not SagaState.PAUSED:
            return
        self._move(SagaState.RUNNING)
        for name, run in list(self.steps.items()):
            if run.state is StepState.RETRYING and run.work.retry_at <= self.now_ms:
                self._dispatch(name, Kind.RUN)
        self._advance(self.workflow.by_name)

    def _roll_back(self, reason: str) -> None:
        if self.saga.state is not SagaState.COMPLETED:
            return
        if self._pivot_passed():
            self._call_for_attention("rollback came after the pivot: not undone")
            return
        self._set(rolled_back=True)
        self._blame(Failure("RolledBack", reason or "rolled back"))
        self._move(SagaState.COMPENSATING)
        self._rewind()

    def _terminate(self, reason: str) -> None:
        if self.saga.state is SagaState.FAILED:
            return
        self._blame(Failure("Terminated", reason or "terminated"))
        self._set(terminated=True, halting="")
        self._call_for_attention("terminated without undo")
        for name, run in list(self.steps.items()):
            for kind in _dispatched(run):
                self.commands.append(Withdraw(kind, name, run.of(kind).attempt))
            for kind in _retrying(run):
                timer = retry_timer(kind, name, run.of(kind).attempt)
                self.commands.append(ClearTimer(timer))
            self._close(name)
        self._move(SagaState.FAILED)

    def _close(self, name: str) -> None:
        """Nobody will come back to what is parked or waits for its next attempt."""
        run = self.steps[name]
        if run.state in {StepState.PARKED, StepState.RETRYING}:
            self._give_up(name)
        if run.undo_state in {UndoState.PARKED, UndoState.RETRYING}:
            self._step(name, undo_state=UndoState.SKIPPED)

    def _settle_parked(self, entry: Asked) -> None:
        """An operator's word on dead letters: all of the saga's, or one step's."""
        if self.saga.terminated:
            return
        for name in [entry.step] if entry.step else list(self.steps):
            run = self.steps.get(name)
            if run is None:
                continue
            if run.undo_state is UndoState.PARKED:
                self._settle_undo(name, entry.command)
            elif run.state is StepState.PARKED:
                self._settle_run(name, entry.command)
        if not self._parked():
            self._set(attention=())
        self._undo_what_was_retried()

    def _undo_what_was_retried(self) -> None:
        """Retried undos wait for their turn like all others."""
        if self.saga.state is SagaState.FAILED and self._to_undo():
            self._move(SagaState.COMPENSATING)
        if self.saga.state is SagaState.COMPENSATING:
            self._rewind()

    def _settle_undo(self, name: str, command: Ask) -> None:
        if command is Ask.RETRY:
            self._work(name, Kind.UNDO, tries=0)
            self._step(name, undo_state=UndoState.NONE)
        else:
            skipped = command is Ask.SKIP
            self._step(name, undo_state=UndoState.SKIPPED if skipped else UndoState.RESOLVED)

    def _settle_run(self, name: str, command: Ask) -> None:
        if command is Ask.RETRY:
            if self.saga.state is SagaState.FAILED:
                self._move(SagaState.RUNNING)
            self._work(name, Kind.RUN, tries=0)
            if self.saga.state is SagaState.PAUSED:
                self._step(name, state=StepState.WAITING)
            else:
                self._dispatch(name, Kind.RUN)
        elif command is Ask.SKIP:
            self._give_up(name)  # its attempts may have left effects: they have their place in undo
            self._skip(name)
            self._advance(self.workflow.dependents[name])
        else:
            self._succeed(name)

    def _parked(self) -> bool:
        return any(
            run.state is StepState.PARKED or run.undo_state is UndoState.PARKED
            for run in self.steps.values()
        )

    def _park(self, name: str, kind: Kind) -> None:
        self._set_state(name, kind, StepState.PARKED, UndoState.PARKED)
        self._call_for_attention(f"{kind} of {name!r} is parked")

    # ---- small changes ----

    def _policy(self, name: str, kind: Kind) -> RetryPolicy:
        """Step before decorator before default."""
        step, work = self.workflow.by_name[name], self.steps[name].of(kind)
        if kind is Kind.UNDO:
            return step.compensation_retry or work.retry or UNDO_RETRY
        return step.retry or work.retry or DEFAULT_RETRY

    def _set(self, **changes: Any) -> None:
        self.saga = replace(self.saga, **changes)

    def _step(self, name: str, **changes: Any) -> None:
        self.steps[name] = replace(self.steps[name], **changes)
        self.changed.add(name)

    def _set_state(self, name: str, kind: Kind, run: StepState, undo: UndoState) -> None:
        if kind is Kind.RUN:
            self._step(name, state=run)
        else:
            self._step(name, undo_state=undo)

    def _work(self, name: str, kind: Kind, **changes: Any) -> None:
        field = "work" if kind is Kind.RUN else "undo"
        self._step(name, **{field: replace(self.steps[name].of(kind), **changes)})


_LEASE_LOST = Failure("LeaseLost", "the worker fell silent: its lease ran out")


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


def _all_unchosen(before: list[StepRun]) -> bool:
    """Whether a step is on no chosen branch: a join that all branches skipped, or one after it.

    A single predecessor that its own condition skipped counts as ended, not as unchosen.
    """
    if not before:
        return False
    if len(before) == 1:
        return before[0].unchosen
    return all(run.state is StepState.SKIPPED for run in before)


def _dispatched(run: StepRun) -> list[Kind]:
    states = ((Kind.RUN, run.state), (Kind.UNDO, run.undo_state))
    return [kind for kind, state in states if state.value == StepState.DISPATCHED.value]


def _retrying(run: StepRun) -> list[Kind]:
    states = ((Kind.RUN, run.state), (Kind.UNDO, run.undo_state))
    return [kind for kind, state in states if state.value == StepState.RETRYING.value]
