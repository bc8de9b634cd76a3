"""Does eager mode run everything in one process, without a server?"""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery

from multiagents import (
    NonRetryableError,
    SagaFailed,
    UnknownWorker,
    UnknownWorkflow,
    WorkflowBuilder,
    app,
    attach,
    sagas,
    start_saga,
    task,
    worker,
)
from multiagents.core.exceptions import NoServer
from multiagents.core.ids import fresh_id
from multiagents.core.settings import Settings
from tests.support import basic_workers  # noqa: F401 - registers "echo" and others
from tests.support.values import EXPECTED, GIVEN, REFUSED, STORED

RUNS: list[str] = []


@worker("count")
def count(context):
    RUNS.append(context.step)
    return {context.step: context.attempt, "progress": context.heartbeat(0.5, "half")}


@app.task(name="eager.plain")
def plain(amount):
    return amount * 2


def three(**last):
    """Two steps with undo and a last one."""
    return (
        WorkflowBuilder("three")
        .add_step("one", "echo", compensation="undo_echo")
        .add_step("two", "echo", compensation="undo_echo")
        .add_step("three", "echo", **last)
        .build()
    )


def test_delay_returns_the_outcome(saga_lab):
    """``start_saga.delay(...).get()`` returns the saga's result, as with real workers."""
    assert start_saga.delay("echoes", {"text": "hi"}).get() == {"echo": "hi"}


def test_a_failed_saga_raises_with_its_undo_outcome(saga_lab):
    """`SagaFailed` names the step, the error and the outcome of each undo."""
    result = start_saga.delay("fails_at_two", {})
    assert result.state == "FAILURE"
    with pytest.raises(SagaFailed, match="step 'two' failed with NonRetryableError: broken"):
        result.get()


def test_retries_happen_at_once(saga_lab):
    """Back-off advances the clock and takes no real time."""
    saga_lab.fail("three", attempt=1)
    saga_lab.fail("three", attempt=2)
    saga_id = saga_lab.start(three())
    saga_lab.assert_path(saga_id, "one", "two", "three", "three", "three")
    assert saga_lab.get(saga_id)["state"] == "completed"


def test_undo_runs_backwards(saga_lab):
    """A final failure undoes the steps before it, the last one first."""
    saga_lab.fail("three", attempt=None)
    saga_id = saga_lab.start(three(retry=2))
    saga_lab.assert_path(saga_id, "one", "two", "three", "three")
    saga_lab.assert_undone(saga_id, "two", "one")
    assert saga_lab.get(saga_id)["state"] == "compensated"


def test_a_failing_undo_is_parked_and_asks_for_attention(saga_lab):
    """Rule 5: after its last attempt the other undos go on, and the saga ends failed."""
    saga_lab.fail("three", error=NonRetryableError("no"))
    saga_lab.fail("two", attempt=None, undo=True)
    saga_id = saga_lab.start(three())
    saga = saga_lab.get(saga_id)
    assert saga["state"] == "failed"
    assert saga["needs_attention"]
    assert saga["steps"]["two"]["compensation"]["state"] == "parked"
    assert saga["steps"]["two"]["compensation"]["attempts"] == 10
    assert saga["steps"]["one"]["compensation"]["state"] == "succeeded"


def test_a_plain_task_is_a_step(saga_lab):
    """A Celery task without knowledge of sagas runs eagerly, too."""
    workflow = (
        WorkflowBuilder("plain")
        .add_step("double", task("eager.plain", args=["input.amount"]))
        .add_step("last", "echo", when="steps.double.result.value == 42")
        .build()
    )
    saga_id = saga_lab.start(workflow, {"amount": 21})
    saga = saga_lab.get(saga_id)
    assert saga["step_results"]["double"] == {"value": 42}
    assert saga["steps"]["last"]["state"] == "succeeded"


def test_hundreds_of_steps_do_not_nest(saga_lab):
    """A long chain runs in a loop, below any recursion limit (E20)."""
    builder = WorkflowBuilder("long")
    for number in range(300):
        builder.add_step(f"s{number}", "count")
    saga_id = saga_lab.start(builder.build())
    assert len(saga_lab.path(saga_id)) == 300
    assert saga_lab.get(saga_id)["state"] == "completed"


def test_a_deadline_compensates(saga_lab, saga_clock):
    """Rule 8: a workflow's timeout is a failure, and includes the waits for retries."""
    workflow = (
        WorkflowBuilder("slow", timeout_s=5)
        .add_step("one", "echo", compensation="undo_echo")
        .add_step("two", "echo", retry={"max_attempts": 9, "backoff_s": 60, "jitter": False})
        .build()
    )
    saga_lab.fail("two", attempt=None)
    saga_id = saga_lab.start(workflow)
    saga = saga_lab.get(saga_id)
    assert saga["state"] == "compensated"
    assert saga["error"]["type"] == "SagaDeadline"
    saga_lab.assert_undone(saga_id, "one")


def test_a_finished_saga_is_removed_after_its_retention(saga_lab):
    """Rule 13 and E16: the saga is removed whole, and not before."""
    saga_id = saga_lab.start(three())
    saga_lab.advance(6 * 86_400)
    assert saga_lab.get(saga_id)["state"] == "completed"
    saga_lab.advance(2 * 86_400)
    with pytest.raises(LookupError, match="retention"):
        saga_lab.get(saga_id)


def test_names_that_nobody_has_are_refused_with_close_matches(saga_lab):
    """A start that cannot run stores nothing."""
    with pytest.raises(UnknownWorkflow, match="unknown workflow 'echoe'; did you mean echoes"):
        start_saga.delay("echoe", {})
    workflow = WorkflowBuilder("typo").add_step("one", "ecko").build()
    with pytest.raises(UnknownWorker, match="unknown worker 'ecko'; did you mean echo"):
        start_saga.delay(workflow, {})
    assert sagas.list() == []


def test_history_tells_what_happened(saga_lab):
    """The history has the log's entries with the state that each led to."""
    saga_id = saga_lab.start("fails_at_two")
    kinds = [(event["type"], event["step"]) for event in sagas.history(saga_id)]
    assert kinds == [
        ("started", None),
        ("saga_running", None),
        ("step_claimed", "one"),
        ("step_succeeded", "one"),
        ("step_claimed", "two"),
        ("step_failed", "two"),
        ("saga_compensating", None),
        ("undo_claimed", "two"),
        ("undo_succeeded", "two"),
        ("undo_claimed", "one"),
        ("undo_succeeded", "one"),
        ("saga_compensated", None),
    ]


def test_a_server_that_is_away_is_one_clear_error():
    """A start without a server names the URL it tried and the remedy."""
    away = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    runtime = attach(away, Settings(redis_url="redis://:secret@127.0.0.1:1/0"))
    with pytest.raises(NoServer, match=r"no Redis answers at .*127\.0\.0\.1:1/0") as caught:
        runtime.start_saga.delay("echoes", {})
    assert "secret" not in str(caught.value)


def test_values_have_the_same_form_on_every_way(saga_lab):
    """Inputs, results, checkpoints and arguments have the same form as with real workers."""
    saga = saga_lab.get(start_saga.delay("values", GIVEN).id)
    assert (saga["input"], saga["step_results"]) == (STORED, EXPECTED)


def test_a_plain_tasks_value_without_a_form_fails_its_step(saga_lab):
    """The error names the key, as with real workers."""
    with pytest.raises(SagaFailed) as failed:
        start_saga.delay("values_refused", {}).get()
    assert failed.value.error["message"].startswith(REFUSED)


def test_what_a_worker_imports_is_known_in_eager_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start by name works although the test imports no worker module."""
    (tmp_path / "eager_sagas.py").write_text(
        "from multiagents import WorkflowBuilder, worker\n"
        "@worker('eager_say')\ndef say(context): return {'said': context['word']}\n"
        "WorkflowBuilder('eager_said').add_step('say', say).build().register()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    team = Celery("team", set_as_current=False, include=["eager_sagas"])
    team.conf.task_always_eager = True
    start = attach(team, Settings()).start_saga
    assert start.delay("eager_said", {"word": "yes"}).get() == {"said": "yes"}


@app.task(name="eager.cancels")
def cancels(saga_id):
    sagas.cancel(saga_id)


@worker("eager_cancels")
def cancels_too(context):
    sagas.cancel(context.transaction_id)


@pytest.mark.parametrize("step", ["eager_cancels", task("eager.cancels", args=["input.saga_id"])])
def test_a_step_may_steer_its_own_saga(saga_lab, saga_clock, step):
    """The action takes effect at the step's end, without any wait."""
    flow = WorkflowBuilder("eager_cancelled").add_step("ask", step).add_step("more", step).build()
    began_ms, saga_id = saga_clock.now_ms(), fresh_id()
    saga_lab.start(flow, {"saga_id": saga_id}, task_id=saga_id)
    assert saga_lab.get(saga_id)["state"] == "cancelled"
    assert saga_lab.get(saga_id)["steps"]["ask"]["attempts"] == 1
    assert saga_clock.now_ms() - began_ms < 1000


def test_a_result_knows_its_saga_as_with_a_worker(saga_lab):
    """All starts under one key have the same saga."""
    flow = WorkflowBuilder("eager_known").add_step("count", "count").build()
    first, second = (start_saga.delay(flow, {}, "one key") for _ in range(2))
    assert first.saga_id == second.saga_id != second.id
    assert start_saga.delay(flow, {}).saga_id != first.saga_id
    assert saga_lab.get(second.saga_id)["state"] == "completed"
