"""What becomes of the messages that a killed worker had fetched and not begun?

The engine's messages are not acknowledged on the server: a worker holds what it fetched in memory
only.  They are gone with it, and what stands in the outbox is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals

from multiagents.engine.sweeper import BATCH
from tests.support.kill_rig import Rig, check_recoveries, second_starts
from tests.support.processes import Worker, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.alone]

KOMBU = "tests.support.kill_kombu"
HELD = BATCH + 10
"""Sagas whose message the dying worker holds: more than one sweep deals with."""
FETCHES = ("-c", "1", "--prefetch-multiplier", str(2 * HELD))
"""A worker that does one thing at a time and takes all that there is."""
WAITS = ("-c", "2", "-Q", "llm")
"""A worker that sweeps, and consumes nothing of this yet."""
QUEUE = "io"
GATE = "fetched"
"""Keeps a worker from what it has fetched."""
UNACKED = "unacked"
"""kombu's hash of what workers hold."""
FEW = 10
"""Sagas whose messages a living worker holds for longer than a lease."""
DEADLINE_S = 30.0


@pytest.fixture(params=["", KOMBU], ids=["letters", "kombu"])
def imports(request: pytest.FixtureRequest) -> Iterator[str]:
    """What a worker imports so that its messages go the way in which this process' own go."""
    if request.param:
        signals.before_task_publish.connect(listen)
    yield request.param
    signals.before_task_publish.disconnect(listen)


def listen(**_: Any) -> None:
    """Not that of `KOMBU`, which listens as soon as it is imported."""


def fetch_all(rig: Rig, worker: Worker, count: int) -> tuple[str, list[str]]:
    """One saga at work in a worker, the others' messages in its memory; the ids of both."""
    worker.wait_ready()
    blocked = rig.start("kp_paced", gates={"1": GATE})
    rig.wait_effect(blocked, "run", step="one")
    held = [rig.start("kp_completes") for _ in range(count)]
    wait_for(lambda: not rig.redis.llen(QUEUE), DEADLINE_S, "an empty queue")
    assert not rig.redis.exists(UNACKED)
    return blocked, held


def test_messages_in_a_dead_workers_memory_are_sent_again(rig: Rig, imports: str) -> None:
    """No message is left on the server: all sagas end elsewhere, and only what ran runs again."""
    with rig.worker(*WAITS, imports=imports) as other, rig.worker(*FETCHES) as worker:
        other.wait_ready()
        blocked, held = fetch_all(rig, worker, HELD)
        worker.kill()
        died = time.time()
        rig.app.control.add_consumer(QUEUE, destination=[other.name])
        sagas = {saga_id: rig.wait_settled(saga_id, DEADLINE_S) for saga_id in (blocked, *held)}
    assert {saga["state"] for saga in sagas.values()} == {"completed"}
    assert [faults for saga_id in sagas if (faults := second_starts(rig, saga_id))] == []
    runs = {one: [(e.step, e.attempt) for e in rig.effects(one, "run")] for one in sagas}
    assert runs.pop(blocked) == [("one", 1), ("one", 2), ("two", 1)]
    assert set(map(tuple, runs.values())) == {(("one", 1), ("two", 1))}
    way = "kombu" if imports else "letters"
    check_recoveries(f"fetched, {way}", [rig.ended_at(saga_id) - died for saga_id in sagas])


def test_messages_that_a_living_worker_holds_for_long_are_done_once(rig: Rig) -> None:
    """Held messages are invisible, so they are resent after a lease, and the copies are dropped."""
    with rig.worker(*FETCHES) as worker:
        blocked, held = fetch_all(rig, worker, FEW)
        twice = 1 + 2 * FEW
        wait_for(lambda: worker.log.count(" received") >= twice, DEADLINE_S, "a second copy of all")
        rig.open(GATE)
        sagas = {saga_id: rig.wait_settled(saga_id, DEADLINE_S) for saga_id in (blocked, *held)}
        wait_for(lambda: not rig.redis.llen(QUEUE), DEADLINE_S, "an empty queue")
    assert {saga["state"] for saga in sagas.values()} == {"completed"}
    for saga_id in sagas:
        runs = [(e.step, e.attempt) for e in rig.effects(saga_id, "run")]
        assert runs == [("one", 1), ("two", 1)]
