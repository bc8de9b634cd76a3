"""What do a thousand workers cost a server without work, or with one item?

These are the engine's own rounds under a virtual clock, see `bench.herd`; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.herd import BEGAN_MS, SECOND_US, Fleet, Load, measure, table
from bench.ops import server
from multiagents.core.clock import FakeClock
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.hosting.sweep_pace import Pace
from multiagents.storage.client import Edge
from multiagents.storage.keys import Shard
from multiagents.workflows.builder import WorkflowBuilder

WORKERS = 1000
SETTINGS = Settings()
MOST_CALLS_S = 1.5 * WORKERS
"""Looks and sweeps of an idle fleet per second."""
MOST_AT_ONCE = 100
"""Calls within 10 ms; spread evenly, 1,400 a second would be 14."""
LATE_MS = SETTINGS.sweep_s * 1000
"""The promise of `sweep_s`."""
HANDLING_MS = 200
"""The time to handle one batch's items, one after the other."""


@pytest.fixture
def edge(redis_url: str) -> Iterator[Edge]:
    made = Edge(redis_url)
    yield made
    made.close()


def tick(edge: Edge) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = edge.client.hgetall(Shard().tick)
    return found


def hsets(edge: Edge) -> int:
    return int(edge.client.info("commandstats").get("cmdstat_hset", {"calls": 0})["calls"])


def test_a_thousand_idle_workers_ask_about_once_a_second_each(edge: Edge) -> None:
    """The calls are evenly spread, and nearly all only read."""
    fleet = Fleet(edge, workers=WORKERS)
    fleet.run(3 * SECOND_US)
    fleet.load = Load()
    before = hsets(edge)
    fleet.run(6 * SECOND_US)
    assert fleet.load.total / 3 <= MOST_CALLS_S
    assert fleet.load.peak <= MOST_AT_ONCE
    assert (hsets(edge) - before) / 3 <= 64 / SETTINGS.lease_s + 1


def test_a_timer_does_not_wake_all_that_know_of_it_at_once(edge: Edge) -> None:
    """One worker handles it in time, and the others hardly notice."""
    fleet = Fleet(edge, workers=WORKERS)
    fleet.add("timer", due_us=3 * SECOND_US)
    fleet.run(2 * SECOND_US)
    fleet.load = Load()
    fleet.run(5 * SECOND_US)
    assert len(fleet.load.done) == 1
    assert fleet.lateness_ms()[0] <= LATE_MS
    assert fleet.load.twice == 0
    assert fleet.load.peak <= MOST_AT_ONCE
    assert fleet.load.total / 3 <= MOST_CALLS_S


def test_a_burst_is_dealt_with_once_and_in_time(edge: Edge) -> None:
    """Each item goes to one sweeper, and late ones do not ask repeatedly."""
    fleet = Fleet(edge, workers=WORKERS)
    for number in range(2000):
        fleet.add(f"item{number}", due_us=2 * SECOND_US)
    fleet.run(5 * SECOND_US)
    assert len(fleet.load.done) == 2000
    assert fleet.load.twice == 0
    assert fleet.lateness_ms()[-1] <= LATE_MS
    assert (max(fleet.load.done.values()) - 2 * SECOND_US) / 1000 <= LATE_MS + HANDLING_MS
    assert fleet.load.calls["sweep"] / 5 <= MOST_CALLS_S / 4


def test_a_server_that_stood_still_does_not_bring_the_fleet_in_step(edge: Edge) -> None:
    """All workers get their replies at once, and must not stay in step."""
    fleet = Fleet(edge, workers=WORKERS)
    fleet.run(2 * SECOND_US)
    fleet.stall(2 * SECOND_US)
    fleet.run(8 * SECOND_US)
    fleet.load = Load()
    fleet.run(10 * SECOND_US)
    assert fleet.load.peak <= MOST_AT_ONCE


def test_the_last_worker_of_a_thousand_is_still_in_time(edge: Edge) -> None:
    """The promise does not depend on the assumed number of workers (E9)."""
    fleet = Fleet(edge, workers=WORKERS)
    fleet.run(2 * SECOND_US)
    fleet.keep(1)
    for number in range(5):
        fleet.add(f"timer{number}", due_us=(3 + 2 * number) * SECOND_US)
    fleet.run(14 * SECOND_US)
    assert len(fleet.load.done) == 5
    assert fleet.lateness_ms()[-1] <= LATE_MS


@pytest.mark.parametrize("left", [1, 2])
def test_a_fleet_that_shrinks_leaves_no_gap_in_the_ticks(edge: Edge, left: int) -> None:
    """E9: a worker that skipped a write is in time with the next one."""
    fleet = Fleet(edge, workers=40)
    fleet.run(20 * SECOND_US)
    grace = tick(edge)[b"grace"]
    fleet.keep(left)
    fleet.run(90 * SECOND_US)
    assert tick(edge)[b"grace"] == grace
    assert BEGAN_MS + 90_000 - int(tick(edge)[b"at"]) <= SETTINGS.lease_ms / 2


def test_the_scenes_make_a_table(edge: Edge) -> None:
    """The table has a heading and a line per scene."""
    heads, _, line = table(iter([measure(edge, "timers", 1)]))
    assert heads.count("|") == line.count("|")
    assert line.startswith("| timers | 1 |")


def test_what_single_calls_cost_is_told(redis_url: str) -> None:
    """The rows are those of docs/how-to/scaling.md."""
    rows = list(server(redis_url, times=50))
    assert [row["what"] for row in rows][-1] == "reading a fleet of 1,000"
    assert all(row["bytes_out"] > 0 for row in rows)


# ---- the pauses ----


def pace(peers: int, chance: float) -> Pace:
    return Pace(SETTINGS, peers=lambda: peers, chance=lambda: chance)


def test_a_worker_alone_is_punctual() -> None:
    """It wakes within 2 ms of a due item."""
    assert pace(1, 0.99).pause_s(1_500, 1_000) <= 0.502


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("due_ms", [None, 0, 1_000, 1_001, 1_900, 99_000])
def test_no_pause_is_longer_than_the_promise_allows(due_ms: float | None, chance: float) -> None:
    """This holds for any assumed number of workers and any due items."""
    pause_s = pace(100_000, chance).pause_s(due_ms, 1_000)
    assert 0 < pause_s <= min(SETTINGS.sweep_s, SETTINGS.lease_s / 8)


# ---- the catalog ----


def announced(edge: Edge, members: int, clock: FakeClock) -> Catalog:
    """The catalog of one more worker beside so many."""
    for number in range(members):
        edge.run(Catalog(clock).publish(f"w{number}", ["io"], []))
    catalog = Catalog(clock)
    edge.run(catalog.publish("me", ["io"], []))
    edge.run(catalog.keep_up())
    return catalog


def reads(edge: Edge) -> int:
    return int(edge.client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"])


def test_the_larger_a_fleet_the_less_often_it_is_read(edge: Edge) -> None:
    """Otherwise the total of reads would grow with the square of the fleet."""
    clock = FakeClock()
    catalog = announced(edge, 199, clock)
    assert catalog.peers == 200
    before = reads(edge)
    clock.advance(10)
    edge.run(catalog.keep_up())
    assert reads(edge) == before
    clock.advance(10)
    edge.run(catalog.keep_up())
    assert reads(edge) == before + 1


def test_workflows_are_published_again_only_if_they_changed_or_were_lost(edge: Edge) -> None:
    """Otherwise a thousand workers would write one text 100 times a second."""
    clock, key = FakeClock(), Shard(0).catalog("workflows")
    catalog = Catalog(clock)
    one, two = (WorkflowBuilder(name).add_step("a", "w").build() for name in ("one", "two"))
    edge.run(catalog.publish("me", ["io"], [one]))
    edge.client.delete(key)
    edge.run(catalog.publish("me", ["io"], [one]))
    assert edge.client.hkeys(key) == []
    edge.run(catalog.publish("me", ["io"], [one, two]))
    assert sorted(edge.client.hkeys(key)) == [b"one", b"two"]
    edge.client.flushdb()
    edge.run(catalog.publish("me", ["io"], [one, two]))
    assert sorted(edge.client.hkeys(key)) == [b"one", b"two"]


def test_what_was_killed_long_ago_is_forgotten(edge: Edge) -> None:
    """Containers have ever new host names, and the catalog must not grow."""
    clock = FakeClock()
    catalog = announced(edge, 3, clock)
    clock.advance(4000)
    edge.run(catalog.publish("me", ["io"], []))
    edge.run(catalog.keep_up())
    assert edge.client.hkeys(Shard(0).catalog("fleet")) == [b"me"]


def test_a_name_means_what_the_worker_says_that_began_last(edge: Edge) -> None:
    """This holds while old workers run beside new ones, and after they have gone."""
    clock = FakeClock()
    old, new = Catalog(clock), Catalog(clock)
    before, after = (
        WorkflowBuilder("order").add_step(step, "w").build() for step in ("before", "after")
    )
    edge.run(old.publish("old", ["io"], [before]))
    edge.run(new.publish("new", ["io"], [after]))
    clock.advance(400)
    for catalog, name, workflow in ((old, "old", before), (new, "new", after)):
        edge.run(catalog.publish(name, ["io"], [workflow]))
        assert edge.run(catalog.workflow("order")) == after
    edge.client.delete(Shard(0).catalog("workflows"))
    clock.advance(400)
    edge.run(old.publish("old", ["io"], [before]))
    assert edge.run(new.workflow("order")) == before  # better than none after a loss
