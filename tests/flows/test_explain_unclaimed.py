"""Does `explain` say why no worker has begun a sent step?"""

from __future__ import annotations

import pytest
import redis

from multiagents import WorkflowBuilder
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import TimerDue
from multiagents.core.ports import WorkerInfo
from multiagents.core.states import Kind
from multiagents.engine import launches
from multiagents.engine.catalog import Catalog
from multiagents.engine.launches import Launch
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.assembly import Host
from multiagents.saga.commands import retry_timer
from multiagents.storage.client import Edge
from multiagents.transport.backlogs import depth_of
from multiagents.worker_sdk.validation import check_input
from tests.support.explained import two
from tests.support.office import Office


def test_without_any_worker_it_says_how_to_start_one(office: Office) -> None:
    """The command has no ``-Q``, because the new worker knows its functions' queues."""
    reason = office.reason(office.start(two()), "no_worker")
    assert (reason["step"], reason["queue"]) == ("reserve", "io")
    start = "MULTIAGENTS_IMPORTS=YOUR_MODULE celery -A multiagents worker"
    assert reason["commands"] == [start]
    assert "sent to queue 'io'" in reason["text"]
    assert reason["at"]


def test_a_queue_that_nobody_consumes_is_named(office: Office) -> None:
    """The text lists the running workers with their queues."""
    office.worker_runs("io")
    saga_id = office.start(two())
    office.succeed(saga_id, "reserve")
    reason = office.reason(saga_id, "no_consumer")
    assert reason["queue"] == "llm"
    assert "no worker consumes that queue; running: celery@one (io)" in reason["text"]
    start = "MULTIAGENTS_IMPORTS=YOUR_MODULE celery -A multiagents worker -Q llm"
    assert reason["commands"] == [start]


def test_a_function_that_no_worker_has_is_named(office: Office) -> None:
    """The cause may be a worker deployed without the module."""
    office.worker_runs("io", functions=("other",))
    reason = office.reason(office.start(two()), "unknown_function")
    assert "no running worker has the function 'explain.do'" in reason["text"]


def test_a_function_on_another_queue_does_not_help_and_is_told(office: Office) -> None:
    """The text says that the queue is wrong, and the command is that of the project's app."""
    launch = Launch("proj", (), ("celery",), ("explain.do",), at_ms=1)
    office.runtime.edge.run(launches.remember(launch))
    office.worker_runs("celery")
    office.worker_runs("io", functions=("other",), host="celery@two")
    reason = office.reason(office.start(two()), "function_elsewhere")
    assert "no worker of that queue has the function 'explain.do'" in reason["text"]
    assert "celery@one has it, and consumes celery" in reason["text"]
    assert reason["without_function"] == ["celery@two"]
    assert reason["commands"] == ["celery -A proj worker -Q io"]


def test_a_worker_that_takes_messages_in_vain_is_named(office: Office) -> None:
    """Another worker of the queue has the function, so the step will run."""
    office.worker_runs("io")
    office.worker_runs("io", functions=("other",), host="celery@two")
    reason = office.reason(office.start(two()), "queued")
    assert reason["without_function"] == ["celery@two"]
    assert (
        "celery@two consumes queue 'io' without the function 'explain.do', and gives its steps"
        " back" in reason["text"]
    )
    assert reason["commands"] == []


def test_a_step_that_was_given_back_says_so(office: Office) -> None:
    """The step has no message and waits for a worker with its function."""
    office.worker_runs("io", functions=("other",))
    saga_id = office.start(two())
    keys = office.runtime.host.coordinator.repository.keys(saga_id)
    with redis.Redis.from_url(office.url) as client:
        client.hset(keys.work, "o:run:reserve:1", "0|1")
    text = office.reason(saga_id, "unknown_function")["text"]
    assert "sent to queue 'io', and given back by a worker" in text


def test_a_parked_step_says_that_a_worker_has_its_function_now(office: Office) -> None:
    """Rule 9 parked the step, and the operator learns that the rollout is over."""
    office.worker_runs("io", functions=("other",))
    saga_id = office.start(two())
    edge, host = office.runtime.edge, office.runtime.host
    edge.run(office.runtime.catalog.refresh(force=True))
    edge.run(host.sweeper.resender.park(saga_id, AttemptRef(Kind.RUN, "reserve", 1), "explain.do"))
    assert "has that function now" not in office.reason(saga_id, "parked")["text"]
    office.worker_runs("io", host="celery@two")
    text = office.reason(saga_id, "parked")["text"]
    assert "celery@two has that function now: retry it" in text


def test_messages_before_it_are_counted(office: Office) -> None:
    """A long queue is no fault; the text has its length and the slots that empty it."""
    office.worker_runs("io")
    for _ in range(2):
        office.start(two())
    reason = office.reason(office.start(two()), "queued")
    assert "3 messages wait there, for 2 slots of celery@one" in reason["text"]
    with redis.Redis.from_url(office.url) as client:
        client.delete("io")
    (again,) = [each for each in office.explain(office.start(two()))["reasons"] if each["step"]]
    assert again["code"] == "queued"


def test_an_empty_queue_means_a_held_or_lost_message(office: Office) -> None:
    """The text has the time of the next look."""
    office.worker_runs("io")
    saga_id = office.start(two())
    with redis.Redis.from_url(office.url) as client:
        client.delete("io")
    assert "the queue is empty" in office.reason(saga_id, "sent")["text"]


def test_busy_slots_explain_a_message_that_a_worker_has_fetched(office: Office) -> None:
    """Celery prefetches; a message may be lost only if a slot is free."""
    catalog = Catalog(office.runtime.clock)
    catalog.add_local(WorkerInfo("explain.do", "io"))
    saga_id = office.start(two())
    for busy, said in ((2, "all 2 slots of celery@busy are busy"), (1, "or it is lost")):
        office.runtime.edge.run(catalog.publish("celery@busy", ["io"], [], slots=2, busy=busy))
        with redis.Redis.from_url(office.url) as client:
            client.delete("io")
        text = office.reason(saga_id, "sent")["text"]
        assert said in text
        assert ("is lost" in text) == (busy == 1)
    office.runtime.edge.run(catalog.withdraw("celery@busy"))


def test_the_attempt_before_is_told(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text has the lost attempt's host or the failed one's error."""
    monkeypatch.setattr(office.runtime.host.coordinator.claims, "hostname", "b@vm")

    def begin_again(attempt: int) -> None:
        due = TimerDue(
            office.runtime.clock.now_ms(), retry_timer(AttemptRef(Kind.RUN, "reserve", attempt))
        )
        office.runtime.edge.run(office.runtime.host.coordinator.append(saga_id, due))

    saga_id = office.start(two())
    office.lose(office.claim(saga_id, "reserve"))
    begin_again(1)
    before = office.claim(saga_id, "reserve", attempt=2)
    reason = office.reason(saga_id, "running")
    assert "Attempt 1 was lost at 20" in reason["text"]
    assert "b@vm was silent until its lease ended." in reason["text"]
    assert (reason["earlier"]["attempt"], reason["earlier"]["worker"]) == (1, "b@vm")
    office.fail(before, retryable=True)
    begin_again(2)
    office.claim(saga_id, "reserve", attempt=3)
    reason = office.reason(saga_id, "running")
    assert "BankDown: the bank does not answer." in reason["text"]
    assert reason["earlier"]["error"] == "BankDown: the bank does not answer"
    assert "Attempt 1" not in reason["text"]


def test_a_parked_step_says_that_its_definition_has_changed_since(office: Office) -> None:
    """A retry uses the saga's first definition; `attention` says so, too."""
    catalog, run = Catalog(office.runtime.clock), office.runtime.edge.run
    workflow = two()
    saga_id = office.start(workflow)
    run(
        office.runtime.host.sweeper.resender.park(
            saga_id, AttemptRef(Kind.RUN, "reserve", 1), "explain.do"
        )
    )
    changed = workflow.model_copy(update={"description": "mended"})
    try:
        for now, told in ((workflow, False), (changed, True)):
            run(catalog.publish("new@vm", ["io"], [now]))
            reason = office.reason(saga_id, "parked")
            text = reason["text"]
            assert reason["definition_changed"] is told
            assert ("keeps the definition of" in text and "resolve or skip" in text) == told
            rows = [each for each in office.runtime.call("attention") if each["step"]]
            (row,) = [each for each in rows if each["transaction_id"] == saga_id]
            assert ("keeps the definition" in row["reason"]) == told
    finally:
        run(catalog.withdraw("new@vm"))


def test_a_broker_that_does_not_answer_keeps_nothing_else_untold(office: Office) -> None:
    """Only the queue's length is missing."""

    def away(queue: QueueHead) -> Backlog:
        raise ConnectionRefusedError("nobody there")

    office.worker_runs("io")
    saga_id = office.start(two())
    host = Host(
        Edge(office.url, perform=lambda effect: depth_of(away, effect)),
        settings=office.runtime.settings,
        clock=office.runtime.clock,
        catalog=office.runtime.catalog,
        check_input=check_input,
    )
    told = host.call("explain", saga_id)
    assert "the broker's queues cannot be read from here" in told["text"]
    host.edge.close()


def test_branches_that_wait_for_a_slot_are_told(office: Office) -> None:
    """A fan-out sends only as many branches as there are slots."""
    office.worker_runs("io")
    office.runtime.edge.run(office.runtime.catalog.refresh(force=True))
    branches = [(f"b{number}", "explain.do") for number in range(9)]
    wide = WorkflowBuilder("explain-wide").parallel(branches).build()
    told = office.explain(office.start(wide))
    codes = [reason["code"] for reason in told["reasons"]]
    assert (codes.count("queued"), codes.count("held_back")) == (2, 3)
    assert "4 more are dispatched" in told["text"]
    assert "2 slots of queue 'io'" in told["text"]
