"""Does the engine keep the rules that no other test covers?

Each test names the rule of docs/reference/rules.md that it holds; tests/rules.toml names the test.
``python -m tests.simulation.planted.rules`` shows that it fails where the rule is broken.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from multiagents.core.clock import FakeClock
from multiagents.core.entries import Failed, Failure, Lost, Requested, Succeeded
from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import Assignment, Verdict
from multiagents.core.settings import Settings
from multiagents.core.states import Action, FailureEffect, Kind, SagaState, StepState, UndoState
from multiagents.engine.attempts import StoreEngine
from multiagents.engine.messages import Message
from multiagents.hosting.app import make_app
from multiagents.hosting.step_task import TaskProcess
from multiagents.saga.outcome import SagaOutcome
from multiagents.storage import sagas as store
from multiagents.storage.calls import Call
from multiagents.storage.commit import Letter
from multiagents.storage.keys import due_dirty
from multiagents.transport.direct_result import Answers
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.workflows.step import Step, TaskCall
from multiagents.workflows.workflow import Workflow
from tests.support.one_process import KEYS, SAGA, Bench, row, step, undoable

TWICE, ONCE = RetryPolicy(max_attempts=2), RetryPolicy(max_attempts=1)


def begin(bench: Bench, *steps: Step, **options: Any) -> None:
    """Start a saga of a workflow with its own options."""
    given = {"input": "{}", "meta": "{}"}
    workflow = Workflow(name="w", steps=steps, **options)
    bench.edge.run(bench.coordinator.start(workflow, saga_id=SAGA, waiting=(SAGA, ""), data=given))


def lose(bench: Bench) -> Assignment:
    """Begin an attempt, and let its lease expire."""
    bench.sweep()
    held = bench.claim()
    sweep_for(bench, bench.settings.lease_s + 3)
    assert any(isinstance(entry, Lost) and entry.nonce == held.nonce for entry in bench.log())
    return held


def sweep_for(bench: Bench, seconds: float) -> None:
    """Let time pass in steps that leave no gap between sweeps."""
    for _ in range(round(seconds)):
        bench.clock.advance(1)
        bench.sweep()


# ---- E1 ----


def test_what_an_errback_has_written_is_decided_at_once(bench: Bench) -> None:
    """E1: the entry is due now, without the term that a process would get."""
    bench.start(step("s"))
    bench.claim()
    failed = bench.coordinator.log_failure(
        SAGA,
        "d",
        lambda held: Failed(bench.clock.now_ms(), *held.ref, held.nonce, Failure("E", "e")),
    )
    assert bench.edge.run(failed)
    assert bench.edge.client.zscore(KEYS.due, due_dirty(SAGA)) == bench.clock.now_ms()
    bench.sweep()
    assert bench.saga().steps["s"].run.state is StepState.RETRYING


# ---- E2 ----


class Gone:
    """An engine that knows no lease any more."""

    def renew(self, held: list[Assignment], notes: Any) -> list[Assignment]:
        return held

    def count_late(self) -> None:
        raise AssertionError("nothing was late")


def test_a_lost_lease_cancels_its_attempt() -> None:
    """E2: the process stops the step once, as far as it can."""
    clock, cancelled = FakeClock(), list[str]()
    keeper = LeaseKeeper(
        Gone(),  # type: ignore[arg-type]  # all that is asked of it
        clock=clock,
        lease_ms=30_000_000,
        cancel=lambda token: bool(cancelled.append(token)),
        on_timeout=lambda held, place: None,
        can_kill=False,
    )
    held = Assignment("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d")
    keeper.hold(held)
    for _ in range(2):
        clock.advance(10_001)
        keeper._tick()
    assert cancelled == ["n1"]
    assert not keeper.note(held, "p", 1)


# ---- E5 ----


def test_no_two_commits_make_the_same_version(bench: Bench, redis_url: str) -> None:
    """E5: not even one decision over one state does, as after a server's data loss."""
    versions = set()
    for _ in range(5):
        bench.edge.client.flushdb()
        other = Bench(redis_url)
        other.start(step("s0"), step("s1", "s0"))
        versions.add(bench.edge.client.hget(KEYS.saga, "v"))
        other.succeed(other.claim())
        versions.add(bench.edge.client.hget(KEYS.saga, "v"))
        other.edge.close()
    assert len(versions) == 10


def test_a_report_of_an_unknown_claim_is_recorded_and_asks_for_a_person(bench: Bench) -> None:
    """E5: the server may have lost that claim; the report alone changes nothing."""
    bench.start(step("s"))
    held = bench.claim()
    foreign = Succeeded(bench.clock.now_ms(), Kind.RUN, "s", 1, "f" * 16)
    bench.edge.run(bench.coordinator.report(SAGA, foreign, result="{}"))
    assert foreign in bench.log()
    assert bench.saga().steps["s"].run.state is StepState.RUNNING
    assert bench.saga().attention == ("report of an unknown attempt of 's'",)
    bench.succeed(held)
    assert bench.saga().state is SagaState.COMPLETED


def test_what_a_process_knows_from_a_lost_future_does_not_fit(bench: Bench, redis_url: str) -> None:
    """E5: revisions are random, so equally many commits later the state still differs.

    The server comes back without its last second, in whose place an operator pauses the saga. A
    worker from the lost second must neither go on nor undo that pause.
    """
    bench.start(step("s0"), step("s1", "s0"), step("s2", "s1"))
    held = bench.claim()
    client = bench.edge.client
    kept = {key: client.dump(key) for key in client.keys("*")}
    zombie = bench.succeed(held)
    assert zombie is not None
    client.flushdb()
    for key, dump in kept.items():
        client.restore(key, 0, dump)
    other = Bench(redis_url)
    other.ask(Action.PAUSE)
    other.edge.close()
    assert bench.succeed(zombie) is None
    assert bench.saga().state is SagaState.PAUSED
    assert bench.saga().steps["s2"].run.state is StepState.WAITING
    assert bench.saga().attention


# ---- E7, E8 ----


def test_a_lost_attempt_makes_a_step_unknown_that_failed_clean_later(bench: Bench) -> None:
    """E7: a step is clean only if all its started attempts were."""
    bench.start(undoable("s", retry=TWICE))
    lose(bench)
    held = bench.claim()
    clean = Failed(
        bench.clock.now_ms(), *row(held), Failure("E", "e"), FailureEffect.CLEAN, retryable=False
    )
    bench.edge.run(bench.coordinator.report(SAGA, clean))
    assert bench.saga().steps["s"].undo.state is UndoState.DISPATCHED


def test_an_undo_has_keys_and_attempts_of_its_own(bench: Bench) -> None:
    """E8: it gets the step's key, too; an undo that restarts has a new key (E4: numbered)."""
    bench.start(undoable("s", retry=ONCE))
    first = lose(bench)
    assert first.idempotency_key == f"{SAGA}:s"
    undo = bench.claim()
    assert (undo.kind, undo.attempt) == (Kind.UNDO, 1)
    assert undo.step_idempotency_key == first.idempotency_key
    bench.fail(undo, retryable=True)
    sweep_for(bench, 4)
    again = bench.claim()
    assert (again.attempt, again.idempotency_key) == (2, undo.idempotency_key)
    bench.succeed(again)
    afresh = bench.succeed(first)
    assert afresh is not None
    assert afresh.attempt == 3
    keys = {first.idempotency_key, undo.idempotency_key, afresh.idempotency_key}
    assert len(keys) == 3


# ---- E12 ----


def test_a_result_is_kept_as_long_as_its_saga(redis_url: str) -> None:
    """E12: this holds for both ways to store it."""
    settings = Settings(redis_url=redis_url, retention_s=123)
    app = make_app(settings)
    end = SagaOutcome("s", SagaState.COMPLETED, waiting={"t": {}}, result={})
    answers = Answers(app, settings)(end)
    assert answers is not None
    assert [answer.expires_s for answer in answers] == [123]
    assert app.backend.expires == 123
    app.close()


# ---- E13, E14 ----


def letter(message: Message) -> Letter:
    return Letter("queue", json.dumps([message.step, message.attempt]))


@pytest.fixture
def plainly(redis_url: str) -> Iterator[Bench]:
    """A bench whose broker is the store's own server."""
    found = Bench(redis_url, letter_of=letter)
    found.sweep()
    yield found
    found.edge.close()


def waiting(bench: Bench) -> list[Any]:
    return [json.loads(text) for text in bench.edge.client.lrange("queue", 0, -1)]


def plain(name: str, *after: str, **options: Any) -> Step:
    call = TaskCall(task="shop.work", timeout_s=60)
    return Step(name=name, worker=call, depends_on=after, **options)


def test_a_plain_task_is_sent_once_and_its_time_out_decides(plainly: Bench) -> None:
    """E13: a lost message and a running task look the same."""
    plainly.start(plain("p", retry=TWICE))
    sweep_for(plainly, 55)
    assert waiting(plainly) == [["p", 1]]
    assert plainly.saga().steps["p"].run.state is StepState.RUNNING
    sweep_for(plainly, 15)
    assert waiting(plainly) == [["p", 2], ["p", 1]]


def test_only_steps_of_workers_are_continued(plainly: Bench) -> None:
    """E14: the next plain task travels by message."""
    plainly.start(step("s0"), step("s1", "s0"), plain("p", "s1"))
    following = plainly.succeed(plainly.take_engine("s0"))
    assert following is not None
    assert plainly.succeed(following) is None
    assert waiting(plainly) == [["p", 1]]


def test_an_errback_fails_what_its_delivery_holds_now(bench: Bench) -> None:
    """E14: the message's own step has ended, and the continued one has not."""
    bench.start(step("s0"), step("s1", "s0", retry=ONCE))
    following = bench.succeed(bench.claim())
    assert following is not None
    engine = StoreEngine(bench.coordinator, bench.edge, bench.clock, bench.catalog)
    assert engine.fail_delivery(SAGA, "d", Verdict(Failure("Killed", "")), decide=True)
    states = {name: step.run.state for name, step in bench.saga().steps.items()}
    assert states == {"s0": StepState.SUCCEEDED, "s1": StepState.FAILED}


def test_a_worker_that_stops_continues_nothing() -> None:
    """E14: nor does a worker at the end of its slice or its child."""
    stopping = Event()
    process = TaskProcess(
        engine=None,  # type: ignore[arg-type]  # none of these is asked
        leases=None,  # type: ignore[arg-type]
        perform=lambda *_: ({}, "{}"),
        verdict_of=lambda *_: Verdict(Failure("", "")),
        persist=lambda report: report(),
        slice_s=1,
        slice_steps=5,
        stopping=stopping.is_set,
        most_steps=3,
    )
    later, past = time.monotonic() + 60, time.monotonic() - 1
    assert process.may_go_on(0, later)
    assert not process.may_go_on(5, later)
    assert not process.may_go_on(0, past)
    process.steps = 3
    assert not process.may_go_on(0, later)
    process.steps = 0
    stopping.set()
    assert not process.may_go_on(0, later)


# ---- E15 ----


def test_a_commit_writes_only_what_has_changed(bench: Bench) -> None:
    """E15: a commit amid 400 steps writes as much as amid 4."""
    sizes = {}
    for count in (4, 400):
        bench.edge.client.flushdb()
        bench.start(*(step(f"s{n}", *([f"s{n - 1}"] if n else [])) for n in range(count)))
        held = bench.succeed(bench.claim())
        calls: list[Call[Any]] = []
        execute = bench.edge.execute

        def noted(effect: Any, execute: Any = execute, calls: list[Any] = calls) -> Any:
            calls.append(effect)
            return execute(effect)

        bench.edge.execute = noted  # type: ignore[method-assign]  # it only notes
        assert held is not None
        assert bench.succeed(held) is not None
        bench.edge.execute = execute  # type: ignore[method-assign]
        assert [call.script for call in calls] == ["advance"]
        sizes[count] = sum(len(str(arg)) for arg in calls[0].args)
    assert sizes[400] <= sizes[4] + 40


def test_a_long_log_is_read_in_pages(bench: Bench) -> None:
    """E15: undecided entries are decided page by page."""
    bench.start(step("s"))
    count = 1200
    commands = (Action.PAUSE, Action.RESUME)
    for number in range(count):
        entry = Requested(bench.clock.now_ms(), commands[number % 2], f"r{number}")
        bench.edge.client.rpush(KEYS.log, store.encode(entry))
    first = bench.edge.execute(store.load(KEYS))
    assert len(first.entries) == 500
    bench.edge.run(bench.coordinator.coordinate(SAGA))
    left = bench.edge.execute(store.load(KEYS))
    assert left.entries == ()
    assert len([entry for entry in bench.log() if isinstance(entry, Requested)]) == count


# ---- E19 ----


def test_in_a_pause_leases_and_the_deadline_go_on(bench: Bench) -> None:
    """E19: a lost worker is noticed, its retry withheld, and the deadline turns the saga."""
    bench.sweep()
    begin(bench, undoable("s", retry=TWICE), timeout_s=60)
    bench.claim()
    bench.ask(Action.PAUSE)
    sweep_for(bench, 20)
    step = bench.saga().steps["s"]
    assert (bench.saga().state, step.run.state, len(step.lost)) == (
        SagaState.PAUSED,
        StepState.RETRYING,
        1,
    )
    assert bench.sent == []
    sweep_for(bench, 45)
    assert bench.saga().state is SagaState.COMPENSATING
