"""Is what a plain task did while Redis was away, or full, told when it is back, and never undone?

A team's task is at work when the server goes, and ends before it comes back.  What Celery itself
would do then is made short (`IMPATIENT`); the outage lasts for longer.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Reject, SoftTimeLimitExceeded

from multiagents import Workflow, WorkflowBuilder
from multiagents.core.names import COORDINATE
from multiagents.core.ports import Verdict
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.app import make_app
from multiagents.hosting.plain_reports import Held, PlainEnds
from multiagents.hosting.runtime import Runtime, attach
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.sagas import Attempt
from tests.support.celery_rig import BUSY_TEAM, DEADLINE_S, QUICK, CeleryRig, failures, plain
from tests.support.command_line import NO_SERVER
from tests.support.outage import without
from tests.support.processes import Worker, wait_for

IMPATIENT = {
    **BUSY_TEAM,
    "broker_transport_options": {"visibility_timeout": 900, "max_retries": 1},
    "task_publish_retry": False,
}
"""Celery sends once, and then takes the task for a failed one."""
KEPT = "a report is kept until it can be stored"
OFTEN = 6
"""So many tries of a report take longer than all of Celery's."""
SHORT_S = 10.0
"""A time-out that decides."""
POOLS = ("prefork", "threads", "solo")


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One that may die."""
    with EmbeddedServer(tmp_path_factory.mktemp("away"), appendfsync="always") as running:
        yield running


@pytest.fixture
def rig(own_server: EmbeddedServer, tmp_path: Path) -> Iterator[CeleryRig]:
    made = CeleryRig(own_server.url, 0, tmp_path)
    yield made
    made.close()


def one_step(name: str, **options: Any) -> Workflow:
    target = plain(name, **options)
    return WorkflowBuilder(f"away_{name}").add_step("b", target, retry=QUICK).build()


def at_work(rig: CeleryRig, name: str, **options: Any) -> str:
    """A saga whose plain task has begun, and waits for the gate of its name."""
    saga_id = rig.begin(one_step(name, **options))
    wait_for(lambda: rig.runs(saga_id, name), DEADLINE_S, "the task")
    return saga_id


def wait_kept(worker: Worker, times: int = OFTEN) -> None:
    wait_for(lambda: worker.log.count(KEPT) >= times, DEADLINE_S, "a report that is kept")


@pytest.mark.processes
@pytest.mark.parametrize("pool", POOLS)
def test_a_plain_task_that_ends_while_its_server_is_away_has_succeeded(
    own_server: EmbeddedServer, rig: CeleryRig, pool: str
) -> None:
    """One run, and nothing of a failure on record."""
    with rig.team("-P", pool, "-c", "1", conf=IMPATIENT) as worker:
        worker.wait_ready()
        saga_id = at_work(rig, "gate")
        with without(own_server, "away"):
            rig.open(saga_id)
            wait_kept(worker)
        saga = rig.wait_settled(saga_id, DEADLINE_S)
        assert worker.process.poll() is None
    assert (saga["state"], saga["result"]) == ("completed", {"passed": saga_id})
    assert len(rig.runs(saga_id, "gate")) == 1
    assert failures(rig, saga_id) == []


@pytest.mark.processes
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_plain_task_that_fails_while_its_server_is_away_has_failed(
    own_server: EmbeddedServer, rig: CeleryRig, pool: str
) -> None:
    """With its own error, long before its time-out; then its policy decides."""
    with rig.team("-P", pool, "-c", "1", conf=IMPATIENT) as worker:
        worker.wait_ready()
        saga_id = at_work(rig, "gate_breaks")
        with without(own_server, "away"):
            rig.open(saga_id)
            wait_kept(worker)
        saga = rig.wait_settled(saga_id, DEADLINE_S)
    assert (saga["state"], saga["error"]["type"]) == ("failed", "ZeroDivisionError")
    assert failures(rig, saga_id) == [("failed", 1), ("failed", 2)]


@pytest.mark.processes
def test_a_plain_task_that_ends_on_a_full_server_has_succeeded(rig: CeleryRig) -> None:
    """The server answers, and refuses to take it."""
    with rig.team("-c", "1", conf=IMPATIENT) as worker:
        worker.wait_ready()
        saga_id = at_work(rig, "gate")
        rig.redis.config_set("maxmemory", "1")
        try:
            rig.open(saga_id)
            wait_kept(worker)
        finally:
            rig.redis.config_set("maxmemory", "0")
        assert rig.wait_settled(saga_id, DEADLINE_S)["state"] == "completed"
        assert "takes no writes" in worker.log
    assert len(rig.runs(saga_id, "gate")) == 1
    assert failures(rig, saga_id) == []


@pytest.mark.processes
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_stopped_gives_it_up_after_a_while(
    own_server: EmbeddedServer, rig: CeleryRig, pool: str
) -> None:
    """As for a `@worker` step; the time-out decides, and the task runs again."""
    conf = {**IMPATIENT, "imports": ["tests.support.hasty_reports"]}
    with rig.team("-P", pool, "-c", "1", conf=conf) as worker:
        worker.wait_ready()
        saga_id = at_work(rig, "gate", timeout_s=SHORT_S)
        with without(own_server, "away"):
            worker.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "Warm shutdown" in worker.log, DEADLINE_S, "the signal")
            rig.open(saga_id)
            worker.process.wait(DEADLINE_S)
            assert "a report is given up, the step's timeout decides" in worker.log
    with rig.team("-P", pool, "-c", "1", conf=IMPATIENT) as worker:
        worker.wait_ready()
        assert rig.wait_settled(saga_id, DEADLINE_S + SHORT_S)["state"] == "completed"
    assert len(rig.runs(saga_id, "gate")) == 2
    assert failures(rig, saga_id) == [("lost", 1)]


# ---- what is told, in one thread ----


class Engine:
    """What is reported, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def plain_ended(
        self, saga_id: str, task_id: str, result: str, *, attempts: Held = None
    ) -> None:
        self.told.append((task_id, result))

    def fail_delivery(
        self, saga_id: str, delivery: str, verdict: Verdict, *, decide: bool, attempts: Held = None
    ) -> bool:
        self.told.append((delivery, verdict.failure.type))
        return True


class Cut:
    """A way of persisting that is stopped by these errors before it works."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, report: Callable[[], Any], **told: str) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return report()


def ends(engine: Engine, *errors: Exception) -> PlainEnds:
    return PlainEnds(engine, persist=Cut(*errors), limit=1000)


def held() -> list[Attempt]:
    return [Attempt("s", Kind.RUN, "a", 1, "n1")]


def test_a_time_limits_signal_while_an_end_is_kept_changes_nothing() -> None:
    """It was meant for the function, which is over; the same for a failure."""
    engine = Engine()
    ends(engine, SoftTimeLimitExceeded()).returned("s", "d", {"ok": 1}, held())
    ends(engine, SoftTimeLimitExceeded()).failed("s", "e", ValueError("no"), held())
    assert engine.told == [("d", '{"ok":1}'), ("e", "ValueError")]


def test_a_success_whose_report_was_cut_short_is_told_by_the_errback() -> None:
    """Celery calls the errback with any error; after one report nothing follows."""
    engine, mine = Engine(), held()
    kept = ends(engine, RuntimeError("anything"))
    with pytest.raises(RuntimeError, match="anything"):
        kept.returned("s", "d", 7, mine)
    for _ in range(2):
        kept.failed("s", "d", RuntimeError("anything"), mine)
    assert engine.told == [("d", '{"value":7}')]


def test_a_success_that_is_given_up_is_no_failure() -> None:
    """The link's message has it then, or the time-out decides."""
    engine, mine = Engine(), held()
    kept = ends(engine, UNREACHABLE[0]("away"))
    with pytest.raises(UNREACHABLE[0]):
        kept.returned("s", "d", {}, mine)
    kept.failed("s", "d", OSError("no broker either"), mine)
    assert engine.told == []


def test_another_run_of_the_same_delivery_fails_by_itself() -> None:
    """A late ack brings the same attempt twice, perhaps to the same thread."""
    engine = Engine()
    kept = ends(engine)
    kept.returned("s", "d", {}, held())
    kept.failed("s", "d", ValueError("no"), held())
    assert engine.told == [("d", "{}"), ("d", "ValueError")]


def test_a_result_that_cannot_be_stored_is_a_failure() -> None:
    """It is larger than the limit."""
    engine = Engine()
    ends(engine).returned("s", "d", "x" * 2000, held())
    assert engine.told == [("d", "InvalidResult")]


def test_a_message_about_an_end_leaves_its_slot(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried once and delivered again, so it does not block a slot that others need."""
    runtime = attach(make_app(Settings(redis_url=redis_url)))
    task = runtime.app.tasks[COORDINATE]
    told: list[str] = []

    def once(saga_id: str, task_id: str, result: Any, held: Held) -> None:
        told.append(task_id)
        raise UNREACHABLE[0]("away")

    def insist(task: Any, act: Callable[[], None]) -> None:
        with pytest.raises(UNREACHABLE):
            act()

    monkeypatch.setattr(runtime.plain_ends, "report", once)
    monkeypatch.setattr(runtime.insistence, "insist", insist)
    task.run({}, saga_id="s", task_id="t")
    assert told == ["t"]


def test_a_process_that_has_not_run_the_task_does_not_wait() -> None:
    """E20: Celery calls errbacks in a worker's main process, too, as for a `Reject`."""
    settings = Settings(redis_url=NO_SERVER)
    runtime = Runtime(make_app(settings), settings)
    with pytest.raises(UNREACHABLE):
        runtime.failures.report("s", "d", Reject("not mine"), "team.reject")
