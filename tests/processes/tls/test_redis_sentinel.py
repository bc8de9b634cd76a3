"""Do sagas go on when Sentinels make a replica the primary?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.backends.redis import SentinelBackend

from multiagents.cli.errors import masked
from multiagents.core.events import StatusEvent
from multiagents.core.sentinel import parse
from multiagents.core.server_urls import celery_url, transport_options
from multiagents.core.settings import Settings, shown_url
from multiagents.core.states import Kind
from multiagents.engine.messages import Message, Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.app import make_app
from multiagents.hosting.saga_tasks import Courier
from multiagents.orchestrator.orchestrator import Orchestrator
from multiagents.storage import sagas as store
from multiagents.storage.client import Edge
from multiagents.storage.keys import SagaKeys
from multiagents.transport.direct_publish import Letters
from multiagents.workflows.registry import registered
from tests.support.celery_rig import (
    BUSY_TEAM,
    CONNECTED,
    DEADLINE_S,
    SENTINEL_STEADY,
    TEAM,
    CeleryRig,
    after_work,
    plain,
)
from tests.support.command_line import cli
from tests.support.kill_rig import Rig, second_starts
from tests.support.processes import wait_for
from tests.support.sentinels import Watched, watched

LETTER = Message(
    saga_id="s",
    kind=Kind.RUN,
    step="a",
    attempt=1,
    task="kp_do",
    queue="io",
    version="v",
    sent_ms=1,
)
SECRETS = "sentinel://me:s3cret@a,b:7/2?master_name=shop&sentinel_password=0ther"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("sentinel")) as running:
        yield running


@pytest.mark.processes
def test_sagas_go_on_after_a_fail_over(servers: Watched, tmp_path: Path) -> None:
    """Running and new ones end on the new primary, each step begun once, by the fast way too."""
    rig = Rig(servers.url, 0, tmp_path)
    with rig.worker() as worker:
        worker.wait_ready()
        assert rig.runtime.start_saga.delay("kp_completes", {}).get(timeout=20) == {"two": 1}
        held = [rig.start("kp_long", gates={"1": "up"}) for _ in range(2)]
        for saga_id in held:
            rig.wait_effect(saga_id, "run", step="two")
        servers.fail_over()
        rig.open("up")
        after = rig.runtime.start_saga.delay("kp_breaks", {})
        for saga_id in held:
            assert wait_settled(rig, saga_id) == "completed"
            assert second_starts(rig, saga_id) == []
        assert wait_settled(rig, after.id) == "compensated"
        assert rig.runtime.start_saga.delay("kp_completes", {}).get(timeout=20) == {"two": 1}
        assert worker.process.poll() is None
        transport = "Connected to multiagents.transport.kombu_redis:SentinelWorkerTransport"
        # Without kombu's ack emulation, afterwards too, however often it had to connect.
        assert worker.log.count(CONNECTED) == worker.log.count(transport) >= 2
    rig.close()


def test_a_threads_own_connection_leads_to_the_primary(tmp_path: Path) -> None:
    """Never to the default port of this host, where another project's server may be."""
    with watched(tmp_path) as servers:
        edge = Edge(servers.url)
        ports = []
        for fails_over in (False, True):
            if fails_over:
                servers.fail_over()
            edge.execute(store.load(SagaKeys("none")))
            ports += [(connection.host, connection.port) for connection in edge._connections]
        edge.close()
    assert ports == [("127.0.0.1", servers.primary.port), ("127.0.0.1", servers.replica.port)]


@pytest.mark.processes
def test_a_sweep_sends_by_way_of_sentinels(tmp_path: Path) -> None:
    """In haste, before and after a fail-over: an error, a rest, and then to the new primary."""
    with watched(tmp_path) as servers:
        courier = Courier(make_app(Settings(redis_url=servers.url)), hasty=True)
        asked = replace(LETTER, queue="asked")
        assert courier(Publish((asked,))) is True
        assert courier(QueueHead("asked", None)) == Backlog(1, asked.sent_ms)
        servers.fail_over()
        wait_for(lambda: courier(Publish((asked,))), 20.0, "the new primary")
        assert courier(QueueHead("asked", None)).length in (1, 2)


def wait_settled(rig: Rig, saga_id: str) -> str:
    """The state in which a saga ends; for a moment the Sentinel may name nobody as the primary."""

    def settled() -> bool:
        try:
            return not rig.open_ends(saga_id)
        except redis.ConnectionError:
            return False

    wait_for(settled, 30.0, f"rest of {saga_id}")
    state: str = rig.saga(saga_id)["state"]
    return state


def conf_of(url: str) -> dict[str, Any]:
    """What a team writes into its own app for the servers of that URL."""
    options = transport_options(url)
    return {
        "broker_url": celery_url(url),
        "broker_transport": SENTINEL_STEADY,
        "broker_transport_options": {**BUSY_TEAM["broker_transport_options"], **options},
        "result_backend": celery_url(url),
        "result_backend_transport_options": options,
        "worker_prefetch_multiplier": 8,
    }


@pytest.mark.processes
def test_a_busy_worker_of_a_teams_own_app_outlives_a_fail_over(tmp_path: Path) -> None:
    """Both its slots are at work and it holds messages: nothing ends, is lost or is done twice."""
    with watched(tmp_path) as servers:
        rig = CeleryRig(servers.url, 0, tmp_path)
        with rig.team("-c", "2", conf=conf_of(servers.url)) as worker:
            worker.wait_ready()
            gated = after_work("kp_gate", queue=TEAM)
            busy = [rig.begin(gated, gates={"1": "up"}) for _ in range(2)]
            for saga_id in busy:
                rig.wait_effect(saga_id, "run", step="b")
            held = [rig.begin(after_work(plain("work"))) for _ in range(2)]
            wait_for(lambda: worker.log.count("Task team.work") > 5, 20.0, "all messages")
            servers.fail_over()
            wait_for(lambda: "Connection to broker lost" in worker.log, 20.0, "the loss")
            wait_for(lambda: worker.log.count(CONNECTED) > 1, DEADLINE_S, "the connection")
            rig.open("up")
            for saga_id in busy + held:
                assert wait_settled(rig, saga_id) == "completed"
                assert second_starts(rig, saga_id) == []
            assert worker.process.poll() is None
            ours = worker.log.count("Connected to multiagents.transport")
            assert worker.log.count(CONNECTED) == ours >= 2  # not by kombu's own
        rig.close()


@pytest.mark.processes
def test_asyncio_programs_and_the_event_bus_use_sentinels(servers: Watched) -> None:
    """They find the primary as everybody else does."""

    async def main() -> dict[str, Any]:
        async with RedisEventBus(servers.url) as bus:
            await bus.publish(StatusEvent(transaction_id="s", state="running"))
            async with Orchestrator(registered()["kp_completes"], bus) as orchestrator:
                saga_id = await orchestrator.execute_workflow("kp_completes", {})
                return await orchestrator.get_status(saga_id)

    assert asyncio.run(main())["state"] == "running"


@pytest.mark.processes
def test_the_command_line_uses_sentinels(servers: Watched) -> None:
    """The error names a primary that no Sentinel has."""
    assert cli("list", url=servers.url).code == 0
    assert "reachable" in cli("doctor", url=servers.url).out
    done = cli("list", url=servers.url.replace("=shop", "=nobody"))
    assert (done.code, done.out) == (2, "")
    assert "master_name=nobody" in done.err
    assert "know no primary of that name" in done.err


def test_a_url_says_all_that_celery_is_told() -> None:
    """Its own list form, the primary's name and the Sentinels' password."""
    conf = make_app(Settings(redis_url=SECRETS)).conf
    assert conf.broker_url == "sentinel://me:s3cret@a:26379/2;sentinel://me:s3cret@b:7/2"
    assert conf.result_backend == conf.broker_url
    for options in (conf.broker_transport_options, conf.result_backend_transport_options):
        assert options["master_name"] == "shop"
        assert options["sentinel_kwargs"]["password"] == "0ther"


@pytest.mark.parametrize(
    "url", ["sentinel://a:1,b:2/3?master_name=m", "sentinel://a:1/3;sentinel://b:2/3?master_name=m"]
)
def test_both_ways_to_list_sentinels_are_understood(url: str) -> None:
    """The list may have commas, or Celery's form."""
    assert (parse(url).hosts, parse(url).db) == ((("a", 1), ("b", 2)), 3)


def test_sentinels_stand_in_the_list_of_state_servers() -> None:
    """Their own commas do not separate servers."""
    one, other = "sentinel://a:1,b:2/0?master_name=m", "redis://c:3/0"
    settings = Settings(state_urls=f"{one},{other},{one}")
    assert list(settings.servers) == [one, other]
    assert settings.shards == 3


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("sentinel://:s3cret@a:1/0", "must name the primary"),
        ("sentinel://:s3cret@a:1/x?master_name=m", "not a database number"),
        ("sentinel://:s3cret@a:b/0?master_name=m", "port is not a number"),
        ("sentinel://:s3cret@a:1,/0?master_name=m", "host is missing"),
        ("sentinel://:s3cret@a:1/0?master_name=m&ssl=1", "unknown option ssl"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str, problem: str) -> None:
    """By whom it is read first; the variable is named."""
    with pytest.raises(ValueError, match=problem) as raised:
        Settings(redis_url=url)
    assert "s3cret" not in str(raised.value)
    done = cli("list", url=url)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert "MULTIAGENTS_REDIS_URL" in done.err
    assert "s3cret" not in done.err


def test_no_password_of_a_sentinel_url_is_shown() -> None:
    """Neither the primary's nor the Sentinels'."""
    for shown in (masked(SECRETS), masked(f"cannot reach {SECRETS}")):
        assert "s3cret" not in shown
        assert "0ther" not in shown
    assert shown_url(SECRETS) == "sentinel://a,b:7/2?master_name=shop"
    assert "s3cret" not in repr(parse(SECRETS))
    assert "0ther" not in repr(parse(SECRETS))


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"broker_transport_options": {"master_name": "other"}}, False),
        ({"broker_url": "sentinel://a:1/0"}, False),
        ({"broker_url": "redis://a:1/0"}, False),
    ],
)
def test_only_the_very_same_primary_is_written_to_at_once(
    changes: dict[str, object], possible: bool
) -> None:
    """A commit's script puts messages into the queue where the broker is the sagas' server."""
    settings = Settings(redis_url="sentinel://a:1,b:2/0?master_name=shop")
    app = make_app(settings)
    app.conf.update(changes)
    assert (Letters(app, settings)(LETTER) is not None) is possible
    assert isinstance(app.backend, SentinelBackend)
    app.close()
