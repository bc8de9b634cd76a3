"""Does a start that travels by message wait for its server, however long that takes nothing?

``send_task`` and ``countdown`` leave nothing but a message behind.  Its broker may be the same
server, or another one that goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Reject

from multiagents import WorkflowBuilder
from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import NoServer, UnknownWorker, UnknownWorkflow
from multiagents.core.ids import fresh_id
from multiagents.core.names import START_SAGA
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.core.states import ENDED
from multiagents.devserver.server import EmbeddedServer
from multiagents.engine.catalog import Catalog
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime, attach
from multiagents.storage.connect import open_client
from multiagents.transport.redelivery import Insistence
from tests.support.celery_rig import CeleryRig
from tests.support.command_line import NO_SERVER
from tests.support.outage import without
from tests.support.processes import Worker, wait_for

DEADLINE_S = 40.0
WAITS = "messages wait for their server"
SOON_S = 2
SHORT_VISIBILITY = {
    "broker_transport_options": {
        "visibility_timeout": 3,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
    "broker_transport": "multiagents.transport.kombu_redis:SteadyTransport",
}
Outage = Callable[[EmbeddedServer], AbstractContextManager[None]]


@contextmanager
def full(server: EmbeddedServer) -> Iterator[None]:
    """It answers, and takes no writes."""
    client: Any = open_client(server.url)
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")
        client.close()


def away(server: EmbeddedServer) -> AbstractContextManager[None]:
    return without(server, "away")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The sagas' server, which may die."""
    with EmbeddedServer(tmp_path_factory.mktemp("state"), appendfsync="always") as running:
        yield running


@pytest.fixture
def runtime(rig: CeleryRig, state: EmbeddedServer) -> Iterator[Runtime]:
    """A client of both."""
    settings = Settings(redis_url=rig.url, state_urls=state.url, lease_s=2.0)
    app = make_app(settings)
    yield attach(app, settings)
    app.close()


def send(rig: CeleryRig, workflow: str = "kp_completes", **options: Any) -> str:
    """Ask for a start by a message; the saga's id."""
    options = {"queue": "io", "task_id": fresh_id(), **options}
    return str(rig.app.send_task(START_SAGA, args=[workflow, {}], **options).id)


def wait_completed(runtime: Runtime, saga_id: str) -> None:
    def end() -> str | None:
        rows = runtime.call("list")
        found = [row["state"] for row in rows if row["transaction_id"] == saga_id]
        return found[0] if found and found[0] in ENDED else None

    assert wait_for(end, DEADLINE_S, f"end of {saga_id}") == "completed"


def wait_said(worker: Worker) -> None:
    wait_for(lambda: WAITS in worker.log, DEADLINE_S, "the line")


@pytest.mark.processes
@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("outage", [away, full])
def test_a_start_waits_for_the_sagas_server(
    rig: CeleryRig, runtime: Runtime, state: EmbeddedServer, outage: Outage, pool: str
) -> None:
    """The broker goes on: its message comes again, and its slot is free; that is said once."""
    env = {"MULTIAGENTS_STATE_URLS": state.url}
    with rig.worker("-c", "1", "-P", pool, **env) as worker:
        worker.wait_ready()
        with outage(state):
            started = [send(rig) for _ in range(3)]
            wait_said(worker)
            wait_for(lambda: worker.log.count(" received") > 2 * len(started), DEADLINE_S)
        for saga_id in started:
            wait_completed(runtime, saga_id)
            assert rig.app.AsyncResult(saga_id).get(timeout=DEADLINE_S) == {"two": 1}
        assert worker.log.count(WAITS) == 1
        assert worker.log.count("messages are taken again") == 1
        assert "Traceback" not in worker.log


@pytest.mark.processes
def test_a_start_waits_for_the_one_server_while_it_is_full(
    state: EmbeddedServer, tmp_path: Path
) -> None:
    """It is the broker, too, so the message cannot come again: it waits in its slot."""
    rig = CeleryRig(state.url, 0, tmp_path)
    with rig.worker("-c", "1") as worker:
        worker.wait_ready()
        begun = rig.runtime.start_saga.apply_async(("kp_completes", {}), countdown=SOON_S)
        wait_for(lambda: begun.id in worker.log, DEADLINE_S, "its message")
        with full(state):
            wait_said(worker)
        assert begun.get(timeout=DEADLINE_S) == {"two": 1}
        assert rig.wait_settled(begun.id, DEADLINE_S)["state"] == "completed"
        assert worker.log.count(WAITS) == 1
    rig.close()


@pytest.mark.processes
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_start_with_a_countdown_begins_after_it(rig: CeleryRig, pool: str) -> None:
    """Through a real worker; its AsyncResult has the saga's outcome."""
    with rig.worker("-c", "1", "-P", pool) as worker:
        worker.wait_ready()
        result = rig.runtime.start_saga.apply_async(("kp_completes", {}), countdown=SOON_S)
        assert rig.runtime.call("list") == []
        assert result.get(timeout=DEADLINE_S) == {"two": 1}
        assert rig.wait_settled(result.id)["state"] == "completed"


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_start_outlives_the_worker_that_waits_with_it(
    rig: CeleryRig, runtime: Runtime, state: EmbeddedServer, how: signal.Signals
) -> None:
    """The broker keeps it, until its visibility time-out at most."""
    env = {"MULTIAGENTS_STATE_URLS": state.url}
    with away(state), rig.team("-c", "1", conf=SHORT_VISIBILITY, **env) as worker:
        worker.wait_ready()
        saga_id = send(rig)
        wait_said(worker)
        # Come again, and held for its countdown: between taking and noting it kombu would lose it.
        wait_for(lambda: worker.log.count(" received") > 1, DEADLINE_S, "the second message")
        wait_for(lambda: rig.redis.hlen("unacked") == 1, DEADLINE_S, "that it is held")
        if how == signal.SIGKILL:
            worker.kill()
        else:
            worker.process.send_signal(how)
            assert worker.process.wait(DEADLINE_S) == 0
    with rig.team("-c", "1", conf=SHORT_VISIBILITY, **env) as worker:
        worker.wait_ready()
        wait_completed(runtime, saga_id)


@pytest.mark.processes
def test_a_start_that_is_wrong_is_an_error_at_once(rig: CeleryRig) -> None:
    """No server mends it."""
    with rig.worker("-c", "1") as worker:
        worker.wait_ready()
        result = rig.app.AsyncResult(send(rig, "nobody_knows_it"))
        with pytest.raises(UnknownWorkflow, match="nobody_knows_it"):
            result.get(timeout=DEADLINE_S)
        assert WAITS not in worker.log
        wait_for(lambda: rig.redis.hlen("unacked") == 0, DEADLINE_S, "its ack")


# ---- where nothing can be sent either ----


class Asked:
    """A task with the request of a message."""

    name = START_SAGA

    def __init__(self, *, direct: bool = False) -> None:
        self.request = self
        self.called_directly, self.is_eager, self.retries = direct, False, 0
        self.options = {"ignore_result": True}
        self.args, self.kwargs = ["w", {}], {}

    def signature_from_request(self, **options: Any) -> Any:
        return self


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; the worker is to end after the third."""
    pauses: list[float] = []
    monkeypatch.setattr("multiagents.transport.redelivery.time.sleep", pauses.append)
    return pauses


def insistence(pauses: list[float], *, heard: bool = True) -> Insistence:
    catalog = Catalog(FakeClock())
    catalog._fleet = {"other@host": {"workers": {}}} if heard else {}
    return Insistence(make_app(Settings(redis_url=NO_SERVER)), lambda: len(pauses) >= 3, catalog)


def test_without_a_broker_a_message_waits_in_its_slot(stopping: list[float]) -> None:
    """Until the server takes it."""
    errors = [NoServer("away"), NoServer("away")]

    def act() -> None:
        if errors:
            raise errors.pop()

    insistence(stopping).insist(Asked(), act)
    assert (errors, len(stopping)) == ([], 2)


def test_a_worker_that_is_to_end_puts_it_back(stopping: list[float]) -> None:
    """A late ack: what is not put back now is delivered again."""

    def act() -> None:
        raise NoServer("away")

    with pytest.raises(Reject) as found:
        insistence(stopping).insist(Asked(), act)
    assert (found.value.requeue, len(stopping)) == (True, 3)


def test_what_is_wrong_is_not_tried_again(stopping: list[float]) -> None:
    """Nor what no message asked for."""

    def wrong() -> None:
        raise UnknownWorkflow("w")

    def missing() -> None:
        raise NoServer("away")

    with pytest.raises(UnknownWorkflow):
        insistence(stopping).insist(Asked(), wrong)
    with pytest.raises(NoServer):
        insistence(stopping).insist(Asked(direct=True), missing)
    assert stopping == []


def test_nobody_is_missed_who_cannot_have_said_that_he_runs(stopping: list[float]) -> None:
    """A full server stores no heartbeat: after 30 s no worker is known to run."""
    errors: list[Exception] = [UnknownWorker("w")]

    def act() -> None:
        if errors:
            raise errors.pop()

    insistence(stopping, heard=False).insist(Asked(), act)
    assert (errors, len(stopping)) == ([], 1)
    errors = [UnknownWorker("w"), NoServer("away")]
    insistence(stopping).insist(Asked(), act)
    assert (errors, len(stopping)) == ([], 3)
    errors = [UnknownWorker("w")]
    with pytest.raises(UnknownWorker):
        insistence(stopping).insist(Asked(), act)


def test_a_message_does_not_wait_longer_than_kombu_does(stopping: list[float]) -> None:
    """A message that waits in a worker for its time is delivered again after that."""
    app = make_app(Settings(redis_url=NO_SERVER))
    app.conf.broker_transport_options = {"visibility_timeout": 8}
    assert Insistence(app, lambda: True, Catalog(FakeClock()))._most_s() == 2


def test_a_second_start_joins_its_saga_whoever_runs_now(runtime: Runtime) -> None:
    """Its message came twice: it must not fail the task whose saga goes on."""
    workflow = WorkflowBuilder("joined").add_step("one", "nobody.has.it").build()
    saga_id = fresh_id()
    with pytest.raises(UnknownWorker):
        runtime.call("start", workflow, {}, task_id=saga_id)
    runtime.catalog.add_local(WorkerInfo("nobody.has.it"))
    assert runtime.call("start", workflow, {}, task_id=saga_id) == saga_id
    del runtime.catalog._local["nobody.has.it"]
    assert runtime.call("start", workflow, {}, task_id=saga_id) == saga_id
