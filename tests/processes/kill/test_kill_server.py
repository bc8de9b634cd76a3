"""Do sagas survive the death of the server that holds their state and their messages?

A commit and the messages that it sends are one write: after a crash both are there, or neither.
The server syncs its file at each write, so that what it acknowledged is there for certain.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from multiagents.core.exceptions import NoServer
from multiagents.devserver.server import EmbeddedServer
from tests.support.kill_points import Point
from tests.support.kill_rig import Rig, check_recoveries, second_starts
from tests.support.processes import Worker, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.alone]

ENDS = {"kp_completes": "completed", "kp_breaks": "compensated"}
EACH = 100
"""Sagas of each workflow: together two hundred."""
CRASHES = (100, 350)
"""How many effects the workers have noted by then, of six hundred."""
CONNECTED = "Connected to "
HELD = 5
"""Messages that a worker has fetched and not begun."""
DEADLINE_S = 60.0


def crash(server: EmbeddedServer, rig: Rig, worker: Worker) -> float:
    """Kill the server each time that so much has been done, and bring it back.

    Returns when the worker had it back for good, Unix time: Celery itself waits for 2 s, then 4 s
    and so on between its tries.
    """
    for count in CRASHES:
        wait_for(partial(has_done, rig, count), DEADLINE_S, f"{count} effects")
        before = worker.log.count(CONNECTED)
        server.kill()
        server.restart()
        wait_for(partial(is_back, worker, before), DEADLINE_S, "the worker's connection")
    return time.time()


def is_back(worker: Worker, before: int) -> bool:
    """Whether a worker has connected anew."""
    return worker.log.count(CONNECTED) > before


def has_done(rig: Rig, count: int) -> bool:
    """Whether the workers have noted so much."""
    path = rig.folder / "effects"
    return path.exists() and path.read_text().count("\n") >= count


def start_surely(rig: Rig, workflow: str) -> str:
    """Start a saga, again under the same id while no server answers; return the id."""
    saga_id = Point().saga_id()

    def is_recorded() -> bool:
        try:
            rig.runtime.start_saga.apply_async((workflow, {}), task_id=saga_id)
        except NoServer:
            return False
        return True

    wait_for(is_recorded, DEADLINE_S, f"start of {saga_id}")
    return saga_id


def faults(rig: Rig, saga_id: str, expected: str) -> list[str]:
    """How a saga differs from one that nothing happened to; [] is right."""
    saga = rig.wait_settled(saga_id, DEADLINE_S)
    undone = expected == "compensated"
    found = [] if saga["state"] == expected else [f"state {saga['state']}: {saga['error']}"]
    done = {what: {e.step for e in rig.effects(saga_id, what)} for what in ("run", "undo")}
    if done != {"run": {*saga["steps"]}, "undo": {*saga["steps"]} if undone else set()}:
        found.append(f"did {done}")
    return found + [f"second start of {item}" for item in second_starts(rig, saga_id)]


@pytest.mark.parametrize("continuation", ["True", "False"])
def test_two_hundred_sagas_outlive_two_crashes_of_their_server(
    tmp_path: Path, continuation: str
) -> None:
    """Started, moved and undone while it dies twice: each ends as it should, nothing is lost."""
    with EmbeddedServer(tmp_path / "server", appendfsync="always") as server:
        rig = Rig(server.url, 0, tmp_path)
        with rig.worker(MULTIAGENTS_CONTINUATION=continuation) as worker:
            worker.wait_ready()
            with ThreadPoolExecutor(1) as pool:
                crashing = pool.submit(crash, server, rig, worker)
                sagas = [(start_surely(rig, name), end) for name, end in EACH * list(ENDS.items())]
                back_at = crashing.result()
            wrong = {saga_id: faults(rig, saga_id, end) for saga_id, end in sagas}
            ends = [rig.ended_at(saga_id) for saga_id, _ in sagas]
        rig.close()
    assert {saga_id: found for saga_id, found in wrong.items() if found} == {}
    check_recoveries("crashes of the server", [end - back_at for end in ends if end > back_at])


def test_a_worker_that_holds_messages_outlives_a_crash_of_its_server(tmp_path: Path) -> None:
    """It cannot return them while no server answers, and must not end because of that."""
    with EmbeddedServer(tmp_path / "server", appendfsync="always") as server:
        rig = Rig(server.url, 0, tmp_path)
        with rig.worker("-c", "1", "--prefetch-multiplier", str(2 * HELD)) as worker:
            worker.wait_ready()
            blocked = rig.start("kp_paced", gates={"1": "up"})
            rig.wait_effect(blocked, "run", step="one")
            sagas = [blocked, *(rig.start("kp_completes") for _ in range(HELD))]
            wait_for(lambda: worker.log.count(" received") > HELD, DEADLINE_S, "all messages")
            server.kill()
            wait_for(lambda: "Connection to broker lost" in worker.log, DEADLINE_S, "the loss")
            server.restart()
            wait_for(partial(is_back, worker, 1), DEADLINE_S, "the worker's connection")
            back_at = time.time()
            rig.open("up")
            wrong = {saga_id: faults(rig, saga_id, "completed") for saga_id in sagas}
            assert worker.process.poll() is None
            ends = [rig.ended_at(saga_id) for saga_id in sagas]
        rig.close()
    assert {saga_id: found for saga_id, found in wrong.items() if found} == {}
    check_recoveries("a crash with messages held", [end - back_at for end in ends])
