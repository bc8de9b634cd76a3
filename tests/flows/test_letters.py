"""Does a commit write the message into a queue that Celery would send?"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import signals
from kombu import Queue

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.ids import step_id
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.messages import Message, Publish
from multiagents.engine.queue_heads import Backlog, QueueHead
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime, attach
from multiagents.hosting.saga_tasks import Courier
from multiagents.transport.direct_publish import Letters
from multiagents.worker_sdk.decorators import worker
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.workflow import Workflow


@worker("letter_noop")
def noop(context: dict[str, Any]) -> dict[str, Any]:
    return {}


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url)


@pytest.fixture
def store(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def message(**changes: Any) -> Message:
    about: dict[str, Any] = {
        "saga_id": "s1",
        "kind": Kind.RUN,
        "step": "a",
        "attempt": 1,
        "task": "letter_noop",
        "queue": "io",
        "version": "v1",
        "sent_ms": 123,
    }
    return Message(**{**about, **changes})


def opened(text: str) -> dict[str, Any]:
    """A message without its unique parts, and with a readable body."""
    found: dict[str, Any] = json.loads(text)
    found["body"] = json.loads(base64.b64decode(found["body"]))
    for name in ("delivery_tag", "reply_to"):
        assert isinstance(found["properties"].pop(name), str)
    assert isinstance(found["headers"].pop("origin"), str)
    return found


@pytest.mark.parametrize("priority", [None, 0, 4, 9])
@pytest.mark.parametrize("queue", ["io", "llm", "never_heard_of"])
def test_a_letter_is_the_message_that_celery_sends(settings, store, queue, priority):
    """List, headers and body are equal, so a worker sees no difference."""
    app = make_app(settings)
    one = message(queue=queue, priority=priority)
    letter = Letters(app, settings)(one)
    assert letter is not None
    assert Courier(app)(Publish((one,))) is True
    assert opened(letter.text) == opened(store.rpop(letter.queue))


@pytest.mark.parametrize("default", [None, 3, 5, 9])
@pytest.mark.parametrize("priority", [None, 0, 4])
@pytest.mark.parametrize("known", [False, True], ids=["elsewhere", "here"])
def test_a_look_into_a_queue_finds_the_message(settings, store, default, priority, known):
    """E10: the look finds messages of both ways, with the app's default priority."""
    app = make_app(settings)
    app.conf.task_default_priority = default
    if known:
        app.task(anything, name="letter_noop", shared=False)
        app.finalize()
    one = message(priority=priority)
    letter = Letters(app, settings)(one)
    assert letter is not None
    courier = Courier(app)
    store.lpush(letter.queue, letter.text)
    assert courier(QueueHead("io", priority)) == Backlog(1, one.sent_ms)
    assert courier(Publish((one,))) is True
    assert courier(QueueHead("io", priority)) == Backlog(2, one.sent_ms)


def test_a_look_minds_the_brokers_own_steps(settings, store):
    """With other priority steps Celery sends, and the look reads its lists."""
    app = make_app(settings)
    app.conf.task_default_priority = 5
    app.conf.broker_transport_options = {"priority_steps": [0, 5], "sep": ":"}
    assert Letters(app, settings)(message()) is None
    assert Courier(app)(Publish((message(),))) is True
    assert store.llen("io:5") == 1
    assert Courier(app)(QueueHead("io", None)) == Backlog(1, 123)


def anything(*args: Any, **kwargs: Any) -> None:
    """A stand-in for a team's task."""


def plain(**changes: Any) -> Message:
    about = {
        "plain": True,
        "task": "letter.plain",
        "args": ({"sku": "A1"}, 2),
        "kwargs": {"by": "letter"},
        "task_id": step_id("s1", "run", "a", 1),
        "timeout_s": 60.0,
    }
    return message(**{**about, **changes})


@pytest.mark.parametrize("queue", ["io", "", "elsewhere"])
@pytest.mark.parametrize("priority", [None, 7])
@pytest.mark.parametrize("options", [{}, {"time_limit": 9, "soft_time_limit": 7}])
def test_a_plain_task_is_written_with_its_own_options(settings, store, queue, priority, options):
    """Limits, priority and route are those of the team's own call."""
    app = make_app(settings)
    app.task(anything, name="letter.plain", shared=False, **options)
    app.finalize()
    one = plain(queue=queue, priority=priority)
    two = plain(queue=queue, priority=priority, args=("other",))
    letters = Letters(app, settings)
    for each in (one, two):
        letter = letters(each)
        assert letter is not None
        assert Courier(app)(Publish((each,))) is True
        assert opened(letter.text) == opened(store.rpop(letter.queue))


def test_a_plain_task_that_expires_is_left_to_celery(settings):
    """Each message has another time of expiry."""
    app = make_app(settings)
    app.task(anything, name="letter.plain", shared=False, expires=60)
    app.finalize()
    assert Letters(app, settings)(plain()) is None


def test_routes_are_asked_for_each_plain_task(settings):
    """A router may depend on the arguments."""
    app = make_app(settings)
    app.task(anything, name="letter.plain", shared=False)
    app.finalize()

    def route(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> dict[str, str]:
        return {"queue": f"for-{args[0]}"}

    app.conf.task_routes = (route,)
    letters = Letters(app, settings)
    found = [letters(plain(queue="", args=(who,))) for who in ("a", "b")]
    assert [letter.queue for letter in found if letter] == ["for-a", "for-b"]


@pytest.mark.parametrize("heard", [False, True], ids=["by script", "by Celery"])
def test_a_plain_task_that_cannot_be_routed_fails_its_step(settings, store, request, heard):
    """This holds from the start on, for both ways to write a message."""
    if heard:
        request.getfixturevalue("receiver")
    app = make_app(settings)
    app.conf.task_routes = (lost,)
    runtime = attach(app, settings)
    workflow = WorkflowBuilder("lost").add_step("a", task("letter.plain")).build()
    result = runtime.start_saga.delay(workflow, {})
    saga = runtime.call("get", result.id)
    assert (saga["state"], saga["error"]["type"]) == ("failed", "Unsendable")
    assert "ValueError: no way to letter.plain" in saga["error"]["message"]
    assert store.keys("*letter*") == []


def lost(name: str, *_: Any, **__: Any) -> None:
    """A router with a gap."""
    if name == "letter.plain":
        raise ValueError(f"no way to {name}")


def closed(settings: Settings) -> Runtime:
    """A team's app that knows the queue "io" and creates no others."""
    app = make_app(settings)
    app.conf.update(task_create_missing_queues=False, task_queues=[Queue("io")])
    return attach(app, settings)


def claim(runtime: Runtime, saga_id: str, step: str, kind: Kind = Kind.RUN) -> Any:
    held = runtime.host.engine.claim(saga_id, AttemptRef(kind, step, 1), delivery="d", queue="io")
    assert held is not None
    return held


@pytest.mark.parametrize("heard", [False, True], ids=["by script", "by Celery"])
@pytest.mark.parametrize("go_on", [False, True], ids=["leaving", "going on"])
def test_a_step_whose_queue_the_app_does_not_have_fails_itself(settings, request, heard, go_on):
    """The report of the step before counts, and that step is undone."""
    if heard:
        request.getfixturevalue("receiver")
    runtime = closed(settings)
    builder = WorkflowBuilder("closed").add_step("a", "letter_noop", compensation="letter_noop")
    saga_id = runtime.call("start", builder.add_step("b", "letter_noop", queue="gone").build(), {})
    held = claim(runtime, saga_id, "a")
    assert runtime.host.engine.succeed(held, "{}", go_on=go_on) is None
    saga = runtime.call("get", saga_id)
    assert (saga["steps"]["a"]["state"], saga["error"]["step"]) == ("succeeded", "b")
    assert saga["error"]["type"] == "Unsendable"
    assert "Queue 'gone' missing from task_queues" in saga["error"]["message"]
    runtime.host.engine.succeed(claim(runtime, saga_id, "a", Kind.UNDO), "{}", go_on=False)
    saga = runtime.call("get", saga_id)
    assert (saga["state"], saga["steps"]["b"]["attempts"]) == ("compensated", 1)


def test_of_a_fan_out_what_can_be_sent_is_sent(settings, store):
    """Each such message is sent and confirmed once; the others' steps fail."""
    runtime = closed(settings)
    queues = ["gone", "io", "gone", "io", "gone"]
    builder = WorkflowBuilder("wide")
    for number, queue in enumerate(queues):
        builder.add_step(f"p{number}", "letter_noop", queue=queue, depends_on=[])
    saga_id = runtime.call("start", builder.build(), {})
    sent = [opened(text)["headers"]["multiagents"][2] for text in store.lrange("io", 0, -1)]
    assert sorted(sent) == ["p1", "p3"]
    steps = runtime.call("get", saga_id)["steps"]
    assert [steps[f"p{n}"]["state"] for n in range(5) if queues[n] == "gone"] == ["failed"] * 3


def chain(*queues: str) -> Workflow:
    builder = WorkflowBuilder("letters")
    for number, queue in enumerate(queues):
        builder.add_step(f"s{number}", "letter_noop", queue=queue)
    return builder.build()


def test_a_start_takes_one_request(settings, store):
    """One script records and sends it, and nothing remains to confirm."""
    runtime = attach(make_app(settings), settings)
    workflow = chain("io")
    runtime.start_saga.delay(workflow, {})
    before = store.info("commandstats")["cmdstat_evalsha"]["calls"]
    runtime.start_saga.delay(workflow, {})
    after = store.info("commandstats")
    assert after["cmdstat_evalsha"]["calls"] - before == 1
    assert store.llen("io") == 2


def test_a_wide_start_sends_all_its_messages_by_scripts(settings, store):
    """Further scripts send what exceeds one script, each message once."""
    builder = WorkflowBuilder("wide").parallel([(f"p{n}", "letter_noop") for n in range(250)])
    runtime = attach(make_app(settings), settings)
    runtime.start_saga.delay(builder.build(), {})
    sent = [opened(text)["headers"]["multiagents"][2] for text in store.lrange("io", 0, -1)]
    assert sorted(sent) == sorted(f"p{n}" for n in range(250))
    assert not store.exists("_kombu.binding.io")


@pytest.fixture
def receiver() -> Iterator[list[str]]:
    """A receiver that reads or changes published messages."""
    heard: list[str] = []

    def hear(sender: Any = None, **_: Any) -> None:
        heard.append(sender)

    signals.before_task_publish.connect(hear)
    yield heard
    signals.before_task_publish.disconnect(hear)


def test_receivers_of_publishing_signals_are_called(settings, store, receiver):
    """Tracing adds its headers there, so each message goes through Celery."""
    runtime = attach(make_app(settings), settings)
    runtime.start_saga.delay(chain("io"), {})
    assert receiver == ["letter_noop"]
    assert store.llen("io") == 1


def declines(settings: Settings, **conf: Any) -> bool:
    app = make_app(settings)
    app.conf.update(conf)
    return Letters(app, settings)(message()) is None


@pytest.mark.parametrize(
    "conf",
    [
        {"broker_url": "redis://127.0.0.1:1/0"},
        {"task_serializer": "yaml"},
        {"task_compression": "gzip"},
        {"task_send_sent_event": True},
        {"task_inherit_parent_priority": True},
        {"broker_transport_options": {"global_keyprefix": "x"}},
        {"task_queues": [Queue("io", expires=60)]},
    ],
    ids=lambda conf: next(iter(conf)),
)
def test_what_celery_would_do_otherwise_is_left_to_celery(settings, conf):
    """Celery sends for other brokers, formats and lists."""
    assert declines(settings, **conf)
    assert not declines(settings)


def test_several_state_servers_leave_sending_to_celery(settings):
    """The broker is then not every saga's server."""
    urls = settings.model_copy(update={"state_urls": settings.redis_url})
    assert Letters(make_app(urls), urls)(message()) is None


def test_the_runtime_writes_letters(settings):
    """`attach` gives the dispatcher the direct publish."""
    runtime: Runtime = attach(make_app(settings), settings)
    assert isinstance(runtime.host.coordinator.dispatcher.letter_of, Letters)
