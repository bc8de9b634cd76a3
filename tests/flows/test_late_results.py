"""What happens to a result that arrives after its attempt was given up?

It is put aside, and only a decision makes it the step's. So earlier conditions, steps and outcomes
stay true, and the log alone gives the saga.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from multiagents.core.entries import Failed, Failure, Requested, Succeeded, Unroutable
from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import Assignment
from multiagents.core.states import Action, FailureEffect, Kind, SagaState, StepState
from multiagents.engine.claims import Continuation
from multiagents.engine.saga_reader import blank_saga
from multiagents.operations.explain.late_reports import late_successes
from multiagents.saga.decide import fold
from multiagents.storage import sagas as store
from tests.support.one_process import KEYS, SAGA, Bench, lose, row, step, undoable

LATE = '{"ok": true}'
ONCE = RetryPolicy(max_attempts=1)
HAS_RESULT = "has(steps.charge.result) && has(steps.charge.result.ok)"


def data(bench: Bench) -> dict[str, str]:
    return bench.edge.execute(store.data(KEYS))


def parked(bench: Bench, *following: Any) -> Assignment:
    """A saga whose pivot's attempt is lost and parked; the lost attempt."""
    bench.start(step("charge", pivot=True, retry=ONCE), *following)
    held = bench.claim()
    lose(bench.edge, bench.coordinator, held)
    assert bench.saga().steps["charge"].run.state is StepState.PARKED
    return held


def assert_replayed(bench: Bench) -> None:
    """Assert that the log gives the stored state."""
    saga, workflow = bench.edge.run(bench.coordinator.repository.current(SAGA))
    log = bench.log()
    blank = blank_saga(workflow, SAGA, log[0].at_ms, data(bench))
    assert fold(workflow, blank, log).saga == saga


def results_of(held: Assignment) -> dict[str, Any]:
    return {name: json.loads(text) for name, text in held.results.items()}


@pytest.mark.parametrize("command", [Action.RESOLVE, Action.SKIP])
def test_what_a_person_settled_has_no_result_whatever_comes_late(
    bench: Bench, command: Action
) -> None:
    """Later steps went on without a result."""
    late = parked(
        bench, step("mail", "charge"), step("thank", "mail", when=HAS_RESULT), step("end", "thank")
    )
    bench.ask(command, "charge")
    bench.succeed(late, LATE)
    mail = bench.claim()
    assert results_of(mail) == {}
    end = bench.succeed(mail, '{"sent": 1}')
    assert end is not None
    assert end.step == "end"
    assert results_of(end) == {"mail": {"sent": 1}}
    bench.succeed(end)
    assert bench.ends == [SagaState.COMPLETED]
    assert_replayed(bench)


def test_a_condition_reads_no_result_that_came_after_the_word_of_a_person(bench: Bench) -> None:
    """With both in the log, the action is decided without the later result."""
    late = parked(bench, step("thank", "charge", when=HAS_RESULT))
    asked = Requested(bench.clock.now_ms(), Action.RESOLVE, "request", step="charge")
    bench.edge.execute(store.append(KEYS, asked))
    bench.succeed(late, LATE)
    assert bench.saga().steps["thank"].run.state is StepState.SKIPPED
    assert_replayed(bench)


@pytest.mark.parametrize("together", [False, True])
def test_a_late_success_is_the_result_of_a_step_that_is_resolved_after_it(
    bench: Bench, together: bool
) -> None:
    """The resolve adopts it, and the next condition reads it at once."""
    late = parked(bench, step("thank", "charge", when="steps.charge.result.ok"))
    if together:  # decided over at once
        bench.lose = "commit"
        with pytest.raises(ConnectionError):
            bench.succeed(late, LATE)
        bench.lose = ""
    else:
        bench.succeed(late, LATE)
    assert bench.saga().steps["charge"].run.state is StepState.PARKED
    bench.ask(Action.RESOLVE, "charge")
    thank = bench.claim()
    assert results_of(thank) == {"charge": {"ok": True}}
    bench.succeed(thank)
    assert bench.ends == [SagaState.COMPLETED]
    assert_replayed(bench)


@pytest.mark.parametrize("command", [Action.RESOLVE, Action.SKIP])
@pytest.mark.parametrize("decided", [True, False])
def test_a_lost_attempts_process_goes_on_without_its_result(
    bench: Bench, command: Action, decided: bool
) -> None:
    """It continues with a waiting branch or the next step, but its own result does not count."""
    bench.announce(1)
    late = parked(bench, *(step(f"mail{n}", "charge") for n in range(3)))
    asked = Requested(bench.clock.now_ms(), command, "request", step="charge")
    if decided:
        bench.edge.run(bench.coordinator.append(SAGA, asked))
    else:
        bench.edge.execute(store.append(KEYS, asked))
    mail = bench.succeed(late, LATE)
    assert mail is not None
    assert results_of(mail) == {}


def test_a_refused_result_is_not_gone_on_with(bench: Bench) -> None:
    """During its report another process parked the step, and an operator resolved it."""
    bench.start(step("charge", pivot=True, retry=ONCE), step("mail", "charge"))
    held, other = bench.claim(), bench.beside()
    now_ms = bench.clock.now_ms()
    refused = Failed(now_ms, *row(held), Failure("Refused", "-"), FailureEffect.UNKNOWN)

    def meanwhile() -> None:
        other.edge.run(other.coordinator.coordinate(SAGA))
        asked = Requested(now_ms, Action.RESOLVE, "request", step="charge")
        other.edge.execute(store.append(KEYS, asked))
        other.edge.close()

    bench.forget()
    slot = Continuation("io", "d", held, LATE)
    report = bench.coordinator.report(SAGA, refused, result=LATE, go_on=slot)
    mail = bench.interrupted(report, "commit", meanwhile)
    assert mail is not None
    assert results_of(mail) == {}


def test_nobody_takes_the_result_of_an_attempt_that_nobody_knows(bench: Bench) -> None:
    """E5: the unknown attempt's earlier result does not count; the lost one's does."""
    bench.start(step("charge", pivot=True, retry=ONCE), step("mail", "charge"))
    late = bench.claim()
    stranger = Succeeded(bench.clock.now_ms(), Kind.RUN, "charge", 1, "f" * 16)
    bench.edge.run(bench.coordinator.report(SAGA, stranger, result='{"from": "nowhere"}'))
    lose(bench.edge, bench.coordinator, late)
    bench.succeed(late, LATE)
    bench.ask(Action.RESOLVE, "charge")
    assert results_of(bench.claim()) == {"charge": {"ok": True}}


def test_a_success_that_follows_a_reported_failure_is_late_too(bench: Bench) -> None:
    """The operator sees whose result the resolved step gets."""
    bench.start(step("charge", pivot=True, retry=ONCE), step("mail", "charge"))
    held = bench.claim()
    bench.fail(held)
    bench.succeed(held, LATE)
    (told,) = late_successes(bench.log())[Kind.RUN, "charge"]
    assert told.attempt == 1
    bench.ask(Action.RESOLVE, "charge")
    assert results_of(bench.claim()) == {"charge": {"ok": True}}


def test_what_an_attempt_had_left_at_work_is_told_when_it_ends(bench: Bench) -> None:
    """A thread has no result; the operator sees which one has ended."""
    bench.start(step("charge", pivot=True, retry=ONCE))
    held = bench.claim()
    given_up = Failed(bench.clock.now_ms(), *row(held), Failure("E", "e"), running=True)
    late = Failure("LateEffect", "pay, which attempt 1 had left in a thread, has ended")
    for entry in (given_up, replace(given_up, error=late, running=False, part=1)):
        bench.edge.run(bench.coordinator.report(SAGA, entry))
    (told,) = late_successes(bench.log())[Kind.RUN, "charge"]
    assert told.to_dict()["left"] == late.message


def test_an_outcome_is_told_again_as_it_was_told_first(bench: Bench) -> None:
    """A second start gets the same outcome, despite a later success of the last step."""
    bench.start(step("pay", pivot=True), step("charge", "pay", retry=ONCE))
    late = bench.succeed(bench.claim())
    assert late is not None
    lose(bench.edge, bench.coordinator, late)
    bench.ask(Action.RESOLVE, "charge")
    bench.succeed(late, LATE)
    _, workflow = bench.edge.run(bench.coordinator.repository.current(SAGA))
    again = bench.coordinator.start(
        workflow, saga_id=SAGA, waiting=("another", ""), data={"input": "{}", "meta": "{}"}
    )
    bench.edge.run(again)
    assert bench.ends == [SagaState.COMPLETED] * 2
    assert bench.results == [{}, {}]


def test_the_undo_of_a_skipped_step_is_given_what_came_late(bench: Bench) -> None:
    """The skipped step has an effect after all, and its result describes it."""
    bench.start(undoable("charge"), step("mail", "charge"))
    late = bench.claim()
    lose(bench.edge, bench.coordinator, late)
    while not bench.sent:
        bench.clock.advance(1)
        bench.sweep()
    assert bench.sent.pop().attempt == 2
    nobody = Unroutable(bench.clock.now_ms(), Kind.RUN, "charge", 2, Failure("UnknownWorker", "-"))
    bench.edge.run(bench.coordinator.append(SAGA, nobody, taken="o:run:charge:2"))
    bench.ask(Action.SKIP, "charge")
    bench.succeed(late, LATE)
    bench.fail(bench.claim())
    undo = bench.claim()
    assert (undo.kind, undo.step, undo.step_result) == (Kind.UNDO, "charge", LATE)
    bench.succeed(undo)
    assert bench.ends == [SagaState.COMPENSATED]
    assert_replayed(bench)


def test_a_step_that_was_given_up_has_the_result_of_its_late_success(bench: Bench) -> None:
    """It then counts as succeeded and is undone again."""
    bench.start(undoable("charge", retry=ONCE))
    late = bench.claim()
    lose(bench.edge, bench.coordinator, late)
    first = bench.claim()
    assert first.step_result is None
    bench.succeed(first)
    assert "r:charge" not in data(bench)
    again = bench.succeed(late, LATE)
    assert again is not None
    assert again.step_result == LATE
    assert data(bench)["r:charge"] == LATE


@pytest.mark.parametrize("reported_by_another", [False, True])
def test_an_undo_is_given_what_came_late_before_anybody_decided_over_it(
    bench: Bench, reported_by_another: bool
) -> None:
    """The undo is claimed between the report and its commit, whose process may have died."""
    bench.start(undoable("charge", retry=ONCE))
    late = bench.claim()
    if reported_by_another:
        bench.fail(late)
    else:
        lose(bench.edge, bench.coordinator, late)
    done = Succeeded(bench.clock.now_ms(), *row(late))
    bench.edge.execute(store.report(KEYS, done, result=LATE))
    undo = bench.claim()
    assert (undo.kind, undo.step_result) == (Kind.UNDO, LATE)
    bench.succeed(undo)
    assert bench.ends == [SagaState.COMPENSATED]
    assert bench.sent == []
    assert_replayed(bench)
