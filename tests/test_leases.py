"""Are leases long enough, and is it noticed when they are renewed late?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from multiagents import WorkflowBuilder, worker
from multiagents.bootstrap import runtime_at
from multiagents.cli import checks
from multiagents.core.clock import FakeClock
from multiagents.core.ports import Assignment
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.orchestrator.catalog import Catalog
from multiagents.orchestrator.host import Host
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.worker_sdk.leases import LeaseKeeper
from multiagents.worker_sdk.validation import check_input


@worker("lease_crunch", kind="cpu")
def crunch(context: dict[str, Any]) -> dict[str, Any]:
    return {}


@worker("lease_fetch")
def fetch(context: dict[str, Any]) -> dict[str, Any]:
    return {}


def host(redis_url: str) -> Host:
    clock = FakeClock()
    catalog = Catalog(clock)
    catalog.add_local(crunch.info)
    catalog.add_local(fetch.info)
    edge = Edge(redis_url, perform=lambda effect: True)
    settings = Settings(redis_url=redis_url, lease_s=2)
    return Host(edge, settings=settings, clock=clock, catalog=catalog, check_input=check_input)


def lease_s(made: Host, name: str) -> float:
    """The lease that a claim of a step by this worker gets, and keeps when it is renewed."""
    saga_id = made.call("start", WorkflowBuilder(name).add_step("only", name).build())
    held = made.engine.claim(saga_id, Kind.RUN, "only", 1, delivery="d", queue="io")
    assert held is not None
    assert made.engine.renew([held], {}) == []
    ends = [
        score
        for member, score in made.edge.client.zrange(Shard().due, 0, -1, withscores=True)
        if member.startswith(f"l|{saga_id}".encode())
    ]
    made.edge.close()
    return (ends[0] - made.clock.now_ms()) / 1000


def test_a_cpu_step_has_a_lease_of_fifteen_seconds_at_least(redis_url):
    """E9: whatever MULTIAGENTS_LEASE_S says."""
    assert lease_s(host(redis_url), "lease_crunch") == 15
    assert lease_s(host(redis_url), "lease_fetch") == 2


class Watched:
    """An engine that only counts."""

    def __init__(self) -> None:
        self.late = 0

    def renew(self, held: list[Assignment], notes: Any) -> list[Assignment]:
        return []

    def count_late(self) -> None:
        self.late += 1


def test_a_late_renewal_is_counted(redis_url):
    """E9: late only if something was held all the while."""
    clock, engine = FakeClock(), Watched()
    keeper = LeaseKeeper(
        engine,
        clock=clock,
        lease_ms=3_000_000,
        cancel=lambda token, overdue=False: False,
        on_timeout=lambda held: None,
        can_kill=False,
    )
    held = Assignment("s", "w", "v", Kind.RUN, "a", 1, "n1", "w", "io", "d")
    keeper.hold(held)
    for seconds in (1000, 1000, 2500):
        clock.advance(seconds)
        keeper._tick()
    assert engine.late == 1
    keeper.release(held)
    clock.advance(9000)
    keeper.hold(Assignment("s", "w", "v", Kind.RUN, "b", 1, "n2", "w", "io", "d"))
    keeper._tick()
    assert engine.late == 1


def test_the_doctor_shows_late_renewals(redis_url):
    """Counted by host, forgotten when the worker leaves."""
    made = host(redis_url)
    made.edge.run(made.catalog.publish("h1", ["io"], []))
    made.coordinator.claims.hostname = "h1"
    made.engine.count_late()
    check = checks.heartbeats(made.edge.run(made.catalog.late()))
    assert (check.status, check.message) == ("warn", "leases were renewed late: h1 1 times")
    made.edge.run(made.catalog.withdraw("h1"))
    assert made.edge.run(made.catalog.late()) == {}
    made.edge.close()


def test_threads_that_begin_at_once_share_one_keeper_of_leases(redis_url: str) -> None:
    """What one thread lets another's keeper hold would never be released."""
    engine = runtime_at(f"{redis_url.rpartition('/')[0]}/9")  # that nobody has used yet
    together = Barrier(8)

    def first_use(_: int) -> LeaseKeeper:
        together.wait()
        return engine.process().leases

    with ThreadPoolExecutor(8) as pool:
        keepers = list(pool.map(first_use, range(8)))
    assert len({id(keeper) for keeper in keepers}) == 1
