"""Is an earlier version's stored state read, understood and brought to its end?

`tests/upgrade/state` has one state per released format, with sagas in every situation, and their
ends under that time's engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from multiagents.core.clock import FakeClock, SystemClock
from multiagents.core.exceptions import NewerFormat
from multiagents.core.settings import Settings
from multiagents.hosting.sweeper_thread import ANNOUNCE_MS, SweeperThread
from multiagents.storage.formats import FORMAT
from multiagents.storage.keys import Shard
from multiagents.storage.routing import open_edge
from tests.support.processes import Worker, wait_for
from tests.upgrade.state import work
from tests.upgrade.state.make import record
from tests.upgrade.state.player import YEARS_S, Player
from tests.upgrade.state.shape import shape_of
from tests.upgrade.state.stored import State, restore, states

STATES = states()
STORED = pytest.mark.parametrize("state", STATES, ids=lambda state: f"format {state.format}")
KEPT = {"definitions", "format", "tick", "catalog:fleet", "catalog:workflows"}
"""Keys that outlive their sagas."""


@pytest.fixture
def player(redis_url: str) -> Iterator[Player]:
    made = Player(redis_url)
    yield made
    made.close()


def put_back(url: str, state: State) -> None:
    with redis.Redis.from_url(url) as client:
        restore(client, state)


def test_the_present_format_is_stored() -> None:
    """Each released version has a stored state; see docs/how-to/upgrading.md."""
    assert FORMAT in [state.format for state in STATES]


def test_the_present_format_is_written_as_it_is_stored(redis_url: str) -> None:
    """Versions of one format run side by side, so an older one has to read a newer one's data.

    A compatible change needs a new stored state, any other a new format.
    """
    now, then = shape_of(record(redis_url)), shape_of(STATES[-1])
    assert (sorted(now - then), sorted(then - now)) == ([], [])


@STORED
def test_a_stored_saga_is_read_as_it_was(player: Player, state: State) -> None:
    """State, results, errors, times and the whole history are equal, compressed or not."""
    put_back(player.settings.redis_url, state)
    assert {saga: player.present(saga) for saga in state.before} == state.before


@STORED
def test_a_stored_saga_ends_as_it_would_have(player: Player, state: State) -> None:
    """Its outcome is delivered, and nothing of it stays open."""
    put_back(player.settings.redis_url, state)
    player.clock.advance((state.at_ms - player.clock.now_ms()) / 1000)
    player.finish(state.later)
    assert {saga: player.outcome(saga) for saga in state.expected} == state.expected
    client = player.edge.client
    assert not [key for key in client.keys("ma:*:work:*") if client.hlen(key)]


@STORED
def test_stored_dead_letters_are_found(player: Player, state: State) -> None:
    """A reindex also finds those of a version that did not list them."""
    put_back(player.settings.redis_url, state)
    player.host.call("reindex_dead_letters")
    found = {(row["transaction_id"], row["step"]) for row in player.host.call("dead_letters")}
    assert found == {
        (saga, name)
        for saga, seen in state.before.items()
        for name, step in seen["steps"].items()
        if "parked" in (step["state"], (step["compensation"] or {}).get("state"))
    }
    assert len(found) == 4


@STORED
def test_a_stored_saga_is_removed_whole(player: Player, state: State) -> None:
    """At the end of its retention this version removes all keys of the other one."""
    put_back(player.settings.redis_url, state)
    player.clock.advance((state.at_ms - player.clock.now_ms()) / 1000)
    player.finish(state.later)
    for _ in range(3):  # a gap between sweeps first, then all due items
        player.clock.advance(1 + YEARS_S)
        player.sweep()
    left = {key.decode() for key in player.edge.client.keys("ma:*")}
    assert left - {f"{Shard(0).tag}:{name}" for name in KEPT} == set()


@pytest.mark.processes
@STORED
def test_a_real_worker_finishes_what_another_version_has_begun(
    redis_url: str, state: State
) -> None:
    """It handles the messages that were queued while the workers were replaced, too."""
    put_back(redis_url, state)
    player = Player(redis_url, SystemClock())
    env = {"MULTIAGENTS_LEASE_S": "1", "MULTIAGENTS_RETENTION_S": str(YEARS_S)}
    with Worker(redis_url, "-c", "4", "-P", "threads", imports=work.__name__, env=env) as worker:
        worker.wait_ready()
        for saga, act, *rest in state.later:
            (player.ask if act == "ask" else player.report)(saga, *rest)
        expected = {saga: seen["state"] for saga, seen in state.expected.items()}
        wait_for(lambda: _states(player, expected) == expected, 20, "all sagas to end")
        done = [saga for saga, ended in expected.items() if ended == "completed"]
        wait_for(lambda: _results(player, done) == {"SUCCESS"}, 10, "their results")
        wait_for(lambda: _results(player, ["first", "other"]) == {"FAILURE"}, 10, "its failure")
    player.close()


def _states(player: Player, sagas: dict[str, Any]) -> dict[str, Any]:
    return {saga: player.host.call("get", saga)["state"] for saga in sagas}


def _results(player: Player, task_ids: list[str]) -> set[str]:
    return {player.app.AsyncResult(task_id).state for task_id in task_ids}


# ---- a newer format ----


@pytest.fixture
def newer(redis_url: str) -> str:
    """A server with data of a worker of the next format."""
    with redis.Redis.from_url(redis_url) as client:
        client.set(Shard(0).format, FORMAT + 1)
    return redis_url


def test_an_engine_refuses_a_format_that_it_does_not_know(newer: str) -> None:
    """The connection's first use raises with a remedy, and changes nothing."""
    player = Player(newer, FakeClock())
    with pytest.raises(
        NewerFormat, match=rf"format {FORMAT + 1}.*supports formats up to {FORMAT}: up"
    ):
        player.start("s", work.chain)
    with redis.Redis.from_url(newer) as client:
        assert client.keys("*") == [Shard(0).format.encode()]
    player.close()


def test_only_the_shards_of_a_server_are_asked(redis_url: str) -> None:
    """Only the sagas on the newer server are refused."""
    base = redis_url.rpartition("/")[0]
    urls = f"{base}/0,{base}/1"
    with redis.Redis.from_url(f"{base}/1") as client:
        client.set(Shard(1).format, FORMAT + 1)
    edge = open_edge(Settings(redis_url=redis_url, state_urls=urls), perform=lambda effect: None)
    try:
        assert edge.client.ping()
        with pytest.raises(NewerFormat):
            _ = edge._homes.edges[1].client
    finally:
        edge.close()
        with redis.Redis.from_url(f"{base}/1") as client:
            client.flushdb()


@pytest.mark.processes
def test_a_worker_ends_when_a_newer_one_has_written(redis_url: str) -> None:
    """The worker gives the reason, and its exit code is an error's."""
    with redis.Redis.from_url(redis_url) as client:
        client.set(Shard(0).format, FORMAT + 1)
        with Worker(redis_url, "-c", "1", imports=work.__name__) as worker:
            assert worker.process.wait(30) == 1
            assert f"stored in format {FORMAT + 1}" in worker.log
            assert "upgrade it" in worker.log
        assert client.get(Shard(0).format) == str(FORMAT + 1).encode()


def test_a_worker_looks_again_every_ten_seconds(redis_url: str) -> None:
    """A newer worker may begin at any time, and the older one's work may then do harm."""
    player = Player(redis_url)
    thread = SweeperThread(
        player.host.sweeper,
        player.edge,
        settings=player.settings,
        clock=player.clock,
        announce=None,
    )
    thread.once()
    player.edge.client.set(Shard(0).format, FORMAT + 1)
    player.clock.advance(ANNOUNCE_MS / 1000 + 1)
    with pytest.raises(NewerFormat):
        thread.once()
    player.close()


def test_a_worker_notes_its_format(redis_url: str) -> None:
    """Older workers read it; a lower number is raised, and a newer one never lowered."""
    with redis.Redis.from_url(redis_url) as client:
        for before, after in ((None, FORMAT), (0, FORMAT), (FORMAT, FORMAT)):
            if before is not None:
                client.set(Shard(0).format, before)
            player = Player(redis_url)
            player.announce()
            player.close()
            assert int(client.get(Shard(0).format)) == after
