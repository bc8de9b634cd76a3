"""What do workers, programs and people see while Redis is away, and does all go on after it?

A server that dies while sagas run, and one that is silent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError

from multiagents import WorkflowBuilder
from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import NoServer, UnknownSaga
from multiagents.core.names import COORDINATE
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting import fence
from multiagents.orchestrator.orchestrator import Orchestrator
from multiagents.storage.client import UNREACHABLE
from multiagents.storage.sagas import Attempt
from multiagents.transport.async_result import LOOK_S
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.worker_sdk.notes import LOOP_LATER, SENT_LATER, WAITS
from multiagents.workflows.registry import registered
from tests.support.kill_rig import Rig, second_starts
from tests.support.processes import ROOT, environment, wait_for

pytestmark = pytest.mark.alone
"""Beside other tests a server that had restarted answered seconds late."""

AWAY_S = 60.0
"""Many leases, and longer than every time-out of a call and pause between two attempts."""
BOUNDED_S = 5.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One of our own, which may die."""
    folder = tmp_path_factory.mktemp("outage")
    with EmbeddedServer(folder, appendfsync="always") as running:
        yield running


class Command:
    """A ``multiagents`` command as its own process."""

    def __init__(self, rig: Rig, *words: str) -> None:
        self._out, self._err = (rig.folder / f"{words[0]}.{name}" for name in ("out", "err"))
        with self._out.open("w") as out, self._err.open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "multiagents", *words],
                cwd=ROOT,
                env=environment(rig.url),
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    def end(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        return self._process.wait(30), self.out, self._err.read_text()


class Getter:
    """``get`` in a thread of its own."""

    def __init__(self, result: Any, timeout_s: float) -> None:
        self.value: Any = None
        self._thread = threading.Thread(target=self._get, args=(result, timeout_s))
        self._thread.start()

    def _get(self, result: Any, timeout_s: float) -> None:
        try:
            self.value = result.get(timeout=timeout_s)
        except Exception as error:  # noqa: BLE001 - compared by the test
            self.value = error

    def end(self) -> Any:
        """What it returned or raised."""
        self._thread.join(30)
        return self.value


def stay_away(seconds: float) -> None:
    """Let an outage last: time itself is what is waited for."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= end, 2 * seconds)


# ---- gone for a while ----


@pytest.mark.processes
def test_an_orchestrator_whose_server_dies_says_so(server: EmbeddedServer, rig: Rig) -> None:
    """NoServer, as from the sync face, instead of the client library's error."""

    async def main() -> None:
        made = Orchestrator(registered()["kp_completes"], state_store=rig.url)
        async with made as orchestrator:
            server.kill()
            try:
                with pytest.raises(NoServer, match=str(server.port)):
                    await orchestrator.list()
            finally:
                server.restart()

    asyncio.run(main())


@pytest.mark.processes
def test_everybody_waits_for_a_server_that_is_away(
    server: EmbeddedServer, rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    """Steps keep their leases; ``get``, ``start --wait`` and ``watch`` name what they wait for."""
    with rig.worker("-c", "4") as worker:
        worker.wait_ready()
        running = rig.runtime.start_saga.delay("kp_long", {"gates": {"1": "up"}})
        follower = Command(rig, "watch", running.id)
        given = '{"gates": {"1": "up"}}'
        starter = Command(rig, "start", "kp_long", "-i", given, "--wait", "--json")
        queued = [running.id, *(rig.start("kp_paced", gates={"1": "up"}) for _ in range(2))]
        wait_for(lambda: len(rig.runtime.call("list")) == len(queued) + 1, 20.0, "the start")
        rig.wait_effect(running.id, "run", step="two")
        wait_for(lambda: running.id in follower.out, 20.0, "the first look")
        waiting = Getter(running, 2 * AWAY_S)
        server.kill()
        stay_away(AWAY_S)
        rig.open("up")
        server.restart()
        assert waiting.end() == {"two": 1}
        ended = [follower.end(), starter.end()]
        for saga_id in queued:
            assert rig.wait_settled(saga_id)["state"] == "completed"
            assert second_starts(rig, saga_id) == []
            assert not [event for event in rig.events(saga_id) if event[0] == "step_lost"]
        assert worker.process.poll() is None
        assert "leases renewed late" not in worker.log
    said = capfd.readouterr().out
    assert f"127.0.0.1:{server.port}/0 (ConnectionError): waiting for saga {running.id}" in said
    for code, out, err in ended:
        assert code == 0, err
        assert "completed" in out
        assert f"127.0.0.1:{server.port}/0" in err
        assert "waiting for it" in err
        assert "the server is back after" in err
        assert "Traceback" not in err


@pytest.mark.processes
def test_no_heartbeat_fails_a_step_and_a_checkpoint_waits_for_the_server(
    server: EmbeddedServer, rig: Rig
) -> None:
    """The newest progress is sent later; on a loop a checkpoint is sent before the report."""
    one = WorkflowBuilder("beats").add_step("one", "kp_beats").build()
    two = WorkflowBuilder("loop_beats").add_step("two", "kp_loop_beats").build()
    gates = {"gate": "beats-up", "end": "beats-end"}
    with rig.worker("-c", "2") as worker:
        worker.wait_ready()
        beating = rig.runtime.start_saga.delay(one, gates).id
        looping = rig.runtime.start_saga.delay(two, gates).id
        for saga_id, step in ((beating, "one"), (looping, "two")):
            rig.wait_effect(saga_id, "run", step=step)
        server.kill()
        stay_away(2)
        rig.open("beats-up")
        rig.wait_effect(beating, "saves", step="one")
        rig.wait_effect(looping, "saved", step="two")  # a loop waits for no server
        stay_away(1)
        assert not rig.effects(beating, "saved")  # a plain function does
        server.restart()
        rig.wait_effect(beating, "saved", step="one")
        rig.open("beats-end")
        ended = [rig.wait_settled(saga_id) for saga_id in (beating, looping)]
        log = worker.log
    assert [saga["state"] for saga in ended] == ["completed", "completed"]
    assert ended[0]["steps"]["one"]["attempts"] == 1
    beats = ended[0]["result"]["beats"]
    assert ended[0]["steps"]["one"]["progress"] == {"progress": 0.5, "note": f"beat {beats}"}
    assert ended[1]["result"] == {"found": "from the loop"}
    assert log.count(SENT_LATER) + log.count(LOOP_LATER) == 2, log  # a line for each process
    assert WAITS in log


@pytest.mark.processes
def test_a_step_that_ended_in_time_is_not_timed_out_while_its_report_waits(
    server: EmbeddedServer, rig: Rig
) -> None:
    """Its result is kept past the time-out, and its process lives to report it."""
    timed = WorkflowBuilder("timed").add_step("one", "kp_gate", timeout_s=2).build()
    with rig.worker("-c", "1") as worker:
        worker.wait_ready()
        saga_id = rig.runtime.start_saga.delay(timed, {"gates": {"1": "in-time"}}).id
        begun = rig.wait_effect(saga_id, "run", step="one")
        server.kill()
        rig.open("in-time")
        assert rig.wait_effect(saga_id, "ran", step="one").at < begun.at + 2
        stay_away(5)  # past the time-out and the grace after it
        server.restart()
        saga = rig.wait_settled(saga_id)
        assert (saga["state"], saga["steps"]["one"]["attempts"]) == ("completed", 1)
        assert rig.effects(saga_id, "run") == [begun]
        assert "WorkerLostError" not in worker.log


@pytest.mark.processes
def test_a_time_out_counts_while_the_server_is_away(server: EmbeddedServer, rig: Rig) -> None:
    """``get(timeout=)`` ends in time with Celery's error, which names the server; so does wait."""
    result = rig.runtime.start_saga.delay("kp_completes", {})
    catalog = rig.runtime.catalog
    rig.runtime.edge.run(catalog.publish("w@host", ["io"], registered().values()))
    command = Command(rig, "start", "kp_completes", "--wait", "--timeout", "4")
    wait_for(lambda: len(rig.runtime.call("list")) == 2, 20.0, "the start")
    server.kill()
    waiting = Getter(result, 2.0)
    try:
        error = waiting.end()
        code, out, err = command.end()
    finally:
        server.restart()
    assert isinstance(error, CeleryTimeoutError), error
    assert str(server.port) in str(error)
    assert result.id in str(error)
    assert (code, out) == (2, "")
    assert str(server.port) in err


@pytest.mark.processes
def test_a_silent_server_is_noticed_by_who_waits(
    server: EmbeddedServer, rig: Rig, capfd: pytest.CaptureFixture[str]
) -> None:
    """It keeps its connections and answers nothing, as behind a broken network."""
    result = rig.runtime.start_saga.delay("kp_completes", {})
    os.kill(server.pid, signal.SIGSTOP)
    try:
        error = Getter(result, 3.0).end()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert isinstance(error, CeleryTimeoutError), error
    assert str(server.port) in str(error)


# ---- leases over an outage ----


class Flaky:
    """An engine whose store is away for a while."""

    def __init__(self) -> None:
        self.away = False
        self.renewals: list[int] = []
        self.late = 0
        self.clock = FakeClock()

    def renew(self, held: list[Assignment], notes: Any) -> list[Assignment]:
        if self.away:
            raise UNREACHABLE[0]("away")
        self.renewals.append(self.clock.now_ms())
        return []

    def count_late(self) -> None:
        self.late += 1


def test_a_lease_is_renewed_soon_after_a_short_outage() -> None:
    """E9: an outage shorter than half a lease extends no lease, so none may be lost."""
    engine = Flaky()
    keeper = LeaseKeeper(
        engine,
        clock=engine.clock,
        lease_ms=3_000_000,
        cancel=lambda token: False,
        on_timeout=lambda held, place: None,
        can_kill=False,
    )
    keeper.hold(Assignment("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d"))
    engine.clock.advance(1000)
    keeper._tick()
    engine.away = True
    engine.clock.advance(1000)
    keeper._tick()
    engine.away = False
    engine.clock.advance(keeper._pause_s())
    keeper._tick()
    first, second = engine.renewals
    assert second - first <= 1_250_000 + 1
    assert engine.late == 0


# ---- lost on the way, or by the server ----


@pytest.mark.processes
def test_a_return_that_is_told_by_message_says_what_it_held(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would count for a later claim of the attempt, while that one's task runs (E5)."""
    task = rig.runtime.app.tasks[COORDINATE]
    held = [Attempt("s", Kind.RUN, "a", 2, "n2")]
    told: list[Any] = []

    def ended(*what: Any) -> None:
        told.append(what)
        if len(told) == 1:
            raise UNREACHABLE[0]("away")

    fence.fenced.last = ("t", held)
    for name in ("returned", "report"):
        monkeypatch.setattr(rig.runtime.plain_ends, name, ended)
    task.apply_async(({"ok": 1},), {"saga_id": "s", "task_id": "t"}, queue="io")
    (raw,) = rig.redis.lrange("io", 0, -1)
    args, kwargs, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
    task.run(*args, **kwargs)
    assert told == [("s", "t", {"ok": 1}, held)] * 2


@pytest.mark.processes
def test_an_outcome_that_was_told_unheard_is_found_soon(rig: Rig) -> None:
    """It was stored after the waiter's read, and published before the waiter's subscription."""
    result = rig.runtime.start_saga.delay("kp_completes", {})
    waiting = Getter(result, 40.0)
    channel = rig.runtime.app.backend.get_key_for_task(result.id).decode()
    wait_for(lambda: rig.redis.pubsub_channels(channel), 10.0, "somebody who listens")
    meta = {"status": "SUCCESS", "result": {"two": 1}, "task_id": result.id, "children": []}
    began = time.monotonic()
    rig.redis.set(channel, json.dumps(meta))  # and nothing is published
    assert waiting.end() == {"two": 1}
    assert time.monotonic() - began < LOOK_S / 2


@pytest.mark.processes
def test_who_waits_for_a_saga_that_is_gone_is_told(rig: Rig) -> None:
    """Not before the time is over would Celery say anything."""
    result = rig.runtime.start_saga.delay("kp_completes", {})
    waiting = Getter(result, 40.0)
    rig.redis.flushdb()
    error = waiting.end()
    assert isinstance(error, UnknownSaga), error
    assert "started and is gone" in str(error)
    assert result.id in str(error)
