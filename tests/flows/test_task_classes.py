"""Is a worker function's task one of its app's tasks, by name and by class?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, Task

from multiagents.core.exceptions import InvalidInput
from multiagents.core.settings import Settings
from multiagents.hosting import bootstep
from multiagents.hosting.runtime import Runtime, attach
from multiagents.worker_sdk import registry
from multiagents.worker_sdk.decorators import worker
from multiagents.workflows.builder import WorkflowBuilder
from tests.support.traced import TracedWorker

INSIDE: list[str] = []
"""The contexts that are open now, as Flask's application context would be."""
SEEN: list[tuple[str, list[str]]] = []


class ContextTask(Task):  # type: ignore[misc]  # celery has no types
    """A task class as in Flask's manual."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        INSIDE.append(self.name)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            INSIDE.pop()


@worker("tc.look")
def look(context: Any) -> dict[str, Any]:
    SEEN.append((context.step, list(INSIDE)))
    return {}


two = WorkflowBuilder("tc_two").add_step("one", "tc.look").add_step("two", "tc.look").build()


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


def team(**options: Any) -> Celery:
    return Celery("tc", broker="memory://", set_as_current=False, **options)


@pytest.fixture
def hosted() -> Runtime:
    app = team()
    app.task(noop, name="tc.taken", shared=False)
    return attach(app, Settings(redis_url="redis://127.0.0.1:1/0"))


def noop(*args: Any) -> dict[str, Any]:
    return {}


class Other(Task):  # type: ignore[misc]  # celery has no types
    """An old-style task."""

    name = "tc.look"

    def run(self) -> None:
        """Never called."""


def test_a_worker_named_like_a_task_is_refused_where_it_is_registered(hosted: Runtime) -> None:
    """The error names both, and the worker is not registered."""
    noop_twice = r".*noop \(.*\.py:\d+\) and .*noop \(.*\.py:\d+\); give the"
    with pytest.raises(InvalidInput, match=rf"both called 'tc\.taken': {noop_twice}"):
        worker("tc.taken")(noop)
    assert registry.find("tc.taken") is None
    assert hosted.app.tasks["tc.taken"].run is noop


@pytest.mark.parametrize(
    "register",
    [
        lambda app: app.task(noop, name="tc.look", shared=False),
        lambda app: app.register_task(Other()),
        lambda app: app.register_task(Other),
    ],
    ids=["decorated", "object", "class"],
)
def test_a_task_named_like_a_worker_is_refused_where_it_is_registered(
    hosted: Runtime, register: Callable[[Celery], Any]
) -> None:
    """Celery would return the worker's task, or replace it."""
    before = hosted.app.tasks["tc.look"]
    with pytest.raises(InvalidInput, match=r"both called 'tc\.look'"):
        register(hosted.app)
    assert hosted.app.tasks["tc.look"] is before


def test_an_app_that_has_a_task_named_like_a_worker_cannot_be_attached() -> None:
    """Worker and task both existed before the attach."""
    app = team()
    app.task(noop, name="tc.look", shared=False)
    with pytest.raises(InvalidInput, match=r"both called 'tc\.look'"):
        attach(app, Settings(redis_url="redis://127.0.0.1:1/0"))


@pytest.mark.parametrize("late", [False, True], ids=["task_cls", "app.Task after attach"])
def test_a_step_runs_within_its_apps_base_class(redis_url: str, late: bool) -> None:
    """Both a delivered and a continued step do, as Flask users need."""
    if late:
        traced = TracedWorker(redis_url)
        traced.app.Task = ContextTask
        bootstep.renew_tasks(traced.app, traced.runtime)
        traced.trace()
    else:
        traced = TracedWorker(redis_url, task_cls=ContextTask)
    try:
        saga_id = traced.runtime.call("start", two, {})
        traced.deliver(saga_id, "run", "one", "tc.look")
        assert traced.runtime.call("get", saga_id)["state"] == "completed"
        assert SEEN == [("one", ["tc.look"]), ("two", ["tc.look"])]
    finally:
        traced.close()


def test_an_eager_step_runs_within_its_apps_base_class() -> None:
    """Tests see the behaviour of workers."""
    app = team()
    app.conf.task_always_eager = True
    runtime = attach(app, Settings(redis_url="redis://127.0.0.1:1/0"))
    app.Task = ContextTask
    assert runtime.start_saga.delay(two, {}).state == "SUCCESS"
    assert SEEN == [("one", ["tc.look"]), ("two", ["tc.look"])]
