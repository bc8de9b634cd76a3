"""Does a waiting caller learn that its saga needs an operator?"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError

from multiagents import WorkflowBuilder, worker
from multiagents.cli.commands import watch
from multiagents.core.states import Kind
from multiagents.storage.client import UNREACHABLE
from multiagents.transport.async_result import SagaResult
from multiagents.workflows.workflow import Workflow
from tests.support.command_line import cli
from tests.support.office import Office


@worker("person.do")
def do(context: Any) -> dict[str, Any]:
    return {}


def paid() -> Workflow:
    """The failure after its first step is parked."""
    return (
        WorkflowBuilder("person-paid")
        .add_step("pay", "person.do", pivot=True)
        .add_step("mail", "person.do")
        .build()
    )


def reserved() -> Workflow:
    """Its first step has an undo."""
    return (
        WorkflowBuilder("person-reserved")
        .add_step("reserve", "person.do", compensation="person.do")
        .add_step("pay", "person.do")
        .build()
    )


def park_step(office: Office, saga_id: str) -> None:
    office.succeed(saga_id, "pay")
    office.fail(office.claim(saga_id, "mail"))


@pytest.fixture
def acts(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """One action on every third look of the command line at a saga."""
    left: list[Callable[[], None]] = []
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) % 3 == 0:
            left.pop(0)()

    clock = SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
    monkeypatch.setattr(watch, "time", clock)
    return left


def test_watch_says_once_for_what_a_person_is_awaited(
    office: Office, acts: list[Callable[[], None]]
) -> None:
    """A line on stderr appears at each change, and none while the saga moves."""
    saga_id = office.start(paid())
    call = office.runtime.call
    acts += [
        lambda: call("pause", saga_id),
        lambda: call("resume", saga_id),
        lambda: park_step(office, saga_id),
        lambda: call("retry", saga_id),
        lambda: office.fail(office.claim(saga_id, "mail", attempt=2)),
        lambda: call("skip", saga_id, reason="by phone"),
    ]
    done = cli("watch", saga_id, url=office.url)
    explain = f"  multiagents explain {saga_id}"
    assert (done.code, acts) == (0, [])
    whys = ("it is paused", "step 'mail' is parked", "step 'mail' is parked")
    assert done.err.splitlines() == [
        line for why in whys for line in (f"saga {saga_id} waits for an operator ({why}):", explain)
    ]
    assert done.out.splitlines()[-1] == f"saga {saga_id} completed"


def test_start_that_waits_says_it_and_gives_its_answer_alone_on_stdout(
    office: Office, acts: list[Callable[[], None]]
) -> None:
    """It says so once after the id; stdout has only the saga that the operator moved."""
    office.worker_runs("io", functions=("person.do",))
    workflow = paid().register()
    started = office.runtime.call("start", workflow, {}, idempotency_key="waits")
    park_step(office, started)
    acts.append(lambda: office.runtime.call("resolve", started, reason="by phone"))
    words = ("start", workflow.name, "--idempotency-key", "waits", "--wait", "--json")
    done = cli(*words, url=office.url)
    assert (done.code, done.json["transaction_id"], done.json["state"]) == (0, started, "completed")
    assert done.err.splitlines() == [
        f"saga {started}",
        f"saga {started} waits for an operator (step 'mail' is parked):",
        f"  multiagents explain {started}",
    ]


def test_a_wait_that_is_over_says_that_a_person_is_awaited(office: Office) -> None:
    """`start --wait --timeout` says so, as it says that a saga goes on."""
    office.worker_runs("io", functions=("person.do",))
    workflow = paid().register()
    parked, going = (
        office.runtime.call("start", workflow, {}, idempotency_key=key)
        for key in ("parked", "going")
    )
    park_step(office, parked)
    words = ("start", workflow.name, "--wait", "--timeout", "0", "--idempotency-key")
    done = cli(*words, "parked", url=office.url)
    assert done.code == 2
    assert f"after 0 s; it waits for an operator: see `multiagents explain {parked}`" in done.err
    assert "multiagents watch" not in done.err
    done = cli(*words, "going", url=office.url)
    assert done.code == 2
    assert f"after 0 s; it goes on: follow it with `multiagents watch {going}`" in done.err
    assert "person" not in done.err


def test_an_undo_that_is_parked_waits_for_a_person_when_its_saga_has_ended(office: Office) -> None:
    """The saga has failed, and its undo still needs an operator."""
    saga_id = office.start(reserved())
    office.succeed(saga_id, "reserve")
    office.fail(office.claim(saga_id, "pay"))
    office.fail(office.claim(saga_id, "reserve", Kind.UNDO))
    done = cli("watch", saga_id, "--json", url=office.url)
    assert (done.code, done.json["state"]) == (1, "failed")
    assert "waits for an operator (the undo of 'reserve' is parked)" in done.err


# ---- in Python ----


def delayed(office: Office, workflow: Workflow) -> Any:
    started = office.runtime.start_saga.delay(workflow, {})
    assert isinstance(started, SagaResult)
    return started


def test_a_result_that_does_not_come_in_time_says_for_what_a_person_is_awaited(
    office: Office,
) -> None:
    """The error names dead letters or a pause, or says that the saga goes on."""
    office.worker_runs("io", functions=("person.do",))
    parked, paused, going = (delayed(office, paid()) for _ in range(3))
    park_step(office, parked.id)
    office.runtime.call("pause", paused.id)
    told = {parked: r"waits for an operator \(step 'mail' is parked\), see `multiagents explain"}
    told |= {paused: r"waits for an operator \(it is paused\)", going: "it goes on$"}
    for result, says in told.items():
        with pytest.raises(
            CeleryTimeoutError, match=f"{result.id} has not ended in time: .*{says}"
        ):
            result.get(timeout=0.2)


def test_whoever_waits_in_vain_is_told_what_is_missing(office: Office) -> None:
    """The error says that no worker runs, or that none of the queue has the function."""
    result = delayed(office, paid().register())
    said = r"nothing moves it, because no worker runs: start one with `MULTIAGENTS_IMPORTS="
    with pytest.raises(CeleryTimeoutError, match=f"{result.id} has not ended in time: {said}"):
        result.get(timeout=0.2)
    office.worker_runs("io", functions=("other",))
    with pytest.raises(
        CeleryTimeoutError, match=r"no running worker has the function 'person\.do'"
    ):
        result.get(timeout=0.2)
    office.worker_runs("llm", functions=("person.do",), host="celery@two")
    said = "no worker that consumes queue 'io' has the function 'person.do'"
    with pytest.raises(CeleryTimeoutError, match=said):
        result.get(timeout=0.2)
    told = cli("start", "person-paid", "--wait", "--timeout", "0.2", url=office.url)
    assert told.code == 2
    assert "nothing moves it" in told.err


def test_a_state_server_that_is_away_holds_up_no_time_out(office: Office) -> None:
    """The message then omits the operator."""

    def away(saga_id: str) -> str:
        raise UNREACHABLE[0]("away")

    result = delayed(office, paid())
    result.outcomes.person_awaited = away
    with pytest.raises(CeleryTimeoutError, match="it goes on"):
        result.get(timeout=0.2)
