"""Does each waiter get the outcome once, and does nothing of it stay behind?"""

from __future__ import annotations

import pytest

from multiagents.core.entries import Succeeded
from multiagents.core.states import Action, SagaState
from multiagents.storage import outcomes
from multiagents.storage import sagas as store
from multiagents.storage.keys import due_purge
from multiagents.workflows.workflow import Workflow
from tests.support.one_process import KEYS, SAGA, SHARD, Bench, chain

CANVAS = '{"chain":[{"task":"ship"}]}'
SHIP = {"chain": [{"task": "ship"}]}


def join(bench: Bench, task_id: str, canvas: str = "") -> bool:
    """Start the same saga for another waiter; returns whether that made a new one."""
    workflow = Workflow(name="w", steps=tuple(chain(1)))
    data = {"input": "{}", "meta": "{}"}
    flow = bench.coordinator.start(workflow, saga_id=SAGA, waiting=(task_id, canvas), data=data)
    return bench.edge.run(flow) == store.CREATED


def test_the_first_end_is_what_is_delivered(bench: Bench) -> None:
    """The outcome from before the rollback is delivered (rule 14)."""
    bench.delivers = False
    bench.start(*chain(1, compensation="undo"))
    bench.succeed(bench.claim())
    bench.ask(Action.ROLLBACK)
    bench.delivers = True
    bench.clock.advance(3)
    bench.sweep()
    assert bench.ends == [SagaState.COMPLETED]


def test_a_second_start_learns_the_outcome_of_a_saga_that_was_reopened(bench: Bench) -> None:
    """A second waiter gets the first outcome, too (rules 12 and 14)."""
    steps = chain(1, compensation="undo")
    bench.start(*steps)
    bench.succeed(bench.claim())
    bench.ask(Action.ROLLBACK)
    bench.start(*steps)
    assert bench.ends == [SagaState.COMPLETED] * 2


def test_retention_ends_by_any_clock(bench: Bench) -> None:
    """A sweeper with a slow clock removes the saga a little later (E16)."""
    bench.start(*chain(1))
    bench.succeed(bench.claim())
    ended_ms = bench.clock.now_ms()
    due_ms = ended_ms + bench.settings.retention_ms - 2000
    bench.edge.client.zadd(SHARD.due, {due_purge(SAGA): due_ms})
    bench.clock.advance(99)
    bench.sweep()
    assert bench.due() == [due_purge(SAGA)]
    bench.clock.advance(2)
    bench.sweep()
    assert bench.edge.client.keys(f"*:{SAGA}") == []


def test_the_first_end_is_told_though_one_decision_went_past_it(bench: Bench) -> None:
    """The reporting process died; the operator's terminate decides over both entries."""
    bench.start(*chain(1))
    held = bench.claim()
    row = (*held.ref, held.nonce)
    bench.edge.execute(store.report(KEYS, Succeeded(bench.clock.now_ms(), *row), result="{}"))
    bench.ask(Action.TERMINATE)
    bench.clock.advance(3)
    bench.sweep()
    assert bench.ends == [SagaState.COMPLETED]


def test_a_canvas_is_started_once_however_many_starts_follow(bench: Bench) -> None:
    """A repeated webhook does not ship twice (rule 12)."""
    assert join(bench, "t1", CANVAS)
    bench.succeed(bench.claim())
    assert bench.told == [{"t1": SHIP}]
    assert not join(bench, "t1", CANVAS)
    assert not join(bench, "t2", CANVAS)
    assert bench.told[1:] == [{"t1": {}}, {"t1": {}, "t2": SHIP}]
    assert bench.work() == {}


def test_a_canvas_is_started_once_though_two_tell_of_the_end(bench: Bench) -> None:
    """A start or a sweep may come while the first process delivers the outcome (rule 12)."""
    other = bench.beside()
    join(bench, "t1", CANVAS)
    held = bench.claim()
    bench.forget()

    def meanwhile() -> None:
        join(other, "t2", CANVAS)
        bench.clock.advance(3)
        other.sweep()

    bench.interrupted(bench.report_of(held), "settle", meanwhile)
    bench.clock.advance(3)
    bench.sweep()
    started = [task for told in bench.told for task, canvas in told.items() if canvas]
    assert sorted(started) == ["t1", "t2"]
    assert (bench.work(), bench.due()) == ({}, [due_purge(SAGA)])
    other.edge.close()


def test_a_canvas_that_could_not_be_started_is_started_by_the_next(bench: Bench) -> None:
    """The next process starts it at once after an error, or a term after a death."""
    join(bench, "t1", CANVAS)
    bench.delivers = False
    held = bench.claim()
    bench.succeed(held)
    bench.delivers, bench.lose = True, "settle"
    bench.clock.advance(3)
    with pytest.raises(ConnectionError):
        bench.sweep()
    assert bench.told == [{"t1": SHIP}]
    bench.lose = ""
    for _ in range(4):
        bench.clock.advance(3)
        bench.sweep()
    assert bench.told[1:] == [{"t1": {}}] * 4
    for _ in range(8):
        bench.clock.advance(3)
        bench.sweep()
    assert {"t1": SHIP} in bench.told[1:]
    assert bench.work() == {}


def test_who_starts_after_the_end_is_told_though_it_cannot_be_done_at_once(bench: Bench) -> None:
    """If the results are away or the process dies, a sweep delivers it (rule 14)."""
    join(bench, "t1")
    bench.succeed(bench.claim())
    bench.delivers = False
    join(bench, "t2")
    bench.delivers = True
    bench.clock.advance(3)
    bench.sweep()
    assert [sorted(waiting) for waiting in bench.told] == [["t1"], ["t1", "t2"]]
    assert bench.work() == {}
    assert bench.due() == [due_purge(SAGA)]


def test_who_starts_while_the_end_is_told_is_not_forgotten(bench: Bench) -> None:
    """The delivery to one waiter does not settle the other's."""
    other = bench.beside()
    join(bench, "t1")
    held = bench.claim()
    bench.forget()

    def meanwhile() -> None:
        other.delivers = False
        join(other, "t2")

    bench.interrupted(bench.report_of(held), "settle", meanwhile)
    assert bench.told == [{"t1": {}}]
    bench.clock.advance(3)
    bench.sweep()
    assert sorted(bench.told[-1]) == ["t1", "t2"]
    assert bench.work() == {}
    other.edge.close()


def test_what_is_gone_owes_nothing(bench: Bench) -> None:
    """E16: a start that finds its saga removed leaves no key behind."""
    assert not bench.edge.execute(outcomes.owe(KEYS, "v", 0, nonce="a" * 16))
    assert bench.edge.client.keys() == []


def test_an_end_that_its_server_has_lost_is_not_owed(bench: Bench) -> None:
    """E5: a new waiter waits for the next end, and sweeps look for no lost one."""
    join(bench, "t1")
    held = bench.claim()
    client = bench.edge.client
    before = {key: client.dump(key) for key in client.keys("*")}
    bench.succeed(held)
    again = bench.coordinator.ends.join(KEYS)

    def set_back() -> None:
        client.flushdb()
        for key, value in before.items():
            client.restore(key, 0, value)

    bench.interrupted(again, "owe", set_back)
    assert [name for name in bench.work() if name.startswith("o:")] == []
    bench.succeed(held)
    assert bench.ends == [SagaState.COMPLETED] * 2
    assert bench.work() == {}


def test_retention_waits_until_the_end_is_told(bench: Bench) -> None:
    """Rule 14: an earlier removal would lose the result and all that depends on it."""
    bench.start(*chain(1))
    bench.delivers = False
    bench.succeed(bench.claim())
    for _ in range(60):
        bench.clock.advance(2)
        bench.sweep()
    assert bench.edge.client.exists(KEYS.saga)
    bench.delivers = True
    for _ in range(30):
        bench.clock.advance(2)
        bench.sweep()
    assert bench.ends == [SagaState.COMPLETED]
    assert bench.edge.client.keys(f"*{SAGA}*") == []
    assert bench.due() == []


def test_who_starts_after_a_sweep_has_told_the_others_is_told_too(bench: Bench) -> None:
    """A slow delivery settles only the waiters that it has seen."""
    sweeping, other = bench.beside(), bench.beside()
    join(bench, "t1")
    bench.succeed(bench.claim())

    def meanwhile() -> None:
        bench.clock.advance(3)
        sweeping.sweep()
        assert bench.work() == {}
        other.delivers = False
        join(other, "t3")

    _, workflow = bench.edge.run(bench.coordinator.repository.current(SAGA))
    data = {"input": "{}", "meta": "{}"}
    flow = bench.coordinator.start(workflow, saga_id=SAGA, waiting=("t2", ""), data=data)
    bench.interrupted(flow, "settle", meanwhile)
    bench.clock.advance(3)
    sweeping.sweep()
    assert "t3" in bench.told[-1]
    assert bench.work() == {}
    for process in (sweeping, other):
        process.edge.close()
