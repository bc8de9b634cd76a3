"""When has a saga passed its pivot, and what is undone then?"""

from __future__ import annotations

from multiagents.core.entries import Failed, Failure, Requested
from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import Assignment
from multiagents.core.states import Action, FailureEffect, SagaState, StepState, UndoState
from multiagents.storage import sagas as store
from tests.support.one_process import KEYS, SAGA, Bench, row, step, undoable

ONCE = RetryPolicy(max_attempts=1)


def pivoted(bench: Bench) -> Assignment | None:
    """A saga whose pivot is sent, for a process to continue."""
    bench.start(undoable("s"), step("pivot", "s", pivot=True, retry=ONCE), step("z", "pivot"))
    return bench.succeed(bench.claim())


def test_the_pivot_counts_as_passed_from_its_first_claim(bench: Bench) -> None:
    """E17: its effect may exist, so a cancel asks for attention and undoes nothing."""
    assert pivoted(bench) is not None
    bench.ask(Action.CANCEL)
    saga = bench.saga()
    assert (saga.state, saga.steps["s"].undo.state) == (SagaState.RUNNING, UndoState.NONE)
    assert saga.attention == ("cancel came after the pivot: not undone",)


def test_a_pivot_that_nobody_has_claimed_is_taken_back(bench: Bench) -> None:
    """E17: the cancel waits for the withdrawal, then undoes."""
    bench.start(undoable("s"), step("pivot", "s", pivot=True))
    held = bench.claim()
    assert bench.succeed(held, allowed=False) is None
    bench.ask(Action.CANCEL)
    assert bench.saga().steps["s"].undo.state is UndoState.DISPATCHED


def test_a_pivot_that_was_claimed_in_time_is_not_undone(bench: Bench) -> None:
    """E17: a claim between the cancel and its decision counts."""
    bench.start(undoable("s"), step("pivot", "s", pivot=True))
    assert bench.succeed(bench.claim(), allowed=False) is None
    asked = Requested(bench.clock.now_ms(), Action.CANCEL, "r")
    bench.edge.execute(store.append(KEYS, asked))
    bench.claim()
    bench.edge.run(bench.coordinator.coordinate(SAGA))
    saga = bench.saga()
    assert (saga.state, saga.halting) == (SagaState.RUNNING, "")
    assert saga.steps["s"].undo.state is UndoState.NONE
    assert saga.attention


def test_a_pivot_that_failed_clean_is_not_passed(bench: Bench) -> None:
    """E17: once all its attempts are known as clean, everything is undone."""
    held = pivoted(bench)
    assert held is not None
    clean = Failed(
        bench.clock.now_ms(), *row(held), Failure("E", "e"), FailureEffect.CLEAN, retryable=False
    )
    bench.edge.run(bench.coordinator.report(SAGA, clean))
    assert bench.saga().steps["s"].undo.state is UndoState.DISPATCHED


def test_a_pivot_that_may_have_acted_is_parked(bench: Bench) -> None:
    """E17: one attempt's outcome is unknown, so an operator decides."""
    held = pivoted(bench)
    assert held is not None
    bench.fail(held)
    saga = bench.saga()
    assert saga.steps["pivot"].run.state is StepState.PARKED
    assert saga.steps["s"].undo.state is UndoState.NONE
