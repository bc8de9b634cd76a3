"""Which server does an operation go to, with one or several servers set?"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from celery import Celery

from multiagents import WorkflowBuilder, attach
from multiagents.core.clock import FakeClock, SystemClock
from multiagents.core.effects import Effect
from multiagents.core.exceptions import InvalidInput
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings, get_settings
from multiagents.devserver.server import EmbeddedServer
from multiagents.engine.catalog import FRESH_MS, Catalog
from multiagents.hosting.assembly import Host
from multiagents.hosting.sweeper_thread import SweeperThread
from multiagents.storage import sagas as store
from multiagents.storage.calls import Plain
from multiagents.storage.client import UNREACHABLE, Edge
from multiagents.storage.health import read_server
from multiagents.storage.keys import Shard
from multiagents.storage.routing import (
    MANY_S,
    RoutedEdge,
    ServerAway,
    open_async_edge,
    open_edge,
)
from multiagents.worker_sdk.validation import check_input
from tests.support import basic_workers
from tests.support.spread import id_on

URLS = "redis://:s3cret@127.0.0.1:1/0, redis://127.0.0.1:1/1"
"""No server is there."""


def no_effect(effect: Any) -> Any:
    return ("performed", effect)


# ---- settings ----


def test_without_state_urls_everything_is_on_one_server() -> None:
    """There is one shard, and the edge routes nothing."""
    settings = Settings(redis_url="redis://127.0.0.1:1/5", state_urls="")
    assert (settings.shards, settings.servers) == (1, {"redis://127.0.0.1:1/5": (0,)})
    assert type(open_edge(settings, perform=no_effect)) is Edge


def test_each_server_has_a_shard_by_default() -> None:
    """The broker stays where it is."""
    settings = Settings(state_urls=URLS)
    assert settings.shards == 2
    assert list(settings.servers.values()) == [(0,), (1,)]
    assert settings.redis_url not in settings.servers


def test_shards_go_round_the_servers() -> None:
    """Shard n is on server n modulo their count, as long as the servers keep their order."""
    homes = Settings(state_urls="redis://a,redis://b,redis://a", shards=7).servers
    assert homes == {"redis://a": (0, 2, 3, 5, 6), "redis://b": (1, 4)}


def test_fewer_shards_than_servers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to set, without a password."""
    monkeypatch.setenv("MULTIAGENTS_STATE_URLS", URLS)
    monkeypatch.setenv("MULTIAGENTS_SHARDS", "1")
    get_settings.cache_clear()
    with pytest.raises(InvalidInput, match=r"MULTIAGENTS_SHARDS is 1, .* set it to 2 or more") as e:
        get_settings()
    assert "s3cret" not in str(e.value)
    monkeypatch.setenv("MULTIAGENTS_STATE_URLS", "redis://a, :s3cret@b")
    with pytest.raises(InvalidInput, match=r"number 2 of 2: not the URL") as e:
        get_settings()
    assert "s3cret" not in str(e.value)
    get_settings.cache_clear()


def test_a_face_that_is_given_a_url_has_all_on_that_server() -> None:
    """`state_store=` and a bus's URL mean one server, despite several in the environment."""
    moved = Settings(state_urls=URLS).at("redis://c")
    assert (moved.redis_url, moved.servers) == ("redis://c", {"redis://c": (0,)})
    assert Settings(state_urls=URLS, shards=4).at("redis://c").shards == 4


# ---- edges ----


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedServer]]:
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(f"home{number}") for number in range(3)]
        yield [stack.enter_context(EmbeddedServer(folder)) for folder in folders]


@pytest.fixture
def edge(servers: list[EmbeddedServer]) -> Iterator[RoutedEdge]:
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
    made = open_edge(spread_over(servers), perform=no_effect, retries=0)
    assert isinstance(made, RoutedEdge)
    yield made
    made.close()


def spread_over(servers: list[EmbeddedServer], **more: Any) -> Settings:
    return Settings(state_urls=",".join(server.url for server in servers), **more)


def put(shard: Shard) -> Plain[Any]:
    return Plain(("HSET", shard.definitions, "where", shard.number), int)


@dataclass(frozen=True)
class Strange(Effect[Any]):
    """No operation of a server."""


def test_an_operation_goes_where_its_key_lives(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """A key without a shard goes to the first server; other effects are performed locally."""

    async def flow() -> Any:
        for number in range(3):
            await put(Shard(number))
        await Plain(("SET", "ma:breaker:x", "1"), bool)
        return await Strange()

    assert edge.run(flow()) == ("performed", Strange())
    for number, server in enumerate(servers):
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            spans = ["ma:breaker:x"] if number == 0 else []
            assert sorted(client.keys("*")) == sorted([*spans, Shard(number).definitions])


def test_a_command_without_a_key_goes_where_it_is_told(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """A question about a server names that server."""
    ports = []
    for number in range(3):
        health = edge.run(read_server(key=Shard(number).due))
        ports.append(health.info["tcp_port"])
    first = edge.run(read_server())
    assert ports == [str(server.port) for server in servers]
    assert first.info["tcp_port"] == ports[0]


def test_only_a_saga_whose_server_takes_no_writes_is_said_to_stand_still(
    servers: list[EmbeddedServer],
) -> None:
    """`explain` asks that saga's server and names it."""
    settings = spread_over(servers)
    app = Celery(broker=servers[0].url, set_as_current=False)
    runtime = attach(app, settings)
    workflow = WorkflowBuilder("still").add_step("one", "echo").build()
    sagas = [runtime.call("start", workflow, {}) for _ in range(12)]
    homes = {
        saga_id: runtime.host.coordinator.repository.keys(saga_id).shard.number for saga_id in sagas
    }
    with redis.Redis.from_url(servers[1].url) as client:
        client.config_set("maxmemory", "1")
        try:
            told = {saga_id: runtime.call("explain", saga_id)["reasons"][0] for saga_id in sagas}
        finally:
            client.config_set("maxmemory", "0")
    still = {saga_id for saga_id, reason in told.items() if reason["code"] == "no_writes"}
    assert still == {saga_id for saga_id, home in homes.items() if home == 1} != set()
    assert {told[saga_id]["server"] for saga_id in still} == {servers[1].url}
    runtime.edge.close()
    app.close()


def test_an_event_loop_finds_the_same_homes(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """The async edge reads the sync edge's writes, and performs other effects."""
    for number in range(3):
        edge.execute(put(Shard(number)))

    async def read() -> list[Any]:
        other = open_async_edge(spread_over(servers), perform=no_effect)
        try:
            keys = [Shard(number).definitions for number in range(3)]
            found = [await other.execute(Plain(("HGET", key, "where"), int)) for key in keys]
            return [*found, await other.execute(Strange())]
        finally:
            await other.close()

    assert asyncio.run(read()) == [0, 1, 2, ("performed", Strange())]


def test_a_server_that_is_down_is_named_and_the_others_answer(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """Other servers' operations go on, singly and in a batch; the error survives pickling."""
    calls = [store.sweep(Shard(number), 1, limit=9, lease_ms=9) for number in (0, 1, 2, 1)]
    servers[1].kill()
    try:
        replies = edge.many(calls)
        with pytest.raises(ServerAway, match="1 of 3 shards") as caught:
            edge.execute(put(Shard(1)))
        edge.execute(put(Shard(2)))
    finally:
        servers[1].restart()
    assert [isinstance(reply, ServerAway) for reply in replies] == [False, True, False, True]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.server) == (str(caught.value), servers[1].url)
    assert not any(isinstance(reply, Exception) for reply in edge.many(calls))
    assert edge.many([]) == []


def test_a_silent_server_keeps_no_batch_waiting(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """A worker's leases on other servers are renewed in time."""
    calls = [store.sweep(Shard(number), 1, limit=9, lease_ms=9) for number in range(3)]
    os.kill(servers[0].pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        replies = edge.many(calls)
        took_s = time.monotonic() - began
    finally:
        os.kill(servers[0].pid, signal.SIGCONT)
    assert [isinstance(reply, Exception) for reply in replies] == [True, False, False]
    assert took_s < MANY_S + 1


def test_the_clock_is_corrected_by_the_first_server_that_answers(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """A process can begin while the first server is down."""
    clock = SystemClock()
    clock.offset_ms = 3_600_000
    servers[0].kill()
    try:
        edge.correct(clock)
    finally:
        servers[0].restart()
    assert abs(clock.offset_ms) < 60_000


def test_the_catalog_believes_its_last_answer_while_the_first_server_is_down(
    edge: RoutedEdge, servers: list[EmbeddedServer]
) -> None:
    """Clients without code still start the workflows they started before."""
    publisher, clock = Catalog(SystemClock()), FakeClock(time.time_ns() // 1_000_000)
    publisher.add_local(WorkerInfo("charge", "io"))
    workflow = WorkflowBuilder("order").add_step("charge", "charge").build()
    edge.run(publisher.publish("w@host", ["io"], [workflow]))
    client = Catalog(clock)
    assert edge.run(client.missing({"charge"})) == set()
    assert edge.run(client.workflow("order")) == workflow
    clock.advance(2 * FRESH_MS / 1000)
    servers[0].kill()
    try:
        assert edge.run(client.missing({"charge"})) == set()
        assert edge.run(client.workflow("order")) == workflow
        with pytest.raises(ServerAway):
            edge.run(client.missing({"unheard"}))
        with pytest.raises(ServerAway):
            edge.run(client.workflow("unheard"))
    finally:
        servers[0].restart()


# ---- several shards ----


def test_every_shard_has_its_own_tick(redis_url: str) -> None:
    """An idle shard is swept as often as others, since its leases may expire (E9)."""
    edge, clock = Edge(redis_url), FakeClock()
    settings = Settings(redis_url=redis_url, shards=3)
    host = Host(
        edge, settings=settings, clock=clock, catalog=Catalog(clock), check_input=check_input
    )
    thread = SweeperThread(host.sweeper, edge, settings=settings, clock=clock, announce=None)
    for _ in range(3):
        thread.once()
        ticks = [int(edge.client.hget(Shard(number).tick, "at")) for number in range(3)]
        assert ticks == [clock.now_ms()] * 3
        clock.advance(settings.lease_s / 3)
    edge.close()


def test_eager_mode_waits_for_retries_on_every_shard() -> None:
    """The clock moves to the next due item of any shard."""
    app = Celery("eager-shards", set_as_current=False)
    app.conf.task_always_eager = True
    runtime = attach(app, Settings(shards=4))
    tried: list[str] = []

    def once(held: Any) -> None:
        if held.attempt == 1:
            tried.append(held.saga_id)
            raise RuntimeError("not yet")

    runtime.eager.faults.append(once)
    ids = [id_on(shard, 4) for shard in range(4)]
    flow = WorkflowBuilder("again").add_step("one", basic_workers.echo.name).build()
    for saga_id in ids:
        result = runtime.start_saga.apply_async((flow, {"text": "hi"}), task_id=saga_id)
        assert result.get() == {"echo": "hi"}
    assert tried == ids
    app.close()


def test_a_socket_without_a_server_is_away_and_not_a_mistake() -> None:
    """A connection to ``unix:///path`` has no keep-alive to set."""
    edge = Edge("unix:///nowhere/at-all.sock", retries=0)
    with pytest.raises(UNREACHABLE):
        edge.execute(store.definition(Shard(0), "v"))
