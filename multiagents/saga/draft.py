"""How does a rule change a saga?

By small changes to a draft: move the saga, change a step, dispatch, wait, park.  The rules stand
above: `compensation`, `schedule`, `reports`, `actions`, and `decide` over all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure
from multiagents.core.policies import DEFAULT_RETRY, UNDO_RETRY, RetryPolicy
from multiagents.core.states import ENDED, Kind, SagaState, StepState, UndoState
from multiagents.saga.commands import (
    DEADLINE,
    FIRST_COMMANDS,
    Adopt,
    ClearTimer,
    Command,
    Deliver,
    Dispatch,
    SetTimer,
    Withdraw,
    retry_timer,
)
from multiagents.saga.retry import delay_ms
from multiagents.saga.state import AnyWork, Saga, StepRun
from multiagents.saga.transitions import SAGA_MOVES, STEP_MOVES, UNDO_MOVES
from multiagents.workflows.workflow import Workflow

LIVE = frozenset({SagaState.RUNNING, SagaState.PAUSED})

_OF_UNDOS: dict[StepState | UndoState, UndoState] = {state: state for state in UndoState}
"""The states of an undo, also by the states of a run that have the same name."""
_FIELDS = {Kind.RUN: "run", Kind.UNDO: "undo"}


@dataclass(frozen=True, slots=True)
class Decision:
    """A saga's next value, the commands to send, and the steps that changed."""

    saga: Saga
    commands: tuple[Command, ...] = ()
    changed: frozenset[str] = frozenset()

    @property
    def to_begin(self) -> list[Dispatch]:
        """The attempts that it dispatches, without those that it withdraws itself."""
        asked = [command for command in self.commands if isinstance(command, Dispatch)]
        taken = [command for command in self.commands if isinstance(command, Withdraw)]
        if not taken:
            return asked
        gone = {each.ref for each in taken}
        return [each for each in asked if each.ref not in gone]

    @property
    def end(self) -> SagaState | None:
        """The end that it delivers to the waiters; None: it delivers none."""
        return next((each.state for each in self.commands if isinstance(each, Deliver)), None)


V = TypeVar("V", bound=AnyWork | StepRun | Saga)


def evolve(value: V, changes: dict[str, Any]) -> V:
    """`dataclasses.replace` for these types, in a sixth of the time: a step takes a dozen."""
    changed = object.__new__(type(value))
    changed.__dict__.update(value.__dict__)
    changed.__dict__.update(changes)
    return changed


class Draft:
    """A saga while one call of `decide` changes it.

    It is mutable, and stays inside that call: a copy of every value at every change would make a
    wide saga quadratic.
    """

    def __init__(self, workflow: Workflow, saga: Saga) -> None:
        self.workflow = workflow
        self.steps = dict(saga.steps)
        self.saga = evolve(saga, {"steps": self.steps})
        """Private to this call until it ends, so it is changed in place."""
        self.commands: list[Command] = []
        self.changed: set[str] = set()
        self.now_ms = 0

    def decision(self) -> Decision:
        return Decision(self.saga, tuple(self.commands), frozenset(self.changed))

    def move(self, state: SagaState) -> None:
        """Change the saga's state.  Raises AssertionError if the table has no such move."""
        if state is self.saga.state:
            return
        if (self.saga.state, state) not in SAGA_MOVES:
            raise AssertionError(f"illegal move {self.saga.state} -> {state}")
        self.set_saga(state=state, ended_at=self.now_ms if state in ENDED else 0)
        if state in ENDED:
            self._end()

    def move_work(
        self, name: str, kind: Kind, state: StepState | UndoState, **changes: Any
    ) -> None:
        """Change the state of a step's run or undo, and other fields of it."""
        self.set_step(name, **{_FIELDS[kind]: self._moved(name, kind, state, changes)})

    def end_run(self, name: str, state: StepState, **changes: Any) -> None:
        """End the run of a step, which takes the next place in the order of completion."""
        order = self.saga.orders + 1
        self.set_saga(orders=order)
        self.set_step(name, run=self._moved(name, Kind.RUN, state, changes), order=order)

    def _moved(
        self, name: str, kind: Kind, state: StepState | UndoState, changes: dict[str, Any]
    ) -> AnyWork:
        """A run or undo in its next state.  Raises AssertionError for an illegal move."""
        step = self.steps[name]
        work, moves = (step.run, STEP_MOVES) if kind is Kind.RUN else (step.undo, UNDO_MOVES)
        if (work.state, state) not in moves:
            raise AssertionError(f"illegal move {work.state} -> {state} of {kind} {name!r}")
        changes["state"] = state if kind is Kind.RUN else _OF_UNDOS[state]
        return evolve(work, changes)

    def _end(self) -> None:
        self.commands.append(ClearTimer(DEADLINE))
        if not self.saga.delivered:
            self.set_saga(delivered=True)
            self.commands.append(Deliver(self.saga.state))

    def blame(self, error: Failure, step: str = "") -> None:
        """Keep the first error: it stays the saga's error (rule 11)."""
        if self.saga.error is None:
            self.set_saga(error=error, error_step=step)

    def call_for_attention(self, reason: str) -> None:
        if reason not in self.saga.attention:
            self.set_saga(attention=(*self.saga.attention, reason))

    def give_up(self, name: str) -> None:
        self.end_run(name, StepState.FAILED)

    def dispatch(self, name: str, kind: Kind) -> None:
        attempt = self.steps[name].of(kind).attempt + 1
        self.move_work(name, kind, StepState.DISPATCHED, attempt=attempt, retry_at=0)
        target = self.workflow.by_name[name].target(kind)
        self.commands.append(FIRST_COMMANDS[type(target)](kind, name, attempt))

    def retry_later(self, name: str, kind: Kind, retry_after_ms: int | None) -> None:
        work = self.steps[name].of(kind)
        ref = AttemptRef(kind, name, work.attempt)
        policy = self.policy(name, kind)
        seed = f"{self.saga.id}:{ref.text}"
        delay = delay_ms(policy, work.tries, seed=seed, retry_after_ms=retry_after_ms)
        self.move_work(name, kind, StepState.RETRYING, retry_at=self.now_ms + delay)
        self.commands.append(SetTimer(retry_timer(ref), self.now_ms + delay))

    def adopt(self, name: str) -> None:
        """Count the late success of a given-up attempt as the step's, with its result."""
        nonce, values = self.steps[name].done, self.saga.values
        self.commands.append(Adopt(name, nonce))
        late = values.get("late", {})
        if nonce in late:
            results = {name: late[nonce], **values.get("results", {})}
            self.set_saga(values={**values, "results": results})

    def park(self, name: str, kind: Kind) -> None:
        self.move_work(name, kind, StepState.PARKED)
        self.call_for_attention(parked_note(kind, name))

    def policy(self, name: str, kind: Kind) -> RetryPolicy:
        """The step's own policy, else that of its worker's decorator, else the default."""
        step, work = self.workflow.by_name[name], self.steps[name].of(kind)
        if kind is Kind.UNDO:
            return step.compensation_retry or work.retry or UNDO_RETRY
        return step.retry or work.retry or DEFAULT_RETRY

    def has_begun(self, name: str) -> bool:
        """Whether a worker claimed an attempt: then the step has a place in the order of undo."""
        return bool(self.steps[name].run.nonce)

    def set_saga(self, **changes: Any) -> None:
        self.saga.__dict__.update(changes)

    def set_step(self, name: str, **changes: Any) -> None:
        self.steps[name] = evolve(self.steps[name], changes)
        self.changed.add(name)

    def set_work(self, name: str, kind: Kind, **changes: Any) -> None:
        self.set_step(name, **{_FIELDS[kind]: evolve(self.steps[name].of(kind), changes)})


def parked_note(kind: Kind, name: str) -> str:
    """The note in a saga's attention while a step or undo of it is parked."""
    return f"{kind} of {name!r} is parked"
