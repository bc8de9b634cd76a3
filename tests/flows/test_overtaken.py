"""What happens if another process was faster?

Others claim, report and act between a process's read and its write.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.effects import Flow
from multiagents.core.entries import Failed, Failure, Requested, Succeeded
from multiagents.core.ports import Assignment
from multiagents.core.states import Action, FailureEffect, Kind, SagaState, StepState
from multiagents.engine.claims import Continuation
from multiagents.saga.state import Saga
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.workflows.step import Step
from tests.support.one_process import KEYS, SAGA, Bench, step


@pytest.fixture
def other(bench: Bench) -> Iterator[Bench]:
    """Another process."""
    found = bench.beside()
    yield found
    found.edge.close()


def state(bench: Bench) -> Saga:
    return bench.edge.run(bench.coordinator.repository.current(SAGA))[0]


def succeeded(bench: Bench, held: Assignment) -> Succeeded:
    return Succeeded(bench.clock.now_ms(), *held.ref, held.nonce)


def reports(
    bench: Bench, held: Assignment, result: str = "{}", *, allowed: bool = True
) -> Flow[Assignment | None]:
    """The flow of a process that has just read the saga, and reports."""
    bench.forget()
    slot = Continuation("io", "d", held, result, allowed)
    return bench.coordinator.report(SAGA, succeeded(bench, held), result=result, go_on=slot)


def claims(bench: Bench, step: str, attempt: int = 1) -> Assignment | None:
    flow = bench.coordinator.slots.claim(
        SAGA, AttemptRef(Kind.RUN, step, attempt), delivery="d2", queue="io"
    )
    return bench.edge.run(flow)


def test_a_place_is_not_handed_on_to_what_another_has_begun(bench: Bench, other: Bench) -> None:
    """E3: the branch would run a second time, even after its success."""
    bench.announce(2)
    bench.edge.run(bench.catalog.refresh(force=True))
    branches = [Step(name=name, worker="a") for name in ("p0", "p1")]
    bench.start(*branches, Step(name="join", worker="a", depends_on=("p0", "p1")))
    first = bench.claim()
    begun: list[Assignment | None] = []
    bench.interrupted(
        reports(bench, first, allowed=False),
        "commit",
        lambda: begun.append(claims(other, "p1")),
    )
    assert begun[0] is not None
    assert "o:run:p1:1" not in bench.work()
    other.edge.run(other.coordinator.report(SAGA, succeeded(other, begun[0]), result="{}"))
    claims(bench, "p1")
    begun_steps = [entry.step for entry in bench.log() if entry.type == "claimed"]
    assert begun_steps.count("p1") == 1
    assert state(bench).attention == ()


@pytest.mark.parametrize("pivot", [False, True])
@pytest.mark.parametrize("command", [Action.CANCEL, Action.PAUSE, Action.TERMINATE])
def test_nothing_new_begins_after_a_person_has_said_stop(
    bench: Bench, other: Bench, command: Action, pivot: bool
) -> None:
    """Rules 4 and 5, E17, E19: no process continues with a step that its decision withdraws."""
    first = Step(name="first", worker="a", compensation="undo")
    bench.start(first, Step(name="second", worker="a", depends_on=("first",), pivot=pivot))
    asked = Requested(bench.clock.now_ms(), command, "request")
    following = bench.interrupted(
        reports(bench, bench.claim()),
        "commit",
        lambda: other.edge.execute(store.append(KEYS, asked)),
    )
    assert following is None
    other.edge.run(other.coordinator.coordinate(SAGA))
    saga = state(bench)
    assert saga.steps["second"].run.state is StepState.WAITING
    wanted = {
        Action.CANCEL: SagaState.COMPENSATING,
        Action.PAUSE: SagaState.PAUSED,
        Action.TERMINATE: SagaState.FAILED,
    }
    assert saga.state is wanted[command]
    assert claims(other, "second") is None


def test_a_late_process_goes_on_with_the_result_that_counts(bench: Bench, other: Bench) -> None:
    """Fencing: its own attempt was given up, and another one has succeeded."""
    bench.start(
        Step(name="first", worker="a"), Step(name="second", worker="a", depends_on=("first",))
    )
    late = bench.claim()
    bench.sweep()
    for _ in range(60):
        bench.clock.advance(1)
        other.sweep()
        if bench.sent:
            break
    again = claims(other, "first", bench.sent.pop().attempt)
    assert again is not None
    other.edge.execute(store.report(KEYS, succeeded(other, again), result='{"by":"again"}'))
    following = bench.edge.run(reports(bench, late, '{"by":"late"}'))
    assert following is not None
    assert following.results == {"first": '{"by":"again"}'}


def fails(bench: Bench, held: Assignment, effect: FailureEffect) -> None:
    """Another process reports a final failure of this very attempt."""
    row = (*held.ref, held.nonce)
    entry = Failed(bench.clock.now_ms(), *row, Failure("E", "e"), effect, retryable=False)
    bench.edge.run(bench.coordinator.report(SAGA, entry))


@pytest.mark.parametrize("effect", FailureEffect)
def test_a_success_is_undone_whose_failure_another_has_reported(
    bench: Bench, other: Bench, effect: FailureEffect
) -> None:
    """E6: the effect exists, despite the reported failure."""
    bench.start(Step(name="charge", worker="a", compensation="undo"))
    held = bench.claim()
    fails(other, held, effect)
    if effect is FailureEffect.UNKNOWN:  # undone already, and once more for what was not known
        bench.succeed(bench.claim())
    assert len(bench.ends) == 1
    undo = bench.edge.run(reports(bench, held))
    assert undo is not None
    assert (undo.kind, undo.step) == (Kind.UNDO, "charge")
    bench.succeed(undo)
    saga = state(bench)
    assert saga.state is SagaState.COMPENSATED
    assert saga.steps["charge"].run.state is StepState.SUCCEEDED


@pytest.mark.parametrize("pending", [False, True])
def test_a_process_goes_on_though_its_commit_seemed_overtaken(bench: Bench, pending: bool) -> None:
    """E3: after a lost reply and another decision, the claim is recognised by its nonce."""
    bench.start(step("a"), step("pay", "a", pivot=True))
    held, other = bench.claim(), bench.beside()
    flow, reply, sent = bench.report_of(held), None, False
    going: Assignment | None = None
    while True:
        try:
            effect = flow.send(reply)
        except StopIteration as stop:
            going = stop.value
            break
        reply = bench.edge.execute(effect)
        if isinstance(effect, Call) and effect.script in ("advance", "commit") and not sent:
            sent = True
            other.ask(Action.PAUSE)
            if pending:
                resume = Requested(bench.clock.now_ms(), Action.RESUME, "request")
                other.edge.execute(store.append(KEYS, resume))
            reply = bench.edge.execute(effect)
    other.edge.close()
    assert sent
    assert going is not None
    assert (going.step, going.nonce) == ("pay", bench.saga().steps["pay"].run.nonce)
    assert bench.saga().state is (SagaState.RUNNING if pending else SagaState.PAUSED)
