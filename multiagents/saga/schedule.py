"""Which steps may start?

A step starts when all it waits for has ended; what its condition skips counts as ended, and a
join that every branch skipped is skipped with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from multiagents.core.entries import Failure
from multiagents.core.states import Kind, SagaState, StepState
from multiagents.saga.compensation import is_past_pivot, rewind
from multiagents.saga.draft import Draft
from multiagents.saga.state import StepRun
from multiagents.workflows.expressions import ConditionError, as_seen, evaluate
from multiagents.workflows.workflow import Step

PAST = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
"""What the dependents of a step wait for."""


class Forward(Draft):
    """The way on."""

    def _advance(self, names: Iterable[str]) -> None:
        """Start what is ready among ``names`` and whatever follows a skip; end when all ended."""
        queue = deque(names)
        while queue:
            name = queue.popleft()
            if self._try_start(name):
                queue.extend(self.workflow.dependents[name])
        if not self.saga.open_steps and self.saga.state is SagaState.RUNNING:
            self.move(SagaState.COMPLETED)

    def _try_start(self, name: str) -> bool:
        """Dispatch or skip a step if all it waits for has ended; return whether it was skipped."""
        if self.saga.state is not SagaState.RUNNING or self.saga.halting:
            return False
        if self.steps[name].state is not StepState.WAITING:
            return False
        step = self.workflow.by_name[name]
        before = [self.steps[dependency] for dependency in step.depends_on]
        if any(run.state not in PAST for run in before):
            return False
        if _all_unchosen(before):
            return self._skip(name, unchosen=True)
        return self._choose(step)

    def _choose(self, step: Step) -> bool:
        if step.when is None:
            self.dispatch(step.name, Kind.RUN)
            return False
        try:
            chosen = evaluate(step.when, self._values(), step=step.name)
        except ConditionError as error:
            self._refuse(step.name, Failure("ConditionError", str(error)))
            return False
        if chosen is True:
            self.dispatch(step.name, Kind.RUN)
            return False
        return self._skip(step.name)

    def _skip(self, name: str, unchosen: bool = False) -> bool:
        self.set_saga(open_steps=self.saga.open_steps - 1)
        self.set_step(name, state=StepState.SKIPPED, unchosen=unchosen)
        return True

    def _refuse(self, name: str, error: Failure) -> None:
        """A step that cannot even begin: nothing was done, so it has failed clean."""
        self.set_work(name, Kind.RUN, error=error, ended_at=self.now_ms)
        if is_past_pivot(self):
            self.park(name, Kind.RUN)
            return
        self.blame(error, name)
        self.give_up(name)
        rewind(self)

    def _values(self) -> dict[str, Any]:
        """What a condition reads; a result counts from the moment its step has succeeded."""
        results = self.saga.values.get("results", {})
        view: dict[str, Any] = {
            step: as_seen(run.state, results.get(step)) for step, run in self.steps.items()
        }
        return {"input": self.saga.values.get("input", {}), "steps": view}


def _all_unchosen(before: list[StepRun]) -> bool:
    """Whether a step is on no chosen branch: a join that all branches skipped, or one after it.

    A single predecessor that its own condition skipped counts as ended, not as unchosen.
    """
    if not before:
        return False
    if len(before) == 1:
        return before[0].unchosen
    return all(run.state is StepState.SKIPPED for run in before)
