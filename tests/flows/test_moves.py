"""Which faults did the simulator find in coordinator, sweeper and scripts?

Each test is the shortest history of one fault, over a real server.
"""

from __future__ import annotations

import pytest

from multiagents.core.policies import RetryPolicy
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind, SagaState
from multiagents.engine.sweeper import Sweeper
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys, due_dirty
from multiagents.storage.sagas import Guard
from tests.support.one_process import KEYS, SAGA, SHARD, Bench, chain, lose


def test_a_report_sent_twice_leaves_no_saga_dirty(bench: Bench) -> None:
    """The last report decides in one trip; after a lost reply it is sent again (E1)."""
    bench.start(*chain(2))
    held = bench.succeed(bench.claim())
    assert held is not None
    bench.twice = "advance"
    bench.succeed(held)
    assert due_dirty(SAGA) not in bench.due()


@pytest.mark.parametrize("script", ["advance", "commit"])
def test_a_commit_sent_twice_is_recognised(bench: Bench, script: str) -> None:
    """The process continues with the step it claimed and publishes its decision."""
    bench.start(*chain(3))
    bench.twice = script
    held: Assignment | None = bench.claim()
    for name in ("s1", "s2"):
        assert held is not None
        held = bench.succeed(held)
        assert held is not None
        assert held.step == name
    assert held is not None
    bench.succeed(held)
    assert bench.ends == [SagaState.COMPLETED]


def test_a_slow_sweep_forgets_nothing_that_is_due_anew(bench: Bench) -> None:
    """Its item was removed and became due again before the sweep drops it (E2)."""
    bench.edge.client.zadd(SHARD.due, {"o|x|o:run:a:1": 5})
    (item,) = bench.edge.execute(store.sweep(SHARD, 10, limit=9, lease_ms=1000))
    bench.edge.client.zadd(SHARD.due, {"o|x|o:run:a:1": 99})
    reason = (SagaKeys("x").work, "o:run:a:1", "")
    assert bench.edge.execute(store.drop(SHARD, item, because=reason)) == 0
    assert bench.due() == ["o|x|o:run:a:1"]


def test_a_sweep_forgets_nothing_for_a_reason_that_is_lost(bench: Bench) -> None:
    """The server lost the second in which a claim took the command; the command stays (E5)."""
    bench.start(*chain(1))
    (field,) = bench.work()
    bench.clock.advance(99)
    sweeper = bench.sweeper()
    (item,) = bench.edge.run(sweeper.due(SHARD))
    handling = sweeper.handle(item)
    assert handling.send(None) == store.command(KEYS, field)
    handling.send(None)  # as after a claim
    dropped = handling.send("a definition's version")
    assert bench.edge.execute(dropped) == 0
    assert bench.due() == [item.member]


def test_a_lost_and_late_success_reopens_what_has_ended(bench: Bench) -> None:
    """A zombie's success after the undo is undone again (E6)."""
    bench.start(*chain(1, compensation="undo", retry=RetryPolicy(max_attempts=1)))
    zombie = bench.claim()
    lose(bench.edge, bench.coordinator, zombie)
    bench.succeed(bench.claim())
    again = bench.succeed(zombie)
    assert again is not None
    assert (again.kind, again.attempt) == (Kind.UNDO, 2)
    assert again.idempotency_key.endswith(":undo:1")


class _Slow(Sweeper):
    """Takes an eighth of a lease for each item."""

    def __init__(self, bench: Bench) -> None:
        clock_ms = bench.clock.now_ms
        super().__init__(bench.coordinator, has_no_worker=lambda name: False, clock_ms=clock_ms)
        self._bench = bench

    async def handle(self, item: Guard) -> None:
        self._bench.clock.advance(self._bench.settings.lease_s / 8)
        await super().handle(item)


def test_a_batch_that_takes_long_is_no_gap_in_the_sweeping(bench: Bench) -> None:
    """Otherwise each lease would get another term, and no lost worker be found (E9)."""
    thread = SweeperThread(
        _Slow(bench), bench.edge, settings=bench.settings, clock=bench.clock, announce=None
    )
    thread.once()
    bench.edge.client.hset(SHARD.tick, "grace", 0)
    now_ms = bench.clock.now_ms()
    bench.edge.client.zadd(SHARD.due, {due_dirty(f"gone-{n}"): now_ms for n in range(12)})
    bench.clock.advance(1)
    thread.once()
    bench.sweep()
    assert bench.due() == []
    assert int(bench.edge.client.hget(SHARD.tick, "grace")) == 0
