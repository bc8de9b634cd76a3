"""Do sweeps go on while a separate broker is away or silent?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from structlog.testing import capture_logs

from multiagents import Workflow, WorkflowBuilder
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.devserver.server import EmbeddedServer
from multiagents.engine.messages import Message, NotTaken, Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime, attach
from multiagents.hosting.saga_tasks import NOT_SENT, TASK_NOT_SENT, Courier
from multiagents.storage.client import MAIN_TIMEOUT_S
from multiagents.transport.publisher import HastyBroker, is_away
from multiagents.worker_sdk.decorators import worker
from tests.support.outage import without
from tests.support.processes import free_port, wait_for

MANY = 60
"""Commands that are due; each would take half a second with Celery's own retries."""
SOON_S = 8.0
HEARD = "heard"
"""The queue of the errback that a failed saga calls."""


@worker("broker_noop")
def noop(context: dict[str, Any]) -> dict[str, Any]:
    return {}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def runtime(redis_url: str, broker: EmbeddedServer) -> Runtime:
    """Sagas and results on one server, messages on another."""
    app = Celery("team", broker=broker.url, backend=redis_url, set_as_current=False)
    return attach(app, Settings(redis_url=broker.url, state_urls=redis_url, lease_s=1))


@contextmanager
def sweeping(runtime: Runtime) -> Iterator[None]:
    """The sweeps of a worker's main process."""
    threads = runtime.sweeper_threads(
        "w@h", lambda: ["io"], lambda: 1, at_work=lambda: None, refuse=print
    )
    threads.start()
    try:
        yield
    finally:
        threads.left()


def flow(timeout_s: float | None = None) -> Workflow:
    return WorkflowBuilder("broken", timeout_s=timeout_s).add_step("a", "broker_noop").build()


def message() -> Message:
    return Message("s1", Kind.RUN, "a", 1, "broker_noop", "io", "v1", 123)


@pytest.mark.parametrize("how", ["away", "silent"])
def test_a_broker_that_is_away_holds_up_no_deadline(
    runtime: Runtime, broker: EmbeddedServer, how: str
) -> None:
    """After the outage, due commands are sent and waiting errbacks called."""
    for _ in range(MANY):
        runtime.call("start", flow(), {})
    errback = runtime.app.signature("team.errback", queue=HEARD)
    ending = [
        runtime.start_saga.apply_async((flow(timeout_s), {}), link_error=errback).id
        for timeout_s in (2.0, 4.0)
    ]
    with redis.Redis.from_url(broker.url) as client:
        client.flushall()
    with without(broker, how), sweeping(runtime):
        wait_for(lambda: failed(runtime) == set(ending), SOON_S, "the deadlines")
    # The earlier connection is cut.
    with redis.Redis.from_url(broker.url) as client, sweeping(runtime):
        wait_for(lambda: client.llen("io") >= MANY, SOON_S, "all commands")
        wait_for(lambda: client.llen(HEARD) == len(ending), SOON_S, "the errbacks")


def failed(runtime: Runtime) -> set[str]:
    return {row["transaction_id"] for row in runtime.call("list", state="failed")}


def test_a_channel_that_was_closed_says_that_the_broker_is_away(redis_url: str) -> None:
    """While kombu reconnects it may use the old channel and raise AttributeError.

    The same error in an app's own code is a fault.
    """
    app = make_app(Settings(redis_url=redis_url))
    with app.connection_for_write() as connection:
        channel = connection.channel()
        channel.close()
        with pytest.raises(AttributeError) as closed:
            channel.basic_publish(channel.prepare_message("x"), exchange="", routing_key="q")
        assert is_away(closed.value, connection)
        with pytest.raises(AttributeError) as own:
            app.none.client  # noqa: B018
        assert not is_away(own.value, connection)


def test_after_an_error_nothing_is_asked_for_a_while() -> None:
    """The engine neither sends nor looks; it only moves the time of the next look."""
    port = free_port()
    app = Celery(broker=f"redis://127.0.0.1:{port}/0", set_as_current=False)
    courier, tried = Courier(app, hasty=True), []
    broker: Any = courier._broker
    connect = broker.connection
    broker.connection = lambda: tried.append(1) or connect()
    assert courier(QueueHead("io", None)) == Backlog(None)
    assert courier(Publish((message(),))) is False
    assert courier(QueueHead("io", None)) == Backlog(None)
    assert len(tried) == 1


def test_a_message_sent_in_haste_is_the_one_that_celery_sends(redis_url: str) -> None:
    """One connection sends two messages, and a look finds them."""
    courier = Courier(make_app(Settings(redis_url=redis_url)), hasty=True)
    assert courier(Publish((message(),))) is True
    first = courier._broker._own.producer  # type: ignore[attr-defined]
    assert courier(Publish((message(),))) is True
    assert courier._broker._own.producer is first  # type: ignore[attr-defined]
    assert courier(QueueHead("io", None)) == Backlog(2, 123)


@pytest.mark.parametrize("hasty", [True, False])
def test_a_queue_that_refuses_a_message_is_not_a_broker_that_is_away(
    redis_url: str, hasty: bool
) -> None:
    """Other messages go out; the log names the refused one's place and the reason."""
    courier = Courier(make_app(Settings(redis_url=redis_url)), hasty=hasty)
    bad = replace(message(), queue="orders")
    with redis.Redis.from_url(redis_url) as client:
        client.hset("orders", "x", 1)
        with pytest.raises(NotTaken, match="WRONGTYPE") as refused:
            courier(Publish((message(), bad, message())))
        assert (refused.value.sent, refused.value.key) == (1, "orders")
        assert not courier._broker.rests()
        assert courier(QueueHead("orders", None)) == Backlog(None)
        assert courier(Publish((message(),))) is True
        assert client.llen("io") == 2


def test_another_broker_than_redis_is_used_as_it_is() -> None:
    """Other brokers keep their options and get no look."""
    app = Celery(broker="memory://", set_as_current=False)
    courier = Courier(app, hasty=True)
    assert courier(Publish((message(),))) is True
    assert courier(QueueHead("io", None)) == Backlog(None)
    assert HastyBroker(app).answers()


def test_behind_sentinels_each_is_asked_once_and_not_for_long() -> None:
    """The app's other options for them stay."""
    app = Celery(broker="sentinel://a:1;sentinel://b:2", set_as_current=False)
    app.conf.broker_transport_options = {
        "master_name": "m",
        "socket_timeout": 60,
        "sentinel_kwargs": {"password": "secret", "socket_timeout": 60},
    }
    with HastyBroker(app).connection() as connection:
        options = connection.transport_options
    assert (options["master_name"], options["max_retries"]) == ("m", 1)
    assert options["socket_timeout"] == options["socket_connect_timeout"] == MAIN_TIMEOUT_S
    assert options["sentinel_kwargs"] == {
        "password": "secret",
        "socket_timeout": MAIN_TIMEOUT_S,
        "socket_connect_timeout": MAIN_TIMEOUT_S,
        "retry": None,
    }


def test_the_log_says_what_becomes_of_a_message_that_is_not_sent() -> None:
    """A sweep resends a step; a plain task is sent once, so its timeout decides."""
    app = Celery(broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.broker_transport_options = {"max_retries": 0}
    task = replace(message(), plain=True, task_id="t1")
    said = []
    for each in (message(), task):
        with capture_logs() as logs:
            assert Courier(app, hasty=True)(Publish((each,))) is False
        said += [line["event"] for line in logs]
    assert said == [NOT_SENT, TASK_NOT_SENT]
