"""Do engine messages, and only they, skip kombu's ack emulation?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection, Consumer, Producer, Queue

from multiagents.core.names import HEADER
from multiagents.transport.app_broker import steady_for
from multiagents.transport.kombu_redis import NAME, TRANSPORTS, WorkerTransport
from tests.support.processes import run_script, wait_for

MARK = {HEADER: ["s1", "run", "a", 1, "v", 0]}


@pytest.fixture
def connection(redis_url: str) -> Iterator[Connection]:
    """A consumer's connection as the package's own workers open it."""
    with Connection(redis_url, transport=NAME) as opened:
        yield opened


@pytest.fixture
def store(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def consume(connection: Connection, count: int) -> tuple[Any, list[Any]]:
    """Send an engine message and a foreign one, and hold both."""
    channel, got = connection.channel(), []
    producer = Producer(channel, routing_key="q")
    for headers in (MARK, {}):
        producer.publish("{}", headers=headers, declare=[Queue("q", routing_key="q")])
    consumer = Consumer(
        channel, [Queue("q", routing_key="q")], callbacks=[lambda b, m: got.append(m)]
    )
    consumer.consume()

    def drained() -> bool:
        connection.drain_events(timeout=5)
        return len(got) == count

    wait_for(drained, 10, "both messages")
    return channel, got


def test_only_foreign_messages_are_kept_on_the_server(connection, store):
    """E11: an engine message is in an outbox; any other must survive its worker."""
    _, got = consume(connection, 2)
    assert store.hlen("unacked") == 1
    for message in got:
        message.ack()
    assert store.hlen("unacked") == 0
    assert store.llen("q") == 0


def test_a_warm_shutdown_puts_both_kinds_back(connection, store):
    """Prefetched messages return to their queue at once."""
    channel, _ = consume(connection, 2)
    channel.qos.restore_unacked()
    assert store.llen("q") == 2


def test_a_connection_keeps_its_transport_at_its_next_url(redis_url):
    """kombu takes the URL scheme's transport at a fail-over among Sentinels."""
    with Connection(f"{redis_url};{redis_url}", transport=NAME) as connection:
        for _ in range(3):
            connection.connect()
            assert isinstance(connection.transport, WorkerTransport)
            connection.maybe_switch_next()


def test_a_requeued_engine_message_goes_back(connection, store):
    """``reject(requeue=True)`` works as kombu's does."""
    channel, got = consume(connection, 2)
    channel.basic_cancel(next(iter(channel._consumers)))
    marked = next(message for message in got if HEADER in message.headers)
    marked.requeue()
    assert store.llen("q") == 1
    assert store.hlen("unacked") == 1


def test_a_queue_whose_key_is_no_list_keeps_no_other_from_being_consumed(connection, store):
    """Celery treats WRONGTYPE as fatal and would end the worker."""
    got: list[Any] = []
    queues = [Queue(name, routing_key=name) for name in ("q", "other")]

    def fetched(count: int) -> bool:
        with suppress(TimeoutError):
            connection.drain_events(timeout=1)
        return len(got) == count

    store.hset("q", "x", "1")
    channel = connection.channel()
    Consumer(channel, queues, callbacks=[lambda _, m: got.append(m)], no_ack=True).consume()
    producer = Producer(channel)
    producer.publish("{}", routing_key="other")
    wait_for(lambda: fetched(1), 10, "the other queue's message")
    store.delete("q")
    producer.publish("{}", routing_key="q")
    wait_for(lambda: fetched(2), 10, "the message of the queue that is a list again")
    store.hset("q", "x", "1")
    producer.publish("{}", routing_key="other")
    wait_for(lambda: fetched(3), 10, "the other queue's second message")


STEADY = "multiagents.transport.kombu_redis:SteadyTransport"
SENTINEL_STEADY = "multiagents.transport.kombu_redis:SentinelSteadyTransport"


@pytest.mark.parametrize(
    ("url", "transport", "advised"),
    [
        ("redis://h/0", None, STEADY),
        ("redis://h/0", "redis", STEADY),
        ("rediss://h/0", None, STEADY),
        ("sentinel://h/0;sentinel://i/0", None, SENTINEL_STEADY),
        ("redis://h/0", STEADY, ""),
        ("rediss://h/0", STEADY, ""),
        ("redis://h/0", TRANSPORTS["redis"], ""),
        ("sentinel://h/0", SENTINEL_STEADY, ""),
        ("amqp://h//", None, ""),
        ("memory://", None, ""),
    ],
)
def test_an_app_is_advised_a_transport_that_outlives_its_broker(
    url: str, transport: str | None, advised: str
) -> None:
    """The advice concerns apps on Redis without one of our transports."""
    app = Celery("advised", broker=url, set_as_current=False)
    app.conf.broker_transport = transport
    assert steady_for(app) == advised


WITHOUT_HIREDIS = """
import sys
sys.modules["hiredis"] = None  # so that to import it fails
from kombu import Connection
from multiagents import WorkflowBuilder, sagas, worker
from multiagents.transport.kombu_redis import NAME

with Connection("{url}", transport=NAME) as connection:
    connection.ensure_connection(max_retries=1)
    print(type(connection.default_channel.client.connection_pool.make_connection()._parser).__mro__)

@worker("hello")
def hello(context): return {{}}

WorkflowBuilder("w").add_step("a", "hello").build().register()
print(len(sagas.list()), sagas.get(sagas.start("w", {{}}))["state"])
"""


def test_without_hiredis_a_worker_connects_and_a_saga_starts(redis_url: str) -> None:
    """redis-py then switches between its own parsers, one per protocol."""
    parser, saga = run_script(WITHOUT_HIREDIS.format(url=redis_url), redis_url).splitlines()
    assert "Refusals" in parser
    assert "_RESP3Parser" in parser or "_RESP2Parser" in parser
    assert saga == "0 running"
