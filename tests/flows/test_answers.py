"""Is an outcome stored with the saga's end equal to what Celery's backend would store?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from multiagents.core.settings import Settings
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import attach
from multiagents.hosting.saga_tasks import Courier
from multiagents.saga.outcome import SagaOutcome
from multiagents.saga.targets import TOLD
from multiagents.storage import outcomes
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import End
from multiagents.transport.direct_result import Answers


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


def end(**changes: Any) -> SagaOutcome:
    about: dict[str, Any] = {
        "saga_id": "s1",
        "state": "completed",
        "waiting": {"t1": {}, "t2": {}},
        "result": {"paid": 3, "text": "ä"},
    }
    return SagaOutcome(**{**about, **changes})


def stored(client: Any, task_id: str) -> dict[str, Any]:
    """A stored result without its time."""
    found: dict[str, Any] = json.loads(client.get(f"celery-task-meta-{task_id}"))
    assert isinstance(found.pop("date_done"), str)
    return found


def settle(runtime: Any, answers: Any) -> None:
    runtime.edge.execute(outcomes.settle(SagaKeys("s1"), End("", {}, ()), answers))


def test_an_answer_is_what_the_backend_stores(settings, client):
    """Keys, text and time to live are equal, so AsyncResult sees no difference."""
    runtime = attach(make_app(settings), settings)
    answers = Answers(runtime.app, settings)(end())
    settle(runtime, answers)
    ours = {name: stored(client, name) for name in ("t1", "t2")}
    lives = client.ttl("celery-task-meta-t1")
    client.flushall()
    assert Courier(runtime.app)(end()) == TOLD
    assert ours == {name: stored(client, name) for name in ("t1", "t2")}
    assert abs(lives - client.ttl("celery-task-meta-t1")) <= 2


def test_a_success_stays(settings, client):
    """The first outcome counts, also if the script is sent twice."""
    runtime = attach(make_app(settings), settings)
    for result in ({"n": 1}, {"n": 2}):
        settle(runtime, Answers(runtime.app, settings)(end(result=result)))
    assert stored(client, "t1")["result"] == {"n": 1}


def test_whoever_waits_is_woken(settings, client):
    """The script publishes a result under its key, which wakes waiters."""
    runtime = attach(make_app(settings), settings)
    with client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("celery-task-meta-t1")
        heard.get_message(timeout=5)
        settle(runtime, Answers(runtime.app, settings)(end()))
        message = heard.get_message(timeout=5)
    assert json.loads(message["data"])["status"] == "SUCCESS"


@pytest.mark.parametrize(
    "changes",
    [{"state": "failed"}, {"state": "cancelled"}, {"waiting": {"t1": {"chain": ["x"]}}}],
    ids=["failed", "cancelled", "chain"],
)
def test_other_ends_are_left_to_celery(settings, changes):
    """Celery handles errors, links and chords."""
    assert Answers(make_app(settings), settings)(end(**changes)) is None


@pytest.mark.parametrize(
    "conf",
    [
        {"result_backend": "cache+memory://"},
        {"result_serializer": "yaml"},
        {"result_extended": True},
        {"result_compression": "gzip"},
    ],
    ids=lambda conf: next(iter(conf)),
)
def test_other_backends_are_left_to_celery(settings, conf):
    """Only Celery can store a result in those."""
    app = make_app(settings)
    app.conf.update(conf)
    assert Answers(app, settings)(end()) is None


def test_a_log_is_compressed_only_at_the_version_that_was_read(settings, client):
    """E5: a process from a lost second must not overwrite a log with equally many entries."""
    keys, runtime = SagaKeys("s1"), attach(make_app(settings), settings)
    client.hset(keys.saga, mapping={"v": "now", "c": 2})
    client.rpush(keys.log, '["started",1]', '["asked",2,"resume","r"]')
    lost = End("lost", {}, ('["started",1]', '["timer",2,"deadline"]'))
    runtime.edge.execute(outcomes.settle(keys, lost))
    found = runtime.edge.execute(store.log(keys))
    assert found == ('["started",1]', '["asked",2,"resume","r"]')
    assert not client.hexists(keys.saga, "b")
    runtime.edge.execute(outcomes.settle(keys, End("now", {}, found)))
    assert runtime.edge.execute(store.log(keys)) == found
    assert client.hget(keys.saga, "b") == b"2"


def test_a_log_says_itself_whether_it_is_compressed(settings, client):
    """E5: a log stays readable if its server is set back between two reads."""
    keys, runtime = SagaKeys("s1"), attach(make_app(settings), settings)
    entries = ('["started",1]', '["timer",2,"deadline"]')
    client.hset(keys.saga, mapping={"v": "now", "c": 2})
    client.rpush(keys.log, *entries)
    runtime.edge.execute(outcomes.settle(keys, End("now", {}, entries)))
    assert client.llen(keys.log) == 1
    client.hdel(keys.saga, "b")
    assert runtime.edge.execute(store.log(keys)) == entries
