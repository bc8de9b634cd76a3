"""What becomes of work when its process is asked to stop, is stopped hard, or kills itself?

On prefork, threads, solo and gevent: each pool has a worker with a queue of its own, and when that
has gone a successor takes the queue over.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import pytest

from multiagents import Workflow, WorkflowBuilder
from multiagents.core import ids
from multiagents.devserver.server import EmbeddedServer
from tests.support.celery_rig import CeleryRig
from tests.support.kill_rig import second_starts
from tests.support.kill_workers import Effect
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

DATABASE = 14
LEASE_S = "1"
SOFT_S = 2
"""``worker_soft_shutdown_timeout``."""
HELD = 2
"""Sagas whose message a worker has fetched and not begun."""
POOLS = ("prefork", "threads", "solo", "gevent")
FETCHING = ("prefork", "threads")
"""While it works, solo fetches nothing, and gevent hardly more than it has places for."""
DEADLINE_S = 20.0
SAID = {
    "term": ("Warm shutdown",),
    # The threads pool of Celery 5.7 cannot be stopped hard: it stumbles, and waits for its threads.
    "quit": ("Cold shutdown", "does not implement kill_job"),
    "soft": ("Soft Shutdown",),
}
"""What a worker logs when it has got the signal."""
FIRST = ("one", 1)
ONCE, AGAIN = [1], [1, 2]
"""The attempts of a step that was allowed to end, and of one that was lost."""


class Shared(NamedTuple):
    rig: CeleryRig
    successor: Worker


@pytest.fixture(scope="module")
def shared(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A worker that sweeps, and takes over the queues of workers that are gone."""
    rig = CeleryRig(server.url, DATABASE, tmp_path_factory.mktemp("stops"))
    with rig.worker("-c", "2", "-Q", "io", MULTIAGENTS_LEASE_S=LEASE_S) as successor:
        successor.wait_ready()
        yield Shared(rig, successor)
    rig.close()


def two_steps(queue: str) -> Workflow:
    """A step that waits for a gate, and one after it."""
    return (
        WorkflowBuilder(f"two_steps_{queue}")
        .add_step("one", "kp_gate", queue=queue)
        .add_step("two", "kp_do", queue=queue)
        .build()
    )


class Stop:
    """One pool's worker with a saga at work and others held, and how it is stopped."""

    def __init__(self, shared: Shared, pool: str, how: str, worker: Worker) -> None:
        self.shared, self.pool, self.worker = shared, pool, worker
        self.queue = f"{how}-{pool}"
        self.gate = f"gate-{self.queue}"
        self.sagas: list[str] = []

    def begin(self) -> None:
        """Give it work, and wait until it has all of it."""
        rig, workflow = self.shared.rig, two_steps(self.queue)
        self.sagas = [rig.begin(workflow, gates={"1": self.gate})]
        rig.wait_effect(self.sagas[0], "run", step="one")
        self.sagas += [rig.begin(workflow) for _ in range(HELD)]
        if self.pool in FETCHING:
            wait_for(lambda: not rig.redis.llen(self.queue), DEADLINE_S, "all messages")

    def ended_with(self, *, gate_first: bool) -> int:
        """The exit code of the worker, which may have to wait for its function."""
        if gate_first:
            self.shared.rig.open(self.gate)
        code = self.worker.process.wait(DEADLINE_S)
        self.shared.rig.open(self.gate)
        return code

    def waiting(self) -> list[str]:
        """Held sagas that were not done either before it ended; threads begin some."""
        rig = self.shared.rig
        return [saga_id for saga_id in self.sagas[1:] if not rig.effects(saga_id, "run")]

    def went_on(self) -> list[Effect]:
        """Second steps that the stopped worker has gone on with: they are its successor's.

        Not those whose message it had got, in the moment before it looked whether it is to stop.
        """
        rig = self.shared.rig
        (own,) = {e.pid for e in rig.effects(self.sagas[0], "run") if (e.step, e.attempt) == FIRST}
        runs = [effect for saga_id in self.sagas for effect in rig.effects(saga_id, "run")]
        begun = [effect for effect in runs if effect.step == "two" and effect.pid == own]
        return [effect for effect in begun if f"[{_id(effect)}] received" not in self.worker.log]

    def attempts(self) -> list[int]:
        """How often the running step was begun, once all is done by the successor."""
        rig, successor = self.shared
        rig.app.control.add_consumer(self.queue, destination=[successor.name])
        for saga_id in self.sagas:
            assert rig.wait_settled(saga_id, DEADLINE_S)["state"] == "completed"
            assert second_starts(rig, saga_id) == []
        held = [[e.attempt for e in rig.effects(saga_id, "run")] for saga_id in self.sagas[1:]]
        assert held == HELD * [[1, 1]]  # both steps, each at its first attempt
        return [e.attempt for e in rig.effects(self.sagas[0], "run") if e.step == "one"]


def _id(effect: Effect) -> str:
    """Celery's id of a step's message."""
    return ids.step_id(effect.saga, effect.what, effect.step, effect.attempt)


def stopped(
    shared: Shared, how: str, start: Callable[..., Worker], *, number: signal.Signals
) -> Iterator[Stop]:
    """One worker for each pool, at work, which has been sent a signal and has said so."""
    with ExitStack() as stack:
        stops = []
        for pool in POOLS:
            options = ("-P", pool, "-c", "1", "-Q", f"{how}-{pool}", "--prefetch-multiplier", "4")
            worker = stack.enter_context(start(*options, MULTIAGENTS_LEASE_S=LEASE_S))
            stops.append(Stop(shared, pool, how, worker))
        for stop in stops:
            stop.worker.wait_ready()
            stop.begin()
            stop.worker.process.send_signal(number)
            wait_for(partial(has_heard, stop.worker, SAID[how]), DEADLINE_S, SAID[how][0])
            yield stop


def has_heard(worker: Worker, said: tuple[str, ...]) -> bool:
    """Whether a worker has said that it stops, or has done so at once."""
    return worker.process.poll() is not None or any(words in worker.log for words in said)


def test_a_warm_stop_ends_what_runs_and_strands_nothing(shared: Shared) -> None:
    """TERM: the running step ends at its first attempt, what was held is done elsewhere.

    So is the step after it: going on in the same process ends when the worker stops (E14).
    """
    found: dict[str, Any] = {}
    start = shared.rig.worker
    for stop in stopped(shared, "term", start, number=signal.SIGTERM):
        assert stop.ended_with(gate_first=True) == 0
        assert shared.rig.redis.llen(stop.queue) >= len(stop.waiting())  # not left to a sweep
        found[stop.pool] = stop.attempts()
        assert stop.went_on() == [], stop.pool
    assert found == dict.fromkeys(POOLS, ONCE)


def test_a_cold_stop_costs_a_lease(shared: Shared) -> None:
    """QUIT: the running step is lost and done again; threads wait for it."""
    found: dict[str, Any] = {}
    start = shared.rig.worker
    for stop in stopped(shared, "quit", start, number=signal.SIGQUIT):
        stop.ended_with(gate_first=stop.pool == "threads")
        found[stop.pool] = stop.attempts()
    assert found == {"prefork": AGAIN, "threads": ONCE, "solo": AGAIN, "gevent": AGAIN}


def test_a_soft_stop_gives_steps_their_time(shared: Shared) -> None:
    """QUIT with ``worker_soft_shutdown_timeout``: as warm, except in solo, which cannot wait."""
    found: dict[str, Any] = {}

    def start(*args: str, **env: str) -> Worker:
        return shared.rig.team(*args, conf={"worker_soft_shutdown_timeout": SOFT_S}, **env)

    for stop in stopped(shared, "soft", start, number=signal.SIGQUIT):
        stop.ended_with(gate_first=stop.pool != "solo")
        found[stop.pool] = stop.attempts()
    # Python may run the signal's handler, which waits, inside the greenlet of the step itself.
    assert found.pop("gevent") in (ONCE, AGAIN)
    assert found == {"prefork": ONCE, "threads": ONCE, "solo": AGAIN}


# ---- a step that kills the whole worker ----


def test_a_step_that_kills_its_worker_each_time_is_given_up(shared: Shared) -> None:
    """Threads and solo die whole, and a supervisor starts them again: two attempts, no third."""
    rig = shared.rig
    with ExitStack() as stack:
        for pool in ("threads", "solo"):
            queue = f"poison-{pool}"
            options = ("-P", pool, "-Q", queue)
            worker = stack.enter_context(rig.worker(*options, MULTIAGENTS_LEASE_S=LEASE_S))
            saga_id = rig.begin(_poison(queue))
            deaths = _supervise(rig, worker, saga_id)
            saga = rig.saga(saga_id)
            assert (saga["state"], saga["error"]["type"]) == ("compensated", "LeaseLost")
            runs = [e.attempt for e in rig.effects(saga_id, "run") if e.step == "two"]
            assert (runs, deaths) == (AGAIN, 2)
            assert [e.step for e in rig.effects(saga_id, "undo")] == ["two", "one"]
            worker.wait_ready()
            assert rig.wait_settled(rig.begin(two_steps(queue)))["state"] == "completed"


def _poison(queue: str) -> Workflow:
    return (
        WorkflowBuilder(f"poison_{queue}")
        .add_step("one", "kp_do", queue=queue, compensation="kp_undo")
        .add_step("two", "kp_suicide", queue=queue, compensation="kp_undo")
        .build()
    )


def _supervise(rig: CeleryRig, worker: Worker, saga_id: str) -> int:
    """Start a worker again each time that it dies, until a saga has settled; how often it died."""
    deaths = 0

    def settled() -> bool:
        nonlocal deaths
        if worker.process.poll() is not None:
            deaths += 1
            worker.start()
        return not rig.open_ends(saga_id)

    wait_for(settled, 2 * DEADLINE_S, f"rest of {saga_id}")
    return deaths
