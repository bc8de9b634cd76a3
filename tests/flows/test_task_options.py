"""Do an app's task options hold for a worker's steps, or are they refused?"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery, Task
from celery.app import trace
from kombu import Queue

from multiagents.core.exceptions import InvalidInput, NonRetryableError
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.hosting import bootstep, registration
from multiagents.hosting.app import defaults
from multiagents.hosting.runtime import attach
from multiagents.worker_sdk.decorators import worker
from multiagents.workflows.builder import WorkflowBuilder
from tests.support.traced import TracedWorker

NOWHERE = Settings(redis_url="redis://127.0.0.1:1/0")


@worker("to.free")
def free(context: Any) -> dict[str, Any]:
    return {}


@worker("to.limited")
def limited(context: Any) -> dict[str, Any]:
    return {}


@worker("to.placed", queue="placed")
def placed(context: Any) -> dict[str, Any]:
    return {}


LIMITS = [{"rate_limit": "1/s"}, {"time_limit": 5}, {"soft_time_limit": 5}]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: next(iter(limit)))
@pytest.mark.parametrize("names", [("to.free", "to.limited"), ("to.limited", "to.free")])
def test_a_step_that_celery_limits_is_a_message_of_its_own(redis_url, limit, names):
    """A continued step would escape its limit or fall under another one's."""
    traced = TracedWorker(redis_url, conf={"task_annotations": {"to.limited": limit}})
    builder = WorkflowBuilder("to_two")
    for number, name in enumerate(names):
        builder.add_step(f"s{number}", name)
    saga_id = traced.runtime.call("start", builder.build(), {})
    for number, name in enumerate(names):
        steps = traced.runtime.call("get", saga_id)["steps"]
        assert steps[f"s{number}"]["state"] == "dispatched"
        traced.deliver(saga_id, "run", f"s{number}", name)
    assert traced.runtime.call("get", saga_id)["state"] == "completed"
    traced.close()


def test_a_fan_out_of_limited_steps_is_sent_at_once(redis_url):
    """Withheld branches would wait for a slot that no process may pass on."""
    settings = Settings(redis_url=redis_url)
    app = Celery("to", set_as_current=False)
    app.conf.update(
        {**defaults(settings), "task_annotations": {"to.limited": {"rate_limit": "9/s"}}}
    )
    runtime = attach(app, settings)
    runtime.edge.run(runtime.catalog.publish("w@host", ["io"], [], slots=1))
    for name, sent in (("to.limited", 5), ("to.free", 1)):
        wide = WorkflowBuilder("to_wide").parallel([(f"p{n}", name) for n in range(5)]).build()
        with redis.Redis.from_url(redis_url) as client:
            client.delete("io")
            runtime.start_saga.delay(wide, {})
            assert client.llen("io") == sent


def test_others_learn_which_steps_go_alone(redis_url):
    """A client without the function decides which messages to withhold."""
    settings = Settings(redis_url=redis_url)
    app = Celery("to", set_as_current=False)
    app.conf.update(
        {**defaults(settings), "task_annotations": {"to.limited": {"rate_limit": "9/s"}}}
    )
    runtime = attach(app, settings)
    runtime.edge.run(runtime.catalog.publish("w@host", ["io"], []))
    other = Catalog(runtime.clock)
    runtime.edge.run(other.refresh(force=True))
    assert (other.alone("to.limited"), other.alone("to.free")) == (True, False)


REFUSED = {
    "queue": "fast",
    "routing_key": "fast",
    "priority": 3,
    "expires": 60,
    "serializer": "yaml",
    "compression": "gzip",
    "ignore_result": False,
    "track_started": True,
}


@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_cannot_be_kept_is_refused_by_name(option):
    """An error replaces the silent loss of the option."""
    app = Celery("to", set_as_current=False)
    app.conf.task_annotations = {"to.free": {option: REFUSED[option]}}
    with pytest.raises(InvalidInput, match=rf"{option} of worker 'to\.free' is .*cannot be kept"):
        attach(app, NOWHERE)


def test_an_option_of_a_base_class_is_refused_too():
    """A base class set after `attach` is refused when its worker starts."""

    class Expiring(Task):  # type: ignore[misc]  # celery has no types
        abstract = True
        expires = 60

    app = Celery("to", set_as_current=False)
    runtime = attach(app, NOWHERE)
    app.Task = Expiring
    try:
        with pytest.raises(InvalidInput, match=r"expires of worker '"):
            bootstep.renew_tasks(app, runtime)
    finally:
        app.Task = Task  # it stays, and checks each new worker


def test_settings_for_all_tasks_are_no_options_of_one():
    """They apply to step messages as far as they concern them."""
    app = Celery("to", set_as_current=False)
    app.conf.update(task_default_priority=4, task_track_started=True, task_compression="gzip")
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, task_ignore_result=True)
    app.conf.task_annotations = {"*": {"acks_late": False, "throws": (ValueError,)}}
    attach(app, NOWHERE)
    registration.check_all(app)
    assert app.tasks["to.free"].throws == (ValueError,)


def test_a_declared_error_is_an_expected_one_in_celerys_log():
    """It gives one line without traceback, and the app's own expected errors stay."""

    class Own(Task):
        throws = (LookupError,)

    app = Celery("to", set_as_current=False, task_cls=Own)
    attach(app, NOWHERE)
    step, found = app.tasks["to.free"], SimpleNamespace(internal=False)
    for error in (NonRetryableError("no courier"), KeyError("x")):
        policy = trace.get_log_policy(step, found, error)
        assert (policy.severity, policy.traceback) == (logging.INFO, False)
    assert trace.get_log_policy(step, found, OSError("x")).severity == logging.ERROR


@pytest.mark.parametrize(
    "routes",
    [
        {"to.*": {"queue": "routed"}},
        {"to.free": "routed", "to.placed": "routed"},
        [lambda name, *_, **__: {"queue": Queue("routed")} if name.startswith("to.") else None],
    ],
    ids=["pattern", "names", "function"],
)
def test_routes_of_the_app_say_where_a_workers_steps_go(redis_url, routes):
    """A queue named by the worker comes first, as in Celery's own calls."""
    settings = Settings(redis_url=redis_url)
    app = Celery("to", set_as_current=False)
    app.conf.update({**defaults(settings), "task_routes": routes})
    runtime = attach(app, settings)
    flow = WorkflowBuilder("to_routed").parallel([("a", "to.free"), ("b", "to.placed")]).build()
    runtime.start_saga.delay(flow, {})
    with redis.Redis.from_url(redis_url) as client:
        assert [client.llen(queue) for queue in ("routed", "placed", "io")] == [1, 1, 0]
    assert {"routed", "placed"} <= registration.homes(app)


def test_routes_that_raise_leave_a_worker_where_it_is(caplog):
    """A router may know only the team's tasks; a step's queue is known without it."""

    def router(name: str, *_: Any, **__: Any) -> dict[str, str]:
        raise KeyError(name)

    app = Celery("to", set_as_current=False)
    app.conf.task_routes = [router]
    runtime = attach(app, NOWHERE)
    assert runtime.catalog.queue_of("to.free") == "io"
