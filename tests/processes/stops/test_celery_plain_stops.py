"""What becomes of plain tasks whose whole worker is killed or stopped?

They have no lease: what brings them back is their message, if it is still there, or else their
time-out.  A worker of the team has two of them at work and two more fetched, one of each acked
early (Celery's default) and one late; when it has gone, another worker takes its queue over.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import pytest

from multiagents import Workflow, WorkflowBuilder
from tests.support.celery_rig import LONG_S, QUICK, CeleryRig, plain
from tests.support.kill_rig import second_starts
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

SHORT_S = 5.0
"""The time-out of what is expected to be lost; the others' is longer than any test."""
DEADLINE_S = 30.0
VISIBILITY = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}
HELD = 3
"""Messages that kombu knows to be held: of both that wait, and of the one that is acked late."""
HELD_BY_GREENLETS = 2
"""A full pool of them blocks the consumer: one message more stays in the queue."""
AT_WORK, FETCHED = ("gate", "gate_kept"), ("work", "work_kept")


class Fate(NamedTuple):
    """How a step came to its end."""

    attempts: int
    runs: int
    """How often its function was begun."""


ONCE, LOST, AGAIN = Fate(1, 1), Fate(2, 2), Fate(1, 2)
"""Done; given up by its time-out and done anew; done again as the same attempt."""
NOT_BEGUN = Fate(2, 1)
"""Given up by its time-out before it had begun, and then done."""


@pytest.fixture
def worker(rig: CeleryRig, request: pytest.FixtureRequest) -> Iterator[Worker]:
    """Two places, and more messages than that; of the pool that a test names, else prefork."""
    pool = getattr(request, "param", "prefork")
    with rig.team("-P", pool, "-c", "2", "--prefetch-multiplier", "4") as worker:
        yield worker.wait_ready()


def one_step(name: str, timeout_s: float) -> Workflow:
    target = plain(name, timeout_s=timeout_s)
    return WorkflowBuilder(f"stop_{name}").add_step("b", target, retry=QUICK).build()


def given_to(rig: CeleryRig, timeouts_s: dict[str, float], *, held: int = HELD) -> dict[str, str]:
    """Sagas by their task's name; two are at work, the worker holds the others."""
    sagas = {}
    for names in (AT_WORK, FETCHED):
        for name in names:
            sagas[name] = rig.begin(one_step(name, timeouts_s.get(name, LONG_S)))
        if names is AT_WORK:
            wait_for(lambda: all(rig.runs(sagas[n], n) for n in AT_WORK), DEADLINE_S, "two at work")
    # Between taking a message and noting that, kombu would lose it; one was acked when it began.
    wait_for(lambda: rig.redis.hlen("unacked") == held, DEADLINE_S, "all messages fetched")
    return sagas


def open_gates(rig: CeleryRig, sagas: dict[str, str]) -> None:
    """Let all that is begun from now on come to its end."""
    for saga_id in sagas.values():
        rig.open(saga_id)


def fates(rig: CeleryRig, sagas: dict[str, str]) -> dict[str, Fate]:
    """How they all ended, without a failure but those of a time-out."""
    found = {}
    for name, saga_id in sagas.items():
        saga = rig.wait_settled(saga_id, DEADLINE_S)
        assert saga["state"] == "completed"
        assert second_starts(rig, saga_id) == []
        attempts = saga["steps"]["b"]["attempts"]
        lost = [row for row in rig.history(saga_id) if row["type"] == "step_lost"]
        assert len(lost) == attempts - 1
        found[name] = Fate(attempts, len(rig.runs(saga_id, name)))
    return found


def test_plain_tasks_of_a_killed_worker_wait_for_their_time_outs(
    rig: CeleryRig, worker: Worker
) -> None:
    """At work or only fetched, acked early or late: kombu would bring them back in an hour."""
    sagas = given_to(rig, dict.fromkeys((*AT_WORK, *FETCHED), SHORT_S))
    worker.kill()
    open_gates(rig, sagas)
    with rig.team("-c", "2") as successor:
        successor.wait_ready()
        found = fates(rig, sagas)
    assert found == {
        "gate": LOST,
        "gate_kept": LOST,
        "work": NOT_BEGUN,
        "work_kept": NOT_BEGUN,
    }


def test_a_short_visibility_time_out_brings_their_messages_back_sooner(
    rig: CeleryRig, worker: Worker
) -> None:
    """All but that of a task at work which was acked early; none is a new attempt."""
    sagas = given_to(rig, {"gate": SHORT_S})
    worker.kill()
    open_gates(rig, sagas)  # before they begin: what takes longer is delivered once more
    with rig.team("-c", "2", conf={"broker_transport_options": VISIBILITY}) as successor:
        successor.wait_ready()
        found = fates(rig, sagas)
    assert found == {"gate": LOST, "gate_kept": AGAIN, "work": ONCE, "work_kept": ONCE}


def test_a_warm_stop_ends_plain_tasks_and_puts_the_others_back(
    rig: CeleryRig, worker: Worker
) -> None:
    """TERM: nothing is lost, repeated or left to a time-out."""
    sagas = given_to(rig, {})
    worker.process.terminate()
    wait_for(lambda: "Warm shutdown" in worker.log, DEADLINE_S, "the stop")
    open_gates(rig, sagas)
    assert worker.process.wait(DEADLINE_S) == 0
    with rig.team("-c", "2") as successor:
        successor.wait_ready()
        found = fates(rig, sagas)
    assert found == dict.fromkeys((*AT_WORK, *FETCHED), ONCE)


def test_a_cold_stop_loses_a_plain_task_at_work_that_was_acked_early(
    rig: CeleryRig, worker: Worker
) -> None:
    """QUIT: the late one is delivered again at once, as the same attempt; fetched ones too."""
    sagas = given_to(rig, {"gate": SHORT_S})
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(DEADLINE_S)
    worker.kill()
    open_gates(rig, sagas)
    with rig.team("-c", "2") as successor:
        successor.wait_ready()
        found = fates(rig, sagas)
    assert found == {"gate": LOST, "gate_kept": AGAIN, "work": ONCE, "work_kept": ONCE}


@pytest.mark.parametrize("worker", ["threads"], indirect=True)
def test_a_cold_stop_of_threads_waits_for_plain_tasks(rig: CeleryRig, worker: Worker) -> None:
    """QUIT: Celery cannot stop its threads; they end what they do, and all else is put back."""
    sagas = given_to(rig, {})
    worker.process.send_signal(signal.SIGQUIT)
    wait_for(lambda: "does not implement kill_job" in worker.log, DEADLINE_S, "the stop")
    open_gates(rig, sagas)
    worker.process.wait(DEADLINE_S)
    with rig.team("-c", "2") as successor:
        successor.wait_ready()
        found = fates(rig, sagas)
    assert found == dict.fromkeys((*AT_WORK, *FETCHED), ONCE)


@pytest.mark.parametrize("worker", ["gevent"], indirect=True)
def test_a_cold_stop_of_greenlets_leaves_plain_tasks_to_their_time_outs_at_worst(
    rig: CeleryRig, worker: Worker
) -> None:
    """QUIT: what Celery puts back, or if it ends, depends on the greenlet that it interrupts."""
    sagas = given_to(rig, dict.fromkeys((*AT_WORK, *FETCHED), SHORT_S), held=HELD_BY_GREENLETS)
    worker.process.send_signal(signal.SIGQUIT)
    with suppress(subprocess.TimeoutExpired):
        worker.process.wait(SHORT_S / 2)
    worker.kill()
    open_gates(rig, sagas)
    with rig.team("-c", "2") as successor:
        successor.wait_ready()
        found = fates(rig, sagas)
    assert found["gate"] == LOST
    assert found["gate_kept"] in (AGAIN, LOST)
    assert {found["work"], found["work_kept"]} <= {ONCE, NOT_BEGUN}


@pytest.mark.parametrize("name", AT_WORK)
def test_a_cold_stop_of_solo_fails_the_plain_task_at_work(rig: CeleryRig, name: str) -> None:
    """QUIT: Celery stumbles within the task, whose error is reported like any other."""
    with rig.team("-P", "solo") as worker:
        worker.wait_ready()
        saga_id = rig.begin(one_step(name, LONG_S))
        wait_for(lambda: rig.runs(saga_id, name), DEADLINE_S, "the task at work")
        worker.process.send_signal(signal.SIGQUIT)
        worker.process.wait(DEADLINE_S)
    rig.open(saga_id)
    with rig.team("-c", "2") as successor:
        successor.wait_ready()
        saga = rig.wait_settled(saga_id, DEADLINE_S)
    failed = [row["data"] for row in rig.history(saga_id) if row["type"] == "step_failed"]
    assert [(each["error"]["type"], each["outcome"]) for each in failed] == [
        ("NotImplementedError", "unknown")
    ]
    assert (saga["state"], saga["steps"]["b"]["attempts"]) == ("completed", 2)
    assert second_starts(rig, saga_id) == []
