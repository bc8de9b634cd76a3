"""Which steps may start?

A step starts when all its dependencies have ended.  A step that its condition skips has ended, too.
A join is skipped if all its branches were skipped.
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
from multiagents.workflows.step import Step

PAST = frozenset({StepState.SUCCEEDED, StepState.SKIPPED})
"""The states of a step in which its dependents may start."""


def advance(draft: Draft, names: Iterable[str]) -> None:
    """Start the ready steps among ``names`` and after skips; end the saga if all ended."""
    queue = deque(names)
    while queue:
        name = queue.popleft()
        if _try_start(draft, name):
            queue.extend(draft.workflow.dependents[name])
    if not draft.saga.open_steps and draft.saga.state is SagaState.RUNNING:
        draft.move(SagaState.COMPLETED)


def _try_start(draft: Draft, name: str) -> bool:
    """Dispatch or skip a step if its dependencies have ended; return whether it was skipped."""
    if draft.saga.state is not SagaState.RUNNING or draft.saga.halting:
        return False
    if draft.steps[name].run.state is not StepState.WAITING:
        return False
    spec = draft.workflow.by_name[name]
    before = []
    for dependency in spec.depends_on:
        before.append(draft.steps[dependency])
        if before[-1].run.state not in PAST:
            return False
    if _all_unchosen(before):
        return skip(draft, name, unchosen=True)
    return _choose(draft, spec)


def _choose(draft: Draft, spec: Step) -> bool:
    if spec.when is None:
        draft.dispatch(spec.name, Kind.RUN)
        return False
    try:
        chosen = evaluate(spec.when, _values(draft), step=spec.name)
    except ConditionError as error:
        _refuse(draft, spec.name, Failure("ConditionError", str(error)))
        return False
    if chosen is True:
        draft.dispatch(spec.name, Kind.RUN)
        return False
    return skip(draft, spec.name)


def skip(draft: Draft, name: str, unchosen: bool = False) -> bool:
    """Skip a step; return True: its dependents may start."""
    draft.set_saga(open_steps=draft.saga.open_steps - 1)
    draft.move_work(name, Kind.RUN, StepState.SKIPPED)
    if unchosen:
        draft.set_step(name, unchosen=True)
    return True


def _refuse(draft: Draft, name: str, error: Failure) -> None:
    """Fail a step that cannot begin: clean, since it did nothing."""
    draft.set_work(name, Kind.RUN, error=error, ended_at=draft.now_ms)
    if is_past_pivot(draft):
        draft.park(name, Kind.RUN)
        return
    draft.blame(error, name)
    draft.give_up(name)
    rewind(draft)


def _values(draft: Draft) -> dict[str, Any]:
    """The values of a condition; a result counts once its step has succeeded."""
    results = draft.saga.values.get("results", {})
    view: dict[str, Any] = {
        name: as_seen(step.run.state, results.get(name)) for name, step in draft.steps.items()
    }
    return {"input": draft.saga.values.get("input", {}), "steps": view}


def _all_unchosen(before: list[StepRun]) -> bool:
    """Whether a step is on no chosen branch: a join of skipped branches, or a step after it.

    A single predecessor that its own condition skipped counts as ended, not as unchosen.
    """
    if not before:
        return False
    if len(before) == 1:
        return before[0].unchosen
    return all(step.run.state is StepState.SKIPPED for step in before)
