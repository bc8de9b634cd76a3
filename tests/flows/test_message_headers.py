"""Do a saga's messages carry the headers of its start and its app?"""

from __future__ import annotations

import base64
import contextvars
import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery, Task
from celery.app.task import Context

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.exceptions import InvalidInput
from multiagents.core.message_headers import CELERYS
from multiagents.core.settings import Settings
from multiagents.core.states import Kind
from multiagents.engine.headers import MOST_BYTES
from multiagents.hosting.app import defaults
from multiagents.hosting.runtime import Runtime, attach
from multiagents.worker_sdk.decorators import worker
from multiagents.workflows.builder import WorkflowBuilder, task
from multiagents.workflows.workflow import Workflow
from tests.support.traced import TracedWorker

TENANT = {"tenant": "acme", "trace": {"parent": "00-1"}}
tenant = contextvars.ContextVar("tenant", default="public")
GIVEN: list[Any] = []


@worker("mh.look")
def look(context: Any) -> dict[str, Any]:
    return {}


class TenantApp(Celery):
    """An app as multi-tenant packages make it."""

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:
        options["headers"] = {**(options.get("headers") or {}), "tenant": tenant.get()}
        return super().send_task(name, *args, **options)


class Marked(Task):  # type: ignore[misc]  # celery has no types
    """A base class that sends in its own way."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        return super().apply_async(args, {**(kwargs or {}), "by": "own"}, **options)


class Seen(Task):  # type: ignore[misc]  # celery has no types
    """Records the headers that its steps get."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        GIVEN.append((self.request.get("tenant"), self.request.headers))
        return self.run(*args, **kwargs)


def noop(*args: Any, **kwargs: Any) -> None:
    """A team's own task."""


def pay(cents: int) -> None:
    """A team's task with a signature."""


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url)


@pytest.fixture
def store(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def team(settings: Settings, kind: type[Celery] = Celery, **options: Any) -> Runtime:
    app = kind("mh", set_as_current=False, **options)
    app.conf.update({**defaults(settings), "task_default_queue": "io"})
    app.task(noop, name="mh.plain", shared=False)
    app.task(pay, name="mh.pay", shared=False)
    app.task(noop, name="mh.marked", shared=False, base=Marked)
    return attach(app, settings)


def chain(*targets: Any) -> Workflow:
    builder = WorkflowBuilder("mh")
    for number, target in enumerate(targets):
        builder.add_step(f"s{number}", target, compensation="mh.look")
    return builder.build()


PLAIN = task("mh.plain", args=[])


def sent(store: Any) -> tuple[dict[str, Any], Any]:
    """Take the one waiting message; returns its headers and body."""
    assert store.llen("io") == 1
    found = json.loads(store.rpop("io"))
    return found["headers"], json.loads(base64.b64decode(found["body"]))


def started(runtime: Runtime, workflow: Workflow, **options: Any) -> str:
    saga_id: str = runtime.start_saga.apply_async((workflow, {}), **options).id
    return saga_id


@pytest.mark.parametrize("target", ["mh.look", PLAIN], ids=["worker", "plain task"])
def test_the_headers_of_a_start_are_those_of_its_first_message(settings, store, target):
    """Each saga has its own headers, whichever ran before in the process."""
    runtime = team(settings)
    for headers in (TENANT, {"tenant": "globex"}, None):
        started(runtime, chain(target), headers=headers)
        found, _ = sent(store)
        expected = headers or {}
        assert {name: found.get(name) for name in TENANT} == {
            name: expected.get(name) for name in TENANT
        }


@pytest.mark.parametrize("target", ["mh.look", PLAIN], ids=["worker", "plain task"])
def test_another_process_sends_the_next_messages_with_them(settings, store, target):
    """The next step's reporter and an operator's undo read the headers they lack."""
    first, second = team(settings), team(settings)
    saga_id = started(first, chain("mh.look", target), headers=TENANT)
    assert sent(store)[0]["tenant"] == "acme"
    held = second.host.engine.claim(
        saga_id, AttemptRef(Kind.RUN, "s0", 1), delivery="d", queue="io"
    )
    second.host.coordinator.dispatcher.headers.forget(saga_id)
    second.host.engine.succeed(held, "{}", go_on=False)
    assert sent(store)[0]["tenant"] == "acme"
    third = team(settings)
    third.call("cancel", saga_id)
    if target is PLAIN:
        assert store.llen("io") == 0  # it may run: the engine waits for its end or its timeout
        return
    headers, _ = sent(store)
    assert (headers["multiagents"][1], headers["tenant"]) == ("undo", "acme")


def test_a_continued_step_has_the_headers_of_its_message(redis_url):
    """Without them the continued step would run for another tenant."""
    GIVEN.clear()
    traced = TracedWorker(redis_url, task_cls=Seen)
    saga_id = started(traced.runtime, chain("mh.look", "mh.look"), headers=TENANT)
    traced.deliver(saga_id, "run", "s0", "mh.look", headers=TENANT)
    assert traced.runtime.call("get", saga_id)["state"] == "completed"
    assert GIVEN == [("acme", TENANT)] * 2
    traced.close()


def test_who_joins_a_saga_does_not_change_its_headers(settings, store):
    """The first start's headers count."""
    runtime, workflow = team(settings), chain("mh.look", "mh.look")
    for headers in (TENANT, {"tenant": "globex"}):
        kwargs = {"idempotency_key": "one"}
        result = runtime.start_saga.apply_async((workflow, {}), kwargs, headers=headers)
    assert sent(store)[0]["tenant"] == "acme"
    saga_id = runtime.call("list")[0]["transaction_id"]
    assert result.id != saga_id
    held = runtime.host.engine.claim(
        saga_id, AttemptRef(Kind.RUN, "s0", 1), delivery="d", queue="io"
    )
    runtime.host.engine.succeed(held, "{}", go_on=False)
    assert sent(store)[0]["tenant"] == "acme"


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"x": "a" * MOST_BYTES}, "bytes of JSON; the limit is 4,096"),
        ({"id": "1"}, "headers id belong to Celery"),
        ({"x": object()}, "headers are not JSON"),
        ({"x": "\udce9"}, "headers are not JSON"),
        ([1], "expected a dict"),
    ],
    ids=["large", "Celery's", "object", "surrogate", "list"],
)
def test_headers_that_a_saga_cannot_keep_are_refused_at_its_start(settings, store, headers, why):
    """Each of its messages would carry them."""
    with pytest.raises(InvalidInput, match=why):
        started(team(settings), chain("mh.look"), headers=headers)
    assert store.keys("ma:*") == []


def test_an_apps_own_send_task_sends_every_message(settings, store):
    """It runs for each call, not only for the process's first one."""
    runtime = team(settings, TenantApp)
    for target in (PLAIN, "mh.look"):
        for name in ("acme", "globex"):
            tenant.set(name)
            started(runtime, chain(target))
            assert sent(store)[0]["tenant"] == name


def test_a_tasks_own_apply_async_is_called(settings, store):
    """A plain task's base class sends it, and the app's base class sends a worker's step."""
    runtime = team(settings, task_cls=Marked)
    for target in (task("mh.marked", args=[]), "mh.look"):
        started(runtime, chain(target))
        assert sent(store)[1][1] == {"by": "own"}


def test_a_package_that_replaces_celerys_own_apply_async_is_called(settings, store, monkeypatch):
    """Tracing packages do so: their function looks like Celery's and adds a header."""
    inner = Task.apply_async

    @functools.wraps(inner)
    def traced(self: Any, *args: Any, **options: Any) -> Any:
        options["headers"] = {**(options.get("headers") or {}), "trace": tenant.get()}
        return inner(self, *args, **options)

    monkeypatch.setattr(Task, "apply_async", traced)
    runtime = team(settings)
    for target in (PLAIN, "mh.look"):
        for name in ("one", "two"):
            tenant.set(name)
            started(runtime, chain(target))
            assert sent(store)[0]["trace"] == name


def test_arguments_that_do_not_fit_fail_a_plain_step_clean(settings, store):
    """Celery also checks them for every message, not only the first."""
    runtime = team(settings)
    started(runtime, chain(task("mh.pay", args=["1"])))
    assert sent(store)[1][0] == [1]
    saga_id = started(runtime, chain("mh.look", task("mh.pay", args=["1", "2"])))
    sent(store)
    held = runtime.host.engine.claim(
        saga_id, AttemptRef(Kind.RUN, "s0", 1), delivery="d", queue="io"
    )
    runtime.host.engine.succeed(held, "{}", go_on=False)
    saga = runtime.call("get", saga_id)
    assert (saga["error"]["type"], saga["steps"]["s1"]["compensation"]) == ("Unsendable", None)
    assert "takes 1 positional argument but 2 were given" in saga["error"]["message"]


def test_no_header_of_celery_is_taken_for_one_of_the_sender() -> None:
    """Our list covers the installed Celery."""
    assert {name for name in vars(Context) if not name.startswith("_")} <= CELERYS
