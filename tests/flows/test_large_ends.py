"""What does the end of a saga with large results or a long log read?"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from multiagents.core.entries import Requested, encode
from multiagents.core.ports import Assignment
from multiagents.core.states import Action, SagaState
from multiagents.storage import outcomes
from multiagents.storage import sagas as store
from multiagents.storage.replies import End
from tests.support.one_process import KEYS, SAGA, Bench, chain, step

LARGE = json.dumps({"text": "x" * 200_000})
SMALL = '{"ok":1}'
LITTLE = 64 * 1024


def sent_by_server(bench: Bench) -> int:
    """The bytes that the server has sent so far."""
    return int(bench.edge.client.info("stats")["total_net_output_bytes"])


def to_the_last(bench: Bench, steps: int) -> Assignment:
    """A saga with large results whose last step has begun."""
    bench.start(*chain(steps))
    held: Assignment | None = bench.claim()
    for _ in range(steps - 1):
        assert held is not None
        held = bench.succeed(held, LARGE)
    assert held is not None
    return held


def at_once(bench: Bench, held: Assignment) -> None:
    bench.succeed(held, SMALL)


def with_a_lost_reply(bench: Bench, held: Assignment) -> None:
    bench.twice = "advance"
    bench.succeed(held, SMALL)


def by_a_sweep(bench: Bench, held: Assignment) -> None:
    bench.delivers = False
    bench.succeed(held, SMALL)
    bench.delivers = True
    bench.clock.advance(3)
    bench.sweep()


@pytest.mark.parametrize("tell", [at_once, with_a_lost_reply, by_a_sweep])
def test_an_end_reads_only_what_its_outcome_is_made_of(
    bench: Bench, tell: Callable[[Bench, Assignment], None]
) -> None:
    """E15: of 20 MB of results the server sends only the last step's, to any process."""
    held = to_the_last(bench, 101)
    before = sent_by_server(bench)
    tell(bench, held)
    assert sent_by_server(bench) - before < LITTLE
    assert bench.results == [{"ok": 1}]
    assert bench.edge.client.llen(KEYS.log) == 1
    assert bench.work() == {}


def test_who_joins_an_ended_saga_is_told_without_all_its_data(bench: Bench) -> None:
    """E15: a second start reads no more than the end did."""
    bench.succeed(to_the_last(bench, 11), SMALL)
    _, workflow = bench.edge.run(bench.coordinator.repository.current(SAGA))
    before = sent_by_server(bench)
    data = {"input": "{}", "meta": "{}"}
    again = bench.coordinator.start(workflow, saga_id=SAGA, waiting=("t2", ""), data=data)
    assert bench.edge.run(again) == store.EXISTED
    assert sent_by_server(bench) - before < LITTLE
    assert bench.results == [{"ok": 1}] * 2
    assert bench.told[-1].keys() == {SAGA, "t2"}


def test_the_end_of_a_failed_saga_reads_no_results(bench: Bench) -> None:
    """E15: its outcome is its error, without any results."""
    bench.start(step("s"), step("t"))
    failing = bench.claim()
    bench.succeed(bench.claim(), LARGE)
    before = sent_by_server(bench)
    bench.fail(failing)
    assert bench.ends == [SagaState.FAILED]
    assert sent_by_server(bench) - before < LITTLE


def test_an_outcome_has_the_results_of_any_number_of_last_steps(bench: Bench) -> None:
    """E15: they may exceed what one command takes."""
    count = 1100
    bench.start(*(step(f"s{number}") for number in range(count)))
    for number in range(count):
        bench.succeed(bench.claim(), f'{{"k{number}":{number}}}')
    assert bench.results == [{f"k{number}": number for number in range(count)}]


@pytest.mark.parametrize("count", [1200, 2000, 5200])
def test_a_long_log_is_compressed_at_the_end(bench: Bench, count: int) -> None:
    """E15: it is read in pages; a log too long for compression stays as it is."""
    bench.start(step("s"))
    held = bench.claim()
    had = len(bench.log())
    fill(bench, count - had - 1)
    before = sent_by_server(bench)
    bench.succeed(held, SMALL)
    sent = sent_by_server(bench) - before
    compressed = count <= outcomes.MOST_PACKED
    assert bench.edge.client.llen(KEYS.log) == (1 if compressed else count)
    assert len(bench.log()) == count
    assert bench.results == [{"ok": 1}]
    assert sent < count * 100 * (2 if compressed else 1)


def test_a_log_of_large_entries_is_compressed_at_the_end(bench: Bench) -> None:
    """E15: it is read after the commit, not sent with its reply."""
    bench.start(step("s"))
    held = bench.claim()
    asked = Requested(bench.clock.now_ms(), Action.PAUSE, "r", reason="x" * 2 * LITTLE)
    bench.edge.run(bench.coordinator.append(SAGA, asked))
    bench.ask(Action.RESUME)
    entries = len(bench.log())
    bench.succeed(held, SMALL)
    assert bench.edge.client.llen(KEYS.log) == 1
    assert len(bench.log()) == entries + 1
    assert asked in bench.log()


@pytest.mark.parametrize("count", [1000, 1001, 2500])
def test_a_log_that_is_compressed_while_it_is_read_is_read_whole(bench: Bench, count: int) -> None:
    """E15: two processes may deliver one outcome at the same time."""
    bench.start(step("s"))
    fill(bench, count - len(bench.log()))
    whole = bench.edge.execute(store.log(KEYS))
    version = bench.edge.execute(store.version(KEYS)) or ""
    pages = []

    async def reading() -> tuple[str, ...]:
        flow, reply = outcomes.read_log(KEYS), None
        while True:
            try:
                page = flow.send(reply)
            except StopIteration as stop:
                found: tuple[str, ...] = stop.value
                return found
            reply = await page
            if not pages:
                await outcomes.settle(KEYS, End(version, {}, whole))
            pages.append(page)

    assert bench.edge.run(reading()) == whole
    assert bench.edge.client.llen(KEYS.log) == 1


def fill(bench: Bench, count: int) -> None:
    """Append that many decided operator actions, none of which changes anything."""
    for number in range(count):
        entry = Requested(bench.clock.now_ms(), Action.RESUME, f"r{number}")
        bench.edge.client.rpush(KEYS.log, encode(entry))
    bench.edge.run(bench.coordinator.coordinate(SAGA))
