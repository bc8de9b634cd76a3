"""Does `explain` say why a saga is where it is, and what would move it?

The server is real; calls of the engine play the workers.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

import redis

from multiagents import WorkflowBuilder
from multiagents.core.states import Kind
from multiagents.worker_sdk.attempt import verdict_of
from tests.support.command_line import cli
from tests.support.explained import two
from tests.support.office import Office

# ---- under way ----


def test_a_running_step_has_a_host_a_lease_and_progress(office: Office) -> None:
    """`explain` gives start, end of lease and the last heartbeat."""
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
    """The text counts the tries."""
    saga_id = office.start(two())
    office.fail(office.claim(saga_id, "reserve"), retryable=True)
    reason = office.reason(saga_id, "retrying")
    assert "waits for try 2 of 3" in reason["text"]
    assert "last error: BankDown: the bank does not answer" in reason["text"]
    assert (reason["tries"], reason["max_attempts"]) == (1, 3)


def test_an_undo_tells_the_tries_that_its_error_allows(office: Office) -> None:
    """A mistake in its code allows three tries, although the policy has ten (rule 5)."""
    saga_id = office.start(two())
    office.fail(office.claim(saga_id, "reserve"))
    held = office.claim(saga_id, "reserve", Kind.UNDO)
    mistake = verdict_of(KeyError("sku"), Kind.UNDO)
    office.runtime.host.engine.fail(held, mistake, go_on=False)
    assert "waits for try 2 of 3" in office.reason(saga_id, "retrying")["text"]


def test_a_pause_tells_by_whom_and_why(office: Office) -> None:
    """The text says how to resume."""
    saga_id = office.start(two())
    office.runtime.call("pause", saga_id, by="ada", reason="bank is down")
    reason = office.reason(saga_id, "paused")
    assert "paused by ada at" in reason["text"]
    assert "'bank is down'" in reason["text"]
    assert reason["commands"] == [f"multiagents resume {saga_id}"]


def test_going_backward_tells_why_and_what_is_undone_now(office: Office) -> None:
    """The text names the running undo and its dependencies."""
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
    """An ended saga's text has the cause and the end of its retention."""
    done, cancelled = office.start(two()), office.start(two())
    office.succeed(done, "reserve")
    office.succeed(done, "summarize")
    assert office.explain(done)["commands"] == [f"multiagents rollback {done}"]
    office.runtime.call("cancel", cancelled, by="ada", reason="customer called")
    told = office.explain(cancelled)
    assert told["state"] == "cancelled"
    assert "it was cancelled by ada at" in told["text"]
    assert told["commands"] == []


# ---- parked ----


def parked(office: Office) -> str:
    """A saga whose undo is parked."""
    saga_id = office.start(two())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "summarize"))
    office.fail(office.claim(saga_id, "reserve", Kind.UNDO))
    return saga_id


def test_what_is_parked_gives_commands_that_work(office: Office) -> None:
    """Each command works once its reason is filled in."""
    for number in range(3):
        saga_id = parked(office)
        reason = office.reason(saga_id, "parked")
        assert "parked since" in reason["text"]
        command = shlex.split(reason["commands"][number].replace("...", "by phone"))
        done = cli(*command[1:], url=office.url)
        assert done.code == 0, done.err
        assert saga_id in done.out
        assert not any(each["code"] == "parked" for each in office.explain(saga_id)["reasons"])


def test_an_attempt_that_succeeds_after_it_was_given_up_is_told(office: Office) -> None:
    """Its step stays parked, and the operator sees that it succeeded."""
    workflow = (
        WorkflowBuilder("explain-late")
        .add_step("pay", "explain.do", pivot=True)
        .add_step("mail", "explain.do", retry=1)
        .build()
    )
    saga_id = office.start(workflow)
    office.succeed(saga_id, "pay")
    held = office.claim(saga_id, "mail")
    office.lose(held)
    assert office.reason(saga_id, "parked")["late_successes"] == []
    assert "reported success" not in office.explain(saga_id)["text"]
    assert office.runtime.call("dead_letters", saga_id=saga_id)[0]["result"] is None
    office.runtime.host.engine.succeed(held, '{"sent": 1}', go_on=False)
    reason = office.reason(saga_id, "parked")
    assert "Attempt 1 reported success at" in reason["text"]
    assert (
        "after it was given up: its effect has probably happened. Only an operator"
        in reason["text"]
    )
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
    assert letter["result"] == {"sent": 1}


def test_an_undo_that_succeeds_after_it_was_given_up_is_told(office: Office) -> None:
    """Only the undo's success counts as late, not the step's own."""
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
    office.lose(held)
    assert office.reason(saga_id, "parked")["late_successes"] == []
    office.runtime.host.engine.succeed(held, "{}", go_on=False)
    reason = office.reason(saga_id, "parked")
    assert [each["attempt"] for each in reason["late_successes"]] == [1]
    (letter,) = office.runtime.call("dead_letters", saga_id=saga_id)
    assert letter["late_successes"] == reason["late_successes"]


def test_explaining_changes_nothing(office: Office) -> None:
    """`explain` leaves every key unchanged."""

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


def test_the_command_prints_paragraphs_or_the_reasons(office: Office) -> None:
    """Programs get a line per paragraph or full JSON; an unknown saga is wrong use."""
    saga_id = parked(office)
    done = cli("explain", saga_id, url=office.url)
    assert done.code == 0
    assert done.out.startswith(f"Saga {saga_id} of workflow 'explain-two' ended failed")
    told = cli("explain", saga_id, "--json", url=office.url).json
    keys = {"transaction_id", "workflow", "state", "summary", "text", "reasons", "commands"}
    assert told.keys() == keys
    paragraphs = done.out.rstrip("\n").split("\n\n")
    assert len(paragraphs) == 1 + len(told["reasons"]) + 1
    assert paragraphs[-1].split("\n  ") == ["What you can do:", *told["commands"]]
    assert told["text"].split("\n\n")[-1] == paragraphs[-1]
    assert {"code", "text", "step", "kind", "at", "commands"} <= told["reasons"][0].keys()
    missing = cli("explain", "no-such-saga", url=office.url)
    assert (missing.code, missing.out) == (2, "")
