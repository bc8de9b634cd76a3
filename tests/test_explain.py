"""Does `explain` tell why a saga is where it is, and what would move it?

Over the real server; what workers would do is done by calls of the engine, one by one.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from multiagents import WorkflowBuilder, task, worker
from multiagents.bootstrap import Runtime, runtime_at
from multiagents.core.entries import Failure, Lost
from multiagents.core.ports import Assignment, Verdict
from multiagents.core.states import Kind
from multiagents.orchestrator.host import Host
from multiagents.orchestrator.letters import list_of
from multiagents.orchestrator.plain import NOT_SENT
from multiagents.orchestrator.workflow import Workflow
from multiagents.storage import keys as k
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.worker_sdk.validation import check_input
from tests.processes import wait_for
from tests.support.command_line import cli

FLEET = Shard(0).catalog("fleet")
BOOM = Failure("BankDown", "the bank does not answer")


@worker("explain.do")
def do(context: Any) -> dict[str, Any]:
    return {}


@worker("explain.think", queue="llm")
def think(context: Any) -> dict[str, Any]:
    return {}


def two(**options: Any) -> Workflow:
    """A step that can be undone, and one that asks a language model."""
    return (
        WorkflowBuilder("explain-two", **options)
        .add_step("reserve", "explain.do", compensation="explain.do")
        .add_step("summarize", "explain.think")
        .build()
    )


class Office:
    """One process that has begun to work on a saga."""

    def __init__(self, url: str) -> None:
        self.runtime: Runtime = runtime_at(url)
        self.url = url

    def start(self, workflow: Workflow) -> str:
        saga_id: str = self.runtime.call("start", workflow, {})
        return saga_id

    def worker_runs(self, *queues: str, functions: tuple[str, ...] = ("explain.do",)) -> None:
        """Let a worker with two slots have told that it is alive."""
        about = {
            "at_ms": round(time.time() * 1000),
            "queues": list(queues),
            "slots": 2,
            "workers": dict.fromkeys(functions, queues[0]),
        }
        with redis.Redis.from_url(self.url) as client:
            client.hset(FLEET, "celery@one", json.dumps(about))

    def claim(self, saga_id: str, step: str, kind: Kind = Kind.RUN, attempt: int = 1) -> Assignment:
        held = self.runtime.host.engine.claim(
            saga_id, kind, step, attempt, delivery="d", queue="io"
        )
        assert held is not None
        return held

    def succeed(self, saga_id: str, step: str) -> None:
        held = self.claim(saga_id, step)
        self.runtime.host.engine.succeed(held, "{}", go_on=False)

    def fail(self, held: Assignment, *, retryable: bool = False) -> None:
        verdict = Verdict(BOOM, retryable=retryable)
        self.runtime.host.engine.fail(held, verdict, go_on=False)

    def explain(self, saga_id: str) -> dict[str, Any]:
        told: dict[str, Any] = self.runtime.call("explain", saga_id)
        return told

    def reason(self, saga_id: str, code: str) -> dict[str, Any]:
        """The one reason of that code."""
        told = self.explain(saga_id)
        found = [reason for reason in told["reasons"] if reason["code"] == code]
        assert len(found) == 1, told
        assert found[0]["text"] in told["text"]
        return found[0]


@pytest.fixture
def office(redis_url: str) -> Iterator[Office]:
    """An office with nobody else at work."""
    found = Office(redis_url)
    yield found
    with redis.Redis.from_url(redis_url) as client:
        client.delete(FLEET)


# ---- sent, and not begun ----


def test_without_any_worker_it_says_how_to_start_one(office: Office) -> None:
    """The queue of the step is named in the command."""
    reason = office.reason(office.start(two()), "no_worker")
    assert (reason["step"], reason["queue"]) == ("reserve", "io")
    assert reason["commands"] == ["celery -A multiagents worker -Q io"]
    assert "sent to queue 'io'" in reason["text"]
    assert reason["at"]


def test_a_queue_that_nobody_consumes_is_named(office: Office) -> None:
    """With those that run and what they consume."""
    office.worker_runs("io")
    saga_id = office.start(two())
    office.succeed(saga_id, "reserve")
    reason = office.reason(saga_id, "no_consumer")
    assert reason["queue"] == "llm"
    assert "nobody consumes that queue; running: celery@one (io)" in reason["text"]
    assert reason["commands"] == ["celery -A multiagents worker -Q llm"]


def test_a_function_that_no_worker_has_is_named(office: Office) -> None:
    """A worker that was deployed without the module."""
    office.worker_runs("io", functions=("other",))
    reason = office.reason(office.start(two()), "unknown_function")
    assert "no running worker has the function 'explain.do'" in reason["text"]


def test_messages_before_it_are_counted(office: Office) -> None:
    """A long queue is not a fault; the slots that empty it are told."""
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
    """It is looked at again at a time that is told."""
    office.worker_runs("io")
    saga_id = office.start(two())
    with redis.Redis.from_url(office.url) as client:
        client.delete("io")
    assert "the queue is empty" in office.reason(saga_id, "sent")["text"]


def test_a_broker_that_does_not_answer_keeps_nothing_else_untold(office: Office) -> None:
    """Only the length of the queue is missing."""

    def away(effect: Any) -> Any:
        raise ConnectionRefusedError("nobody there")

    office.worker_runs("io")
    saga_id = office.start(two())
    host = Host(
        Edge(office.url, perform=away),
        settings=office.runtime.settings,
        clock=office.runtime.clock,
        catalog=office.runtime.catalog,
        check_input=check_input,
    )
    told = host.call("explain", saga_id)
    assert "the broker cannot be looked into" in told["text"]
    host.edge.close()


def test_branches_that_wait_for_a_slot_are_told(office: Office) -> None:
    """Of a fan-out only as many are sent as there are slots."""
    office.worker_runs("io")
    office.runtime.edge.run(office.runtime.catalog.refresh(force=True))
    branches = [(f"b{number}", "explain.do") for number in range(9)]
    wide = WorkflowBuilder("explain-wide").parallel(branches).build()
    told = office.explain(office.start(wide))
    codes = [reason["code"] for reason in told["reasons"]]
    assert (codes.count("queued"), codes.count("held_back")) == (2, 3)
    assert "4 more are dispatched" in told["text"]
    assert "2 slots of queue 'io'" in told["text"]


# ---- under way ----


def test_a_running_step_has_a_host_a_lease_and_progress(office: Office) -> None:
    """Since when, until when, and what its heartbeat said."""
    saga_id = office.start(two(timeout_s=60))
    held = office.claim(saga_id, "reserve")
    notes = {held.nonce: {"p:reserve": json.dumps({"progress": 0.4, "note": "page 4"})}}
    office.runtime.host.engine.renew([held], notes)
    reason = office.reason(saga_id, "running")
    assert "Step 'reserve' (attempt 1) has been running" in reason["text"]
    assert "at 40%, page 4" in reason["text"]
    assert "its lease lasts until" in reason["text"]
    assert reason["at"]
    assert office.reason(saga_id, "waiting")["steps"] == ["summarize"]
    assert "then what it did is undone" in office.reason(saga_id, "deadline")["text"]


def test_a_retry_tells_its_time_and_the_last_error(office: Office) -> None:
    """Which try of how many."""
    saga_id = office.start(two())
    office.fail(office.claim(saga_id, "reserve"), retryable=True)
    reason = office.reason(saga_id, "retrying")
    assert "waits for try 2 of 3" in reason["text"]
    assert "last error: BankDown: the bank does not answer" in reason["text"]
    assert (reason["tries"], reason["max_attempts"]) == (1, 3)


def test_a_pause_tells_by_whom_and_why(office: Office) -> None:
    """And how to resume."""
    saga_id = office.start(two())
    office.runtime.call("pause", saga_id, by="ada", reason="bank is down")
    reason = office.reason(saga_id, "paused")
    assert "paused by ada at" in reason["text"]
    assert "'bank is down'" in reason["text"]
    assert reason["commands"] == [f"multiagents resume {saga_id}"]


def test_going_backward_tells_why_and_what_is_undone_now(office: Office) -> None:
    """The undo under way, and what it waits for."""
    saga_id = office.start(two())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "summarize"))
    text = office.explain(saga_id)["text"]
    assert "being undone because step 'summarize' failed with BankDown" in text
    assert "The undo of 'reserve' (attempt 1)" in text
    held = office.claim(saga_id, "reserve", Kind.UNDO)
    assert "The undo of 'reserve' (attempt 1) has been running" in office.explain(saga_id)["text"]
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    ended = office.reason(saga_id, "ended")
    assert "Undo: reserve succeeded" in ended["text"]
    assert ended["error"]["type"] == "BankDown"
    assert ended["kept_until"]


def test_a_completed_saga_can_be_rolled_back_and_a_cancelled_one_says_by_whom(
    office: Office,
) -> None:
    """Ends tell how, why, and until when they are kept."""
    done, cancelled = office.start(two()), office.start(two())
    office.succeed(done, "reserve")
    office.succeed(done, "summarize")
    assert office.explain(done)["commands"] == [f"multiagents rollback {done}"]
    office.runtime.call("cancel", cancelled, by="ada", reason="customer called")
    told = office.explain(cancelled)
    assert told["state"] == "cancelled"
    assert "it was cancelled by ada at" in told["text"]
    assert told["commands"] == []


# ---- plain tasks, which are claimed when they are sent ----


def paying(**options: Any) -> Workflow:
    """A step that is the team's own Celery task."""
    pay = task("team.pay", **{"queue": "billing", "timeout_s": 60, **options})
    return WorkflowBuilder("explain-pay").add_step("pay", pay).build()


def test_a_plain_task_that_waits_is_not_said_to_run(office: Office) -> None:
    """When it was sent and where to, what waits there, and when its time-out decides."""
    saga_id = office.start(paying())
    reason = office.reason(saga_id, "unreported")
    text = reason["text"]
    assert text.startswith("Step 'pay' (attempt 1) is the Celery task 'team.pay'. It was sent ")
    assert "ago to queue 'billing' and has not reported; whether it has begun is not known" in text
    assert "1 message waits there, perhaps its own." in text
    assert "If it does not report, its time-out decides, at" in text
    assert "running for" not in office.explain(saga_id)["text"]
    assert (reason["step"], reason["kind"], reason["worker_function"]) == (
        "pay",
        "step",
        "team.pay",
    )
    assert (reason["queue"], reason["waiting"], reason["consumers"]) == ("billing", 1, [])
    assert reason["sent_at"] < reason["at"]
    office.start(paying())
    assert "2 messages wait there, perhaps its own among them" in office.explain(saga_id)["text"]


def test_of_a_plain_tasks_queue_only_what_is_known_is_said(office: Office) -> None:
    """Workers of its app without `attach` tell nobody that they run: they may consume it."""
    office.worker_runs("io")
    saga_id = office.start(paying())
    unseen = office.reason(saga_id, "unreported")
    assert (
        "No running worker that hosts sagas consumes that queue; whether another" in unseen["text"]
    )
    assert "nobody consumes" not in unseen["text"]
    assert unseen["commands"] == []
    office.worker_runs("billing")
    with redis.Redis.from_url(office.url) as client:
        client.delete("billing")
    taken = office.reason(saga_id, "unreported")
    assert "consumed by celery@one, with 2 slots" in taken["text"]
    assert "the queue is empty, so a worker has the message, at work on it or not" in taken["text"]
    assert (taken["waiting"], taken["consumers"]) == (0, ["celery@one"])


def test_a_plain_tasks_own_priority_hides_no_message(office: Office) -> None:
    """Its app may have given it one: the message lies in another list of its queue."""
    saga_id = office.start(paying())
    with redis.Redis.from_url(office.url) as client:
        client.rename("billing", list_of("billing", 9))
    assert office.reason(saga_id, "unreported")["waiting"] == 1


def test_a_plain_task_that_its_app_routes_has_no_queue_that_is_known(office: Office) -> None:
    """Neither the task nor the step names one; the step's holds for the undo too."""
    reason = office.reason(office.start(paying(queue=None)), "unreported")
    assert "sent" in reason["text"]
    assert "to the queue that the routes of its app give it" in reason["text"]
    assert (reason["queue"], reason["waiting"], reason["consumers"]) == (None, None, [])
    undone = (
        WorkflowBuilder("explain-repay")
        .add_step("pay", "explain.do", queue="shop", compensation=task("team.repay", timeout_s=60))
        .add_step("send", "explain.do")
        .build()
    )
    saga_id = office.start(undone)
    office.succeed(saga_id, "pay")
    office.fail(office.claim(saga_id, "send"))
    repaid = office.reason(saga_id, "unreported")
    assert repaid["text"].startswith(
        "The undo of 'pay' (attempt 1) is the Celery task 'team.repay'"
    )
    assert (repaid["queue"], repaid["kind"]) == ("shop", "undo")


def test_a_plain_task_that_was_perhaps_not_sent_says_so(office: Office) -> None:
    """Whoever claimed it may have died before its message was out: it is never sent again."""
    saga_id = office.start(paying())
    work = office.runtime.host.coordinator.keys(saga_id).work
    with redis.Redis.from_url(office.url, decode_responses=True) as client:
        claim = str(client.hget(work, k.claim_field(Kind.RUN, "pay")))
        head, _, delivery = claim.rpartition("|")
        client.hset(work, k.claim_field(Kind.RUN, "pay"), f"{head}|{NOT_SENT}{delivery}")
    reason = office.reason(saga_id, "not_sent")
    assert "Its message is not known to be sent, and is not sent again." in reason["text"]
    assert "its time-out decides, at" in reason["text"]
    assert reason["sent_at"] is None


def test_a_plain_task_whose_time_is_over_waits_for_a_sweep(office: Office) -> None:
    """Without a worker nobody notices."""
    saga_id = office.start(paying(timeout_s=0.05))
    wait_for(lambda: "was over at" in office.explain(saga_id)["text"], 5.0, "the time-out")
    assert "no worker runs to notice it" in office.reason(saga_id, "unreported")["text"]


def test_the_command_tells_of_a_plain_task(office: Office) -> None:
    """The same for people and for programs."""
    saga_id = office.start(paying())
    told = cli("explain", saga_id, url=office.url).out
    assert "is the Celery task 'team.pay'. It was sent" in told
    assert "its time-out decides" in told
    (reason,) = cli("explain", saga_id, "--json", url=office.url).json["reasons"]
    assert (reason["code"], reason["queue"], reason["waiting"]) == ("unreported", "billing", 1)


# ---- parked ----


def parked(office: Office) -> str:
    """A saga whose undo is parked."""
    saga_id = office.start(two())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "summarize"))
    office.fail(office.claim(saga_id, "reserve", Kind.UNDO))
    return saga_id


def test_what_is_parked_gives_commands_that_work(office: Office) -> None:
    """As they stand, but for the reason."""
    for number in range(3):
        saga_id = parked(office)
        reason = office.reason(saga_id, "parked")
        assert "parked since" in reason["text"]
        command = shlex.split(reason["commands"][number].replace("...", "by phone"))
        done = cli(*command[1:], url=office.url)
        assert done.code == 0, done.err
        assert saga_id in done.out
        assert not any(each["code"] == "parked" for each in office.explain(saga_id)["reasons"])


def lose(office: Office, held: Assignment) -> None:
    """Its lease runs out, and a sweep notices."""
    now_ms = office.runtime.clock.now_ms()
    lost = Lost(now_ms, held.kind, held.step, held.attempt, held.nonce)
    office.runtime.edge.run(office.runtime.host.coordinator.append(held.saga_id, lost))


def test_an_attempt_that_succeeds_after_it_was_given_up_is_told(office: Office) -> None:
    """Its step stays parked, but whoever decides must know that it is done."""
    workflow = (
        WorkflowBuilder("explain-late")
        .add_step("pay", "explain.do", pivot=True)
        .add_step("mail", "explain.do", retry=1)
        .build()
    )
    saga_id = office.start(workflow)
    office.succeed(saga_id, "pay")
    held = office.claim(saga_id, "mail")
    lose(office, held)
    assert office.reason(saga_id, "parked")["late_successes"] == []
    assert "reported success" not in office.explain(saga_id)["text"]
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    reason = office.reason(saga_id, "parked")
    assert "Attempt 1 reported success at" in reason["text"]
    assert "after it was given up: what it does may well be done. Only a person" in reason["text"]
    (late,) = reason["late_successes"]
    (event,) = [
        each
        for each in office.runtime.call("history", saga_id)
        if (each["type"], each["step"]) == ("step_succeeded", "mail")
    ]
    assert late == {"attempt": 1, "at": event["at"]}
    shown = cli("dead-letters", "show", saga_id, url=office.url)
    assert f"attempt 1 at {late['at']}, after it was given up" in shown.out
    letter = cli("dead-letters", "show", saga_id, "--json", url=office.url).json
    assert letter["late_successes"] == [late]


def test_an_undo_that_succeeds_after_it_was_given_up_is_told(office: Office) -> None:
    """Of the undo alone: that the step itself has succeeded is nothing late."""
    workflow = (
        WorkflowBuilder("explain-late-undo")
        .add_step("pay", "explain.do", compensation="explain.do", compensation_retry=1)
        .add_step("mail", "explain.do")
        .build()
    )
    saga_id = office.start(workflow)
    office.succeed(saga_id, "pay")
    office.fail(office.claim(saga_id, "mail"))
    held = office.claim(saga_id, "pay", Kind.UNDO)
    lose(office, held)
    assert office.reason(saga_id, "parked")["late_successes"] == []
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    reason = office.reason(saga_id, "parked")
    assert [each["attempt"] for each in reason["late_successes"]] == [1]
    (letter,) = office.runtime.call("dead_letters", saga_id=saga_id)
    assert letter["late_successes"] == reason["late_successes"]


def test_explaining_changes_nothing(office: Office) -> None:
    """Reads only: every key is as before."""

    def everything() -> dict[bytes, Any]:
        with redis.Redis.from_url(office.url) as client:
            return {key: client.dump(key) for key in client.keys("*")}

    office.worker_runs("io")
    sagas = [parked(office), office.start(two())]
    office.runtime.call("pause", sagas[1])
    before = everything()
    for saga_id in sagas:
        office.explain(saga_id)
    assert everything() == before


# ---- the command ----


def test_the_command_prints_a_paragraph_or_the_reasons(office: Office) -> None:
    """One line for people; the same and more as JSON; an unknown saga is wrong use."""
    saga_id = parked(office)
    done = cli("explain", saga_id, url=office.url)
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert done.out.startswith(f"Saga {saga_id} of workflow 'explain-two' ended failed")
    told = cli("explain", saga_id, "--json", url=office.url).json
    assert told.keys() == {"transaction_id", "workflow", "state", "text", "reasons", "commands"}
    assert {"code", "text", "step", "kind", "at", "commands"} <= told["reasons"][0].keys()
    missing = cli("explain", "no-such-saga", url=office.url)
    assert (missing.code, missing.out) == (2, "")
