"""Does a briefly wrong clock, or a server's set back, delay anything for long?

A sweeper whose clock is an hour ahead puts off all leases by an hour. It also records its sweep's
time, which then lies in the future.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multiagents.cli.doctor import checks
from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Failure, decode
from multiagents.core.states import Kind, SagaState
from multiagents.storage import sagas as store
from multiagents.storage.health import read_due
from multiagents.storage.keys import Shard, due_dirty, due_lease, due_outbox, due_purge, due_timer
from multiagents.workflows.step import Step, TaskCall
from tests.support.one_process import KEYS, SAGA, SHARD, Bench

HOUR_S = 3600
DUE = Shard().due


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    made = Bench(redis_url)
    made.edge.client.flushdb()
    yield made
    made.edge.client.flushdb()
    made.edge.close()


def events(bench: Bench) -> list[str]:
    return [decode(text).type for text in bench.edge.run(log_of())]


def log_of() -> Any:
    return (yield store.log(KEYS))


def sweep_for(bench: Bench, seconds: float) -> None:
    """Sweeps go on, a second apart."""
    for _ in range(round(seconds)):
        bench.sweep()
        bench.clock.advance(1)


def lost_lease(bench: Bench) -> None:
    """A worker that held a step is gone, and sweeps went on."""
    bench.sweep()
    bench.start(Step(name="x", worker="a"))
    bench.claim()
    sweep_for(bench, 2)


def test_one_sweep_an_hour_ahead_delays_a_lost_lease_by_a_term(bench: Bench) -> None:
    """The lease had been put off by over an hour."""
    lost_lease(bench)
    bench.clock.advance(HOUR_S)
    bench.sweep()
    bench.clock.advance(-HOUR_S)
    sweep_for(bench, 3 * bench.settings.lease_s)
    assert "lost" in events(bench)


def test_a_server_that_is_set_back_delays_a_lost_lease_by_a_term(bench: Bench) -> None:
    """All processes follow the server's clock."""
    lost_lease(bench)
    bench.clock.advance(-HOUR_S)
    sweep_for(bench, 3 * bench.settings.lease_s)
    assert "lost" in events(bench)


def test_a_lease_that_is_renewed_stands(bench: Bench) -> None:
    """The correction does not cost a living worker its attempt."""
    bench.sweep()
    bench.start(Step(name="x", worker="a"))
    held = bench.claim()
    bench.clock.advance(HOUR_S)
    bench.sweep()
    bench.clock.advance(-HOUR_S)
    for _ in range(20):
        bench.sweep()
        assert bench.edge.execute(bench.coordinator.slots.renewal(held, {}))
        bench.clock.advance(bench.settings.lease_s / 3)
    assert "lost" not in events(bench)


def test_a_plain_task_keeps_its_time(bench: Bench) -> None:
    """A plain task renews nothing, so its lease returns to its old time."""
    bench.sweep()
    bench.start(Step(name="x", worker=TaskCall(task="t", queue="io", timeout_s=7200)))
    (member,) = [m for m in bench.edge.client.zrange(DUE, 0, -1) if m.startswith(b"l|")]
    ends = bench.edge.client.zscore(DUE, member)
    bench.clock.advance(HOUR_S)
    bench.sweep()
    bench.clock.advance(-HOUR_S)
    bench.sweep()
    assert bench.edge.client.zscore(DUE, member) < ends
    sweep_for(bench, 3 * bench.settings.lease_s)
    assert bench.edge.client.zscore(DUE, member) == ends
    bench.clock.advance(7200)
    sweep_for(bench, 3 * bench.settings.lease_s)
    assert "lost" in events(bench)


def test_only_what_may_be_looked_at_early_is_brought_forward(bench: Bench) -> None:
    """A retention must not end early; a retry may, and a deadline is put back."""
    now_ms, lease_ms = bench.clock.now_ms(), bench.settings.lease_ms
    far_ms = now_ms + 2 * HOUR_S * 1000
    early = [
        due_dirty("s"),
        due_outbox("s", "o:run:x:1"),
        due_lease("s", AttemptRef(Kind.RUN, "x", 1), "ab"),
    ]
    early += [due_timer("s:t|u", "undo:x:2"), due_timer("s", "deadline")]
    late = [due_purge(f"s{n}") for n in range(9)]
    many = [due_dirty(f"s{n}") for n in range(2500)]
    bench.edge.client.zadd(DUE, dict.fromkeys([*early, *late, *many], far_ms))
    bench.edge.client.hset(SHARD.tick, mapping={"at": far_ms - 1, "grace": far_ms})
    assert bench.edge.run(bench.sweeper().due(SHARD)) == ()
    scores = {m.decode(): s for m, s in bench.edge.client.zrange(DUE, 0, -1, withscores=True)}
    assert {scores[each] for each in (*early, *many)} == {now_ms + lease_ms}
    assert {scores[each] for each in late} == {far_ms}


def test_one_sweep_an_hour_ahead_delays_no_deadline_by_an_hour(bench: Bench) -> None:
    """That sweep hides the deadline by its own clock; the next one makes it due in a term."""
    bench.start(Step(name="x", worker="a"), timeout_s=600)
    bench.clock.advance(3600)
    bench.edge.run(bench.sweeper().due(SHARD))  # dies before it acts
    bench.clock.advance(-3600)
    sweep_for(bench, 2 * bench.settings.lease_s)
    assert bench.saga().state is SagaState.RUNNING
    bench.clock.advance(600)
    sweep_for(bench, 2 * bench.settings.lease_s)
    assert bench.saga().error == Failure("SagaDeadline", "not done in 600 s")


def test_whatever_stands_among_many_that_stay_is_brought_forward(bench: Bench) -> None:
    """The set is read page by page, with equal or different times."""
    now_ms, lease_ms = bench.clock.now_ms(), bench.settings.lease_ms
    far_ms = now_ms + 2 * HOUR_S * 1000
    stay = {due_purge(f"s{n}"): far_ms + max(0, n - 2500) for n in range(5000)}
    come = {due_outbox(f"s{n}", "o:run:x:1"): far_ms + n // 2 for n in range(0, 6000, 3)}
    bench.edge.client.zadd(DUE, {**stay, **come})
    bench.edge.client.hset(SHARD.tick, mapping={"at": far_ms, "grace": far_ms})
    bench.edge.run(bench.sweeper().due(SHARD))
    scores = {m.decode(): s for m, s in bench.edge.client.zrange(DUE, 0, -1, withscores=True)}
    assert {scores.pop(each) for each in come} == {now_ms + lease_ms}
    assert scores == stay


def test_doctor_names_what_is_due_later_than_anything_may_be(bench: Bench) -> None:
    """The finding names the first of them and says what to do."""
    now_ms = bench.clock.now_ms()
    fine = bench.edge.run(read_due([0], now_ms))
    assert checks.due(fine, now_ms).status == "ok"
    year_ms = 366 * 86_400_000
    members = {due_dirty(SAGA): 3 * HOUR_S * 1000, due_timer(SAGA, "deadline"): 2 * year_ms}
    bench.edge.client.zadd(DUE, {name: now_ms + ms for name, ms in members.items()})
    bench.edge.client.zadd(DUE, {due_purge(SAGA): now_ms + year_ms, due_timer("t", "u"): now_ms})
    found = checks.due(bench.edge.run(read_due([0], now_ms)), now_ms)
    assert found.status == "warn"
    assert "2 items due later than any item can be, the first (d|saga) in 3 h" in found.message
    assert f"ZADD ma:{{s00}}:due XX {now_ms} MEMBER" in str(found.fix)
