"""Do leases and deadlines follow the server's clock if a host's is wrong or set?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from multiagents import WorkflowBuilder, worker
from multiagents.core.clock import FakeClock, SystemClock
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage import clock_sync
from multiagents.storage.client import UNREACHABLE, Edge
from multiagents.storage.clock_sync import Timekeeper
from multiagents.worker_sdk.leases import LeaseKeeper
from tests.support.traced import TracedWorker

NEAR_MS = 5_000


@worker("clocks_act")
def act(context: Any) -> dict[str, Any]:
    return {}


class HostClock:
    """This host's clock, as the engine sees it; ``wrong_s`` sets it."""

    wrong_s = 0.0

    def __init__(self) -> None:
        self._real = time.time_ns

    def __call__(self) -> int:
        return self._real() + round(self.wrong_s * 1e9)

    def error_ms(self, clock: SystemClock) -> float:
        """The remaining error of a corrected clock; the server is on this host."""
        return abs(clock.now_ms() - self._real() / 1e6)


@pytest.fixture
def host_clock(monkeypatch: pytest.MonkeyPatch) -> HostClock:
    made = HostClock()
    monkeypatch.setattr(time, "time_ns", made)
    return made


@pytest.fixture
def edge(redis_url: str) -> Iterator[Edge]:
    made = Edge(redis_url)
    yield made
    made.close()


def asked(redis_url: str) -> int:
    """The number of times the server was asked for its clock."""
    with redis.Redis.from_url(redis_url) as client:
        return int(client.info("commandstats").get("cmdstat_time", {}).get("calls", 0))


def test_a_clock_is_compared_at_first_each_minute_and_when_it_was_set(
    edge: Edge, redis_url: str, host_clock: HostClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E9: no comparison happens beyond these, as for each start."""
    clock, before = SystemClock(), asked(redis_url)
    keeper = Timekeeper(clock)
    host_clock.wrong_s = -120
    for wrong_s, times in ((-120, 1), (-120, 1), (3600, 2), (-3600, 3)):
        host_clock.wrong_s = wrong_s
        keeper.keep(edge)
        assert host_clock.error_ms(clock) < NEAR_MS
        assert asked(redis_url) - before == times
    monkeypatch.setattr(clock_sync, "CORRECT_S", 0.0)
    keeper.keep(edge)
    assert asked(redis_url) - before == 4


def test_a_client_starts_sagas_by_the_servers_clock(redis_url: str, host_clock: HostClock) -> None:
    """E9: a client 2 minutes slow would make a 1-minute deadline overdue at the start."""
    client, before = TracedWorker(redis_url, "client"), asked(redis_url)
    host_clock.wrong_s = -120
    workflow = WorkflowBuilder("clocks").add_step("one", "clocks_act").build()
    for _ in range(3):
        saga_id = client.runtime.call("start", workflow, {})
    assert asked(redis_url) - before == 1
    created_at = client.runtime.call("get", saga_id)["created_at"]
    client.close()
    began = datetime.fromisoformat(created_at).timestamp()
    assert abs(began - (time.time_ns() / 1e9 + 120)) < NEAR_MS / 1000


class Leases:
    """An engine that records the clock of its renewals."""

    def __init__(self) -> None:
        self.away = False
        self.renewals = 0

    def renew(self, held: list[Assignment], notes: Any) -> list[Assignment]:
        if self.away:
            raise UNREACHABLE[0]("away")
        self.renewals += 1
        return []

    def count_late(self) -> None:
        """These tests do not use the count."""


def keeper_of(engine: Leases, clock: FakeClock, keep_time: Callable[[bool], None]) -> LeaseKeeper:
    return LeaseKeeper(
        engine,  # type: ignore[arg-type]  # all that is asked of it
        clock=clock,
        lease_ms=3_000_000,
        cancel=lambda token: False,
        on_timeout=lambda held, place: None,
        can_kill=False,
        keep_time=keep_time,
    )


def test_a_keeper_of_leases_keeps_the_time() -> None:
    """E9: a pool's child lives for days, and no overdue renewal waits for a comparison."""
    engine, clock, kept = Leases(), FakeClock(), list[tuple[bool, int]]()

    def keep_time(only_if_set: bool) -> None:
        kept.append((only_if_set, engine.renewals))
        raise UNREACHABLE[0]("the clock of nobody")

    keeper = keeper_of(engine, clock, keep_time)
    keeper.hold(Assignment("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d"))
    clock.advance(1001)
    keeper._tick()
    clock.advance(-100_000)  # set back: a renewal from the future is renewed now
    keeper._tick()
    # The comparison precedes a renewal only if the clock was set.
    assert kept == [(True, 0), (False, 1), (True, 1), (False, 2)]
    engine.away = True
    clock.advance(1001)
    keeper._tick()
    keeper._tick()
    assert kept[4:] == [(True, 2)]


def test_an_idle_process_tells_once_that_it_cannot_compare_its_clock() -> None:
    """Each child would otherwise log it every few seconds until the server answers."""
    away = True

    def keep_time(only_if_set: bool) -> None:
        if away and not only_if_set:  # a clock that was not set is not compared
            raise UNREACHABLE[0]("away")

    keeper = keeper_of(Leases(), FakeClock(), keep_time)
    with capture_logs() as logs:
        for _ in range(3):
            keeper._tick()
        away = False
        keeper._tick()
        away = True
        keeper._tick()
        keeper._tick()
    assert [row["event"] for row in logs] == ["clock not corrected, will go on trying"] * 2


def test_a_worker_process_gives_its_keeper_of_leases_the_servers_time(
    redis_url: str, host_clock: HostClock
) -> None:
    """E9: if NTP set the clock later, its leases would end in the past."""
    made = TracedWorker(redis_url, "child")
    leases = made.runtime.process().leases
    host_clock.wrong_s = -60
    leases._tick()
    assert isinstance(made.runtime.clock, SystemClock)
    assert host_clock.error_ms(made.runtime.clock) < NEAR_MS
    made.close()


def test_a_sweepers_clock_that_was_set_back_is_corrected(
    redis_url: str, host_clock: HostClock
) -> None:
    """E9: the correction comes at its next look, not when the clock has caught up."""
    made = TracedWorker(redis_url, "sweeper")
    runtime = made.runtime
    thread = SweeperThread(
        runtime.host.sweeper,
        runtime.edge,
        settings=runtime.settings,
        clock=runtime.clock,
        announce=lambda: runtime.catalog.keep_up(),
    )
    assert isinstance(runtime.clock, SystemClock)
    for wrong_s in (7200, -7200):
        host_clock.wrong_s = wrong_s
        thread.once()
        assert host_clock.error_ms(runtime.clock) < NEAR_MS
    made.close()
