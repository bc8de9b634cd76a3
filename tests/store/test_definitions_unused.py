"""Does a definition go with its last saga, and never before?

A program with a workflow per saga would otherwise fill its server and the memory of each worker.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.entries import Succeeded
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.cache import DEFINITIONS, Recent
from multiagents.hosting.app import defaults
from multiagents.storage import definitions
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.workflows.step import Step
from multiagents.workflows.workflow import Workflow
from tests.support.one_process import SAGA, SHARD, Bench, row


@pytest.fixture
def bench(redis_url: str) -> Iterator[Bench]:
    made = Bench(redis_url)
    made.edge.client.flushdb()
    yield made
    made.edge.client.flushdb()
    made.edge.close()


def flow(step: str) -> Workflow:
    return Workflow(name="w", steps=(Step(name=step, worker="a"),))


def start(bench: Bench, saga_id: str, workflow: Workflow) -> None:
    data = {"input": "{}", "meta": "{}"}
    bench.edge.run(
        bench.coordinator.start(workflow, saga_id=saga_id, waiting=(saga_id, ""), data=data)
    )


def end(bench: Bench, saga_id: str) -> None:
    """Report its step and deliver its outcome."""
    step = bench.sent.pop().step
    claim = bench.coordinator.slots.claim(
        saga_id, AttemptRef(Kind.RUN, step, 1), delivery="d", queue="io"
    )
    held = bench.edge.run(claim)
    assert held is not None
    done = Succeeded(bench.clock.now_ms(), *row(held))
    bench.edge.run(bench.coordinator.report(saga_id, done, result="{}"))


def stored(bench: Bench) -> set[str]:
    return {each.decode() for each in bench.edge.client.hkeys(SHARD.definitions)}


def retention_ends(bench: Bench) -> None:
    bench.clock.advance(bench.settings.retention_s + 1)
    for _ in range(3):
        bench.sweep()
        bench.clock.advance(bench.settings.lease_s + 1)


def test_a_definition_goes_with_its_last_saga(bench: Bench) -> None:
    """A second saga keeps the definition, and other definitions stay."""
    one, other = flow("one"), flow("other")
    start(bench, "s1", one)
    end(bench, "s1")
    bench.clock.advance(50)
    start(bench, "s2", one)
    end(bench, "s2")
    start(bench, "s3", other)
    bench.clock.advance(bench.settings.retention_s - 40)
    bench.sweep()
    bench.clock.advance(bench.settings.lease_s + 1)
    bench.sweep()
    assert not bench.edge.client.exists("ma:{s00}:saga:s1")
    assert stored(bench) == {one.version, other.version}
    retention_ends(bench)
    assert stored(bench) == {other.version}
    assert not bench.edge.client.exists(SHARD.unused)
    due = bench.edge.client.zrange(SHARD.due, 0, -1)
    assert k.due_definitions(SHARD).encode() not in due


def test_a_start_while_it_is_looked_keeps_its_definition(bench: Bench) -> None:
    """The starting process takes it for stored, and the scan has passed the new saga."""
    workflow = flow("one")
    start(bench, SAGA, workflow)
    end(bench, SAGA)
    bench.clock.advance(bench.settings.retention_s + 1)
    bench.sweep()
    assert bench.edge.client.hexists(SHARD.unused, workflow.version)
    looking = definitions.collect(SHARD, clock_ms=bench.clock.now_ms, lease_ms=0)
    removed = bench.interrupted(looking, "forget", lambda: start(bench, "late", workflow))
    assert removed == 0
    assert stored(bench) == {workflow.version}
    end(bench, "late")
    assert bench.ends[-1] == "completed"


def test_no_other_sweeper_looks_at_the_same_time(bench: Bench) -> None:
    """A look at a million sagas outlasts the time for which a sweep hides its item."""
    workflow = flow("one")
    start(bench, SAGA, workflow)
    end(bench, SAGA)
    bench.clock.advance(bench.settings.retention_s + 1)
    bench.sweep()
    bench.clock.advance(bench.settings.lease_s + 1)
    seen: list[tuple[store.Guard, ...]] = []

    def look_too() -> None:
        bench.clock.advance(5)
        seen.append(bench.edge.run(bench.sweeper().due(SHARD)))

    (item,) = bench.edge.run(bench.sweeper().due(SHARD))
    bench.interrupted(bench.sweeper().handle(item), "uses", look_too)
    assert (seen, stored(bench)) == ([()], set())


def test_a_look_that_took_long_is_followed_by_a_long_rest(bench: Bench) -> None:
    """The looks take only a share of the server's time, whatever is marked."""
    workflow = flow("one")
    start(bench, SAGA, workflow)
    end(bench, SAGA)
    bench.clock.advance(bench.settings.retention_s + 1)
    bench.sweep()
    looking = definitions.collect(SHARD, clock_ms=bench.clock.now_ms, lease_ms=1000)
    assert bench.interrupted(looking, "uses", lambda: bench.clock.advance(4)) == 1
    member = k.due_definitions(SHARD)
    assert bench.edge.client.zscore(SHARD.due, member) == bench.clock.now_ms() + 200_000
    bench.clock.advance(201)
    bench.sweep()
    assert bench.edge.client.zscore(SHARD.due, member) is None


def test_a_process_that_believes_it_stored_sends_it_again(bench: Bench) -> None:
    """The definition was removed since."""
    workflow = flow("one")
    start(bench, SAGA, workflow)
    end(bench, SAGA)
    retention_ends(bench)
    assert stored(bench) == set()
    start(bench, "again", workflow)
    assert stored(bench) == {workflow.version}


def test_nothing_is_removed_where_a_saga_cannot_be_read(bench: Bench) -> None:
    """An unreadable saga may use any definition."""
    workflow = flow("one")
    start(bench, SAGA, workflow)
    end(bench, SAGA)
    bench.edge.client.set("ma:{s00}:saga:broken", "a string")
    bench.edge.client.zadd(SHARD.sagas, {"broken": 1})
    retention_ends(bench)
    assert stored(bench) == {workflow.version}
    bench.edge.client.delete("ma:{s00}:saga:broken")
    bench.clock.advance(definitions.AGAIN_MS / 1000 + 1)
    bench.sweep()
    assert stored(bench) == set()


def test_many_are_removed_page_by_page(bench: Bench) -> None:
    """There are more than one batch, among more sagas than one call reads."""
    client = bench.edge.client
    names = [f"v{number}" for number in range(definitions.MOST + 50)]
    client.hset(SHARD.definitions, mapping=dict.fromkeys(names, "{}"))
    client.hset(SHARD.unused, mapping=dict.fromkeys(names, "s"))
    client.zadd(SHARD.sagas, {f"s{number}": number for number in range(definitions.PAGE * 3)})
    client.hset("ma:{s00}:saga:s7", "w", "v7")
    client.zadd(SHARD.due, {k.due_definitions(SHARD): bench.clock.now_ms()})
    bench.sweep()
    assert len(stored(bench)) in range(50, 52)
    bench.clock.advance(bench.settings.lease_s + 1)
    bench.sweep()
    assert stored(bench) == {"v7"}


def test_what_a_process_remembers_is_bounded(redis_url: str) -> None:
    """The process keeps the last definitions parsed, and reads others again."""
    bench = Bench(redis_url)
    known = bench.coordinator.repository.definitions
    first = flow("s0")
    start(bench, "bounded-0", first)
    for number in range(1, DEFINITIONS + 2):
        start(bench, f"bounded-{number}", flow(f"s{number}"))
    assert len(known._values) == DEFINITIONS
    assert first.version not in known
    saga, workflow = bench.edge.run(bench.coordinator.repository.current("bounded-0"))
    assert (saga.id, workflow) == ("bounded-0", first)
    bench.edge.close()


def test_what_was_used_last_is_kept() -> None:
    """The process can parse the rest again."""
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)


@pytest.mark.parametrize(("retention_s", "expires"), [(0, 1), (0.4, 1), (1.2, 2), (604800, 604800)])
def test_a_short_retention_keeps_no_result_for_ever(retention_s: float, expires: int) -> None:
    """Celery takes an expiry of 0 s for none."""
    settings = Settings(redis_url="redis://h/0", retention_s=retention_s)
    assert defaults(settings)["result_expires"] == expires
