"""How does an engine process reach its server, and whose clock does it follow?"""

from __future__ import annotations

import socket
import time

import pytest
import redis
from billiard import get_context

from multiagents.core.clock import SystemClock
from multiagents.core.settings import Settings
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import attach
from multiagents.storage import sagas as store
from multiagents.storage.client import UNREACHABLE, Edge
from tests.support.one_process import KEYS


def test_a_workers_main_process_waits_a_second_for_a_silent_server() -> None:
    """E20: it tries once, because it serves children, signals and heartbeats."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = Settings(redis_url=url)
        app = make_app(settings)
        edge = attach(app, settings)._edge_of_main()
        began = time.monotonic()
        with pytest.raises(UNREACHABLE):
            edge.execute(store.load(KEYS))
        assert 0.9 < time.monotonic() - began < 2.5
        edge.close()
        app.close()


def test_a_forked_child_has_connections_of_its_own(redis_url: str) -> None:
    """E20: a shared connection would mix up replies; the same holds for threads."""
    edge = Edge(redis_url)

    def connection() -> int:
        return int(edge._command("CLIENT", "ID"))

    own = connection()
    context = get_context("fork")
    receiver, sender = context.Pipe()
    child = context.Process(target=lambda: sender.send(connection()))
    child.start()
    assert receiver.poll(10)
    assert receiver.recv() != own
    child.join(10)
    assert connection() == own
    edge.close()


def test_the_servers_time_is_the_engines(redis_url: str) -> None:
    """E9: the server's clock judges leases, however wrong the host's is."""
    clock, edge = SystemClock(), Edge(redis_url)
    clock.offset_ms = 3_600_000
    edge.correct(clock)
    with redis.Redis.from_url(redis_url) as client:
        seconds, _ = client.time()
    assert abs(clock.now_ms() - 1000 * seconds) < 5000
    edge.close()
