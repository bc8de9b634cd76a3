"""Does a worker that is asked to stop begin nothing more, and end although the store is away?"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard import get_context

from multiagents import NonRetryableError, WorkflowBuilder, worker
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.stop_flag import StopFlag
from multiagents.hosting.worker_end import Leaving
from multiagents.storage.client import Edge
from tests.support.kill_rig import LEASE_S, Rig, second_starts
from tests.support.processes import wait_for
from tests.support.traced import TracedWorker

SLICE_S = 1.5
"""Long enough for a machine that stands still for a moment."""
BOUNDED_S = 30.0
"""Some patience for a report (see `hasty_reports`), Celery's own waits, and a busy machine."""

_meanwhile: dict[str, Any] = {}
"""What is to happen while a step runs; by its kind."""


@worker("ws_act")
def act(context: Any) -> dict[str, Any]:
    _meanwhile[context["during"]]()
    if context.get("fails"):
        raise NonRetryableError("broken")
    return {}


@worker("ws_then")
def then(context: Any) -> dict[str, Any]:
    return {}


@pytest.fixture
def traced(redis_url: str) -> Iterator[TracedWorker]:
    made = TracedWorker(redis_url, slice_s=SLICE_S)
    over = time.monotonic() + 2 * SLICE_S
    _meanwhile.update(
        nothing=lambda: None,
        stop=made.runtime.stopping.set,
        slice=lambda: wait_for(lambda: time.monotonic() > over),
    )
    yield made
    made.close()


@pytest.mark.parametrize("during", ["nothing", "stop", "slice"])
@pytest.mark.parametrize("fails", [False, True])
def test_whether_to_go_on_is_asked_when_a_step_is_reported(
    traced: TracedWorker, during: str, fails: bool
) -> None:
    """E14: a stop, or the end of the slice, that came while it ran ends the continuing."""
    builder = WorkflowBuilder("ws_two").add_step("one", "ws_act", compensation="ws_then")
    workflow = builder.add_step("two", "ws_then").build()
    saga_id = traced.runtime.call("start", workflow, {"during": during, "fails": fails})
    traced.deliver(saga_id, "run", "one", "ws_act")
    begun = [
        (row["type"], row["step"])
        for row in traced.runtime.call("history", saga_id)
        if row["type"].endswith("_claimed")
    ]
    following = ("undo_claimed", "one") if fails else ("step_claimed", "two")
    first = ("step_claimed", "one")
    assert begun == ([first, following] if during == "nothing" else [first])


def test_a_child_sees_that_its_worker_stops() -> None:
    """A forked child has no part in its parent's variables; the next worker begins anew."""
    flag, context = StopFlag(), get_context("fork")
    receiver, sender = context.Pipe()
    answers, questions = context.Pipe()

    def child() -> None:
        while answers.poll(10) and answers.recv():
            sender.send(flag.is_set())

    process = context.Process(target=child, daemon=True)
    process.start()

    def seen() -> bool:
        questions.send(True)
        assert receiver.poll(10)
        return bool(receiver.recv())

    assert not seen()
    flag.set()
    assert seen()
    flag.renew()
    assert (flag.is_set(), seen()) == (False, True)
    questions.send(False)
    process.join(10)
    assert process.exitcode == 0


# ---- what others see of it ----


@pytest.mark.processes
@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_worker_in_its_warm_shutdown_is_shown_as_stopping_until_it_has_ended(
    redis_url: str, tmp_path: Path, pool: str
) -> None:
    """With how many tasks it is still at; then it is gone at once, and not after its silence."""
    rig = Rig(redis_url, 0, tmp_path)

    def fleet() -> dict[str, dict[str, Any]]:
        return rig.runtime.edge.run(rig.runtime.catalog.fleet())

    with rig.worker("-c", "1", "-P", pool) as worker:
        worker.wait_ready()
        saga_id = rig.start("kp_paced", gates={"1": "late"})
        rig.wait_effect(saga_id, "run", step="one")
        worker.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "state" in fleet()[worker.name], 10.0, "the worker to say so")
        seen = fleet()[worker.name]
        assert (seen["state"], seen["at_work"]) == ("stopping", 1)
        told = rig.runtime.call("explain", saga_id)["text"]
        assert f"on {worker.name}" in told
        assert "that worker is stopping" in told
        rig.open("late")
        worker.process.wait(BOUNDED_S)
        assert fleet() == {}
        assert "[error" not in worker.log
    rig.close()


@pytest.mark.parametrize("told", [True, False])
def test_a_worker_that_has_ended_is_said_to_be_stopping_no_more(redis_url: str, told: bool) -> None:
    """Also where an error has ended its thread, in a program that lives on."""
    said: list[str] = []

    async def say(what: str) -> None:
        said.append(what)

    edge = Edge(redis_url)
    leaving = Leaving(
        edge, announce=lambda: say("stopping"), retire=lambda: say("ended"), pause_s=0.01
    )
    at_work = threading.Event()

    def work() -> None:
        leaving.begin()
        at_work.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: said[:2] == ["stopping", "stopping"])
    assert "ended" not in said
    if told:
        leaving.end()
    at_work.set()
    thread.join()
    wait_for(lambda: said[-1] == "ended")
    leaving.end()
    wait_for(lambda: not leaving._thread.is_alive())
    assert said.count("ended") == 1
    edge.close()


# ---- while the store is away ----


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """One of our own, which may die."""
    with EmbeddedServer(tmp_path / "server", appendfsync="always") as running:
        yield running


@pytest.mark.processes
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_stopped_worker_ends_although_its_report_cannot_be_stored(
    server: EmbeddedServer, tmp_path: Path, pool: str
) -> None:
    """It is kept for a bounded time; the step's lease decides, and another worker goes on."""
    rig = Rig(server.url, 0, tmp_path)
    options = ("-c", "1", "-P", pool)
    with rig.worker(*options, imports="tests.support.hasty_reports") as worker:
        worker.wait_ready()
        saga_id = rig.start("kp_paced", gates={"1": "late"})
        rig.wait_effect(saga_id, "run", step="one")
        server.kill()
        worker.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "Warm shutdown" in worker.log, 10.0, "the signal")
        rig.open("late")
        began = time.monotonic()
        worker.process.wait(BOUNDED_S)
        print(f"{pool}: ended after {time.monotonic() - began:.1f} s")
        assert "a report is given up" in worker.log
    server.restart()
    with rig.worker(*options) as worker:
        worker.wait_ready()
        saga = rig.wait_settled(saga_id, 20 * LEASE_S)
    assert (saga["state"], saga["steps"]["one"]["attempts"]) == ("completed", 2)
    assert second_starts(rig, saga_id) == []
    rig.close()
