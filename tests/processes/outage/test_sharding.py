"""Do sagas on several servers run, and does a server that is down stop only its own?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis

from multiagents.core.exceptions import NoServer, UnknownSaga
from multiagents.core.settings import Settings, shown_url
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import attach
from tests.support.command_line import cli
from tests.support.kill_rig import QUIET
from tests.support.processes import Worker
from tests.support.spread import Spread, emptied, id_on

pytestmark = pytest.mark.processes

FIRST, LAST = 0, 2
SHARDS = range(3)
OTHER_DATABASE = 14
"""Of the session's server, for what needs one server alone."""
SOON_S = 8.0
"""Within which a saga with two retries ends where it is swept."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[EmbeddedServer]]:
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(f"shard{number}") for number in SHARDS]
        yield [stack.enter_context(EmbeddedServer(folder)) for folder in folders]


@pytest.fixture
def spread(
    servers: list[EmbeddedServer], server: EmbeddedServer, tmp_path: Path
) -> Iterator[Spread]:
    made = Spread(servers, server, tmp_path)
    yield made
    made.close()


@contextmanager
def killed(server: EmbeddedServer) -> Iterator[None]:
    """The server is gone by SIGKILL inside the block, and back after it."""
    server.kill()
    try:
        yield
    finally:
        server.restart()


@contextmanager
def silent(server: EmbeddedServer) -> Iterator[None]:
    """The server takes connections and answers nothing inside the block."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_sagas_run_on_all_servers_and_are_listed_together(spread: Spread) -> None:
    """Each has its keys on the server of its shard alone; a list is newest first over all."""
    with spread.worker("-c", "2") as worker:
        worker.wait_ready()
        started = [spread.start("kp_completes", n % 3) for n in range(9)]
        assert {spread.wait_end(saga_id)["state"] for saga_id in started} == {"completed"}
        assert spread.app.AsyncResult(started[-1]).get(timeout=10) == {"two": 1}
    for number, url in enumerate(spread.urls):
        with redis.Redis.from_url(url, decode_responses=True) as client:
            found = set(client.zrange(f"ma:{{s{number:02d}}}:sagas", 0, -1))
            assert found == set(started[number::3])
            assert all(f"{{s{number:02d}}}" in key for key in client.keys("*"))
    newest = sorted(started, key=lambda i: spread.saga(i)["created_at"], reverse=True)

    def listed(**options: int) -> list[str]:
        return [row["transaction_id"] for row in spread.runtime.call("list", **options)]

    assert listed() == newest
    assert [*listed(limit=4), *listed(limit=4, offset=4), *listed(offset=8)] == newest
    assert len(spread.runtime.call("list", state="completed", limit=5)) == 5


@pytest.mark.parametrize("down", [FIRST, LAST])
def test_a_killed_server_stops_only_its_own_sagas(spread: Spread, down: int) -> None:
    """Others end, start and retry meanwhile; its own end after its restart, each step once."""
    others = [shard for shard in SHARDS if shard != down]
    with spread.worker("-c", "4") as worker:
        worker.wait_ready()
        held = [spread.start("kp_long", shard, gates={"1": "gate"}) for shard in SHARDS]
        for saga_id in held:
            spread.wait_attempt(saga_id, "two")
        with killed(spread.servers[down]):
            spread.open("gate")
            for shard in others:
                assert spread.wait_end(held[shard])["state"] == "completed"
                retried = spread.wait_end(spread.start("kp_flakes", shard))  # swept, so retried
                assert retried["result"] == {"attempt": 3}
            where = shown_url(spread.urls[down])
            with pytest.raises(NoServer, match=f"{where} .* 1 of 3 shards"):
                spread.start("kp_completes", down)
            with pytest.raises(NoServer, match=where):
                spread.runtime.call("list")
        assert spread.wait_end(held[down])["state"] == "completed"
        assert spread.attempts(held[down], "run", "two") == [1]
        assert spread.wait_end(spread.start("kp_completes", down))["state"] == "completed"


def test_a_silent_server_does_not_hold_up_the_sweeping_of_others(spread: Spread) -> None:
    """It answers nothing, so every call to it takes its whole time-out."""
    with spread.worker("-c", "2") as worker:
        worker.wait_ready()
        with silent(spread.servers[FIRST]):
            began = time.monotonic()
            for saga_id in [spread.start("kp_flakes", shard) for shard in (1, 2)]:
                assert spread.wait_end(saga_id)["result"] == {"attempt": 3}
            assert time.monotonic() - began < SOON_S


def test_the_steps_of_a_killed_worker_are_done_again_on_each_server(spread: Spread) -> None:
    """Each server's leases are swept: the second attempt runs in the next worker."""
    with spread.worker("-c", "4") as worker:
        worker.wait_ready()
        held = [spread.start("kp_long", shard, gates={"1": "never"}) for shard in SHARDS]
        for saga_id in held:
            spread.wait_attempt(saga_id, "two")
        worker.kill()
    with spread.worker("-c", "2") as worker:
        worker.wait_ready()
        for saga_id in held:
            assert spread.wait_end(saga_id)["state"] == "completed"
            assert spread.attempts(saga_id, "run", "two") == [1, 2]
            assert spread.attempts(saga_id, "run", "one") == [1]


def test_a_shard_moves_to_a_new_server_with_its_keys(spread: Spread) -> None:
    """As docs/how-to/operations.md says: copy the keys with the tag, then name the new server."""
    old, other, new = spread.urls
    broker = {"redis_url": spread.broker, "shards": 4}
    before = Settings(state_urls=f"{old},{other}", **broker)
    after = Settings(state_urls=f"{old},{other},{new},{other}", **broker)
    apps = make_app(before), make_app(after)
    first, second = attach(apps[0], before), attach(apps[1], after)
    ids = [id_on(shard, 4) for shard in range(4)]
    for saga_id in ids:
        first.call("start", "kp_completes", task_id=saga_id)
    with redis.Redis.from_url(old) as source, redis.Redis.from_url(new) as target:
        for key in source.keys("ma:{s02}:*"):
            target.restore(key, 0, source.dump(key))
            source.delete(key)
    for saga_id in ids:
        assert second.call("get", saga_id)["transaction_id"] == saga_id
    assert len(second.call("list")) == 4
    with pytest.raises(UnknownSaga):
        first.call("get", ids[2])
    for runtime, app in zip((first, second), apps, strict=True):
        runtime.edge.close()
        app.close()


def test_several_shards_on_one_server_work_as_before(server: EmbeddedServer) -> None:
    """Sagas of all four shards complete and are listed together."""
    url = emptied(f"{server.url.rpartition('/')[0]}/{OTHER_DATABASE}")
    settings = Settings(redis_url=url, shards=4)
    assert settings.servers == {url: (0, 1, 2, 3)}
    app = make_app(settings)
    runtime = attach(app, settings)
    imports, env = "tests.support.basic_workers", {"MULTIAGENTS_SHARDS": "4"}
    with Worker(url, *QUIET, "-c", "2", imports=imports, env=env) as worker:
        worker.wait_ready()
        call = ("echoes", {"text": "hi"})
        ids = [id_on(shard, 4) for shard in range(4)]
        results = [runtime.start_saga.apply_async(call, task_id=saga_id) for saga_id in ids]
        assert [result.get(timeout=20) for result in results] == [{"echo": "hi"}] * 4
    assert {row["transaction_id"] for row in runtime.call("list")} == set(ids)
    for saga_id in ids:
        shown = cli("show", saga_id[:13], "--json", url=url, **env)
        assert shown.json["transaction_id"] == saga_id
    found = cli("list", "--input", "text=hi", "--since", "1h", "--json", url=url, **env).lines
    assert {row["transaction_id"] for row in found} == set(ids)
    rows = cli("list", "--json", "--limit", "3", url=url, **env).lines
    created = [row["created_at"] for row in rows]  # two may be of one millisecond
    assert (len(created), created) == (3, sorted(created, reverse=True))
    runtime.edge.close()
    app.close()


def test_the_doctor_names_the_server_that_is_down(spread: Spread) -> None:
    """With how many shards it holds and without its password; the others are still looked at."""
    urls = [url.replace("//", "//:s3cret@") if n == 1 else url for n, url in enumerate(spread.urls)]
    env = {"MULTIAGENTS_STATE_URLS": ",".join(urls)}
    with killed(spread.servers[1]):
        done = cli("doctor", "--json", url=spread.broker, **env)
        listed = cli("list", url=spread.broker, **env)
    checks = done.json["checks"]
    servers = [check for check in checks if check["name"] == "server"]
    assert [check["status"] for check in servers] == ["ok", "fail", "ok"]
    port = str(spread.servers[1].port)
    assert port in servers[1]["message"]
    assert "1 of 3 shards" in servers[1]["message"]
    assert "broker" in {check["name"] for check in checks}
    assert (done.code, listed.code) == (1, 2)
    assert port in listed.err
    assert "s3cret" not in done.out + done.err + listed.out + listed.err
