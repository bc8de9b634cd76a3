"""Does a starting worker log the workflows it found, and their missing parts?"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import structlog.testing

from multiagents import WorkflowBuilder, task
from multiagents.cli.doctor.workers import Known, queues, workflows
from multiagents.core.clock import FakeClock, SystemClock
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.engine import launches
from multiagents.engine.catalog import Catalog
from multiagents.engine.launches import Launch
from multiagents.hosting import published
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime
from multiagents.hosting.start_log import (
    NO_CONSUMER,
    NO_FUNCTION,
    NO_WORKFLOW,
    WHERE,
    log_workflows,
    queues_of,
    warn_of_queues,
)
from multiagents.storage.client import Edge
from multiagents.workflows import registry
from multiagents.workflows.workflow import Workflow


def order() -> Workflow:
    return (
        WorkflowBuilder("start_log_order")
        .add_step("reserve", "start_log.reserve", compensation="start_log.release")
        .add_step("print", "start_log.print", queue="printers")
        .add_step("mail", task("start_log.mail", args=[], queue="mails"))
        .add_step("plain", task("start_log.plain", args=[]))
        .build()
    )


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Workflow]:
    """This process's registry, without other tests' workflows."""
    known: dict[str, Workflow] = {}
    monkeypatch.setattr(registry, "registered", lambda: dict(known))
    monkeypatch.setattr(registry, "forgotten", dict)
    return known


def told() -> list[Any]:
    with structlog.testing.capture_logs() as lines:
        log_workflows()
    return lines


def test_a_start_names_workflows_and_the_sagas_modules(
    registered: dict[str, Workflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has one line, and cuts a long list."""
    registered.update({f"w{number:02}": order() for number in range(12)})
    monkeypatch.setitem(sys.modules, "start_log_app.sagas", ModuleType("start_log_app.sagas"))
    (line,) = told()
    assert line["log_level"] == "info"
    assert line["workflows"].startswith("w00, w01, ")
    assert line["workflows"].endswith(", w09 and 2 more")
    assert "start_log_app.sagas" in line["sagas_modules"]
    assert "multiagents" not in line["sagas_modules"]


def test_a_start_without_any_workflow_is_warned_of(registered: dict[str, Workflow]) -> None:
    """Its `sagas.py` may be misplaced, or no import registers its workflows."""
    line, warning = told()
    assert line["workflows"] == "none"
    assert (warning["log_level"], warning["event"]) == ("warning", NO_WORKFLOW)
    assert "INSTALLED_APPS" in warning["fix"]


def test_doctor_warns_of_a_worker_without_workflows(redis_url: str) -> None:
    """Only a team's app that reports it counts, not earlier versions or the package's app."""
    edge, catalog = Edge(redis_url), Catalog(FakeClock())
    edge.run(catalog.publish("none@h", ["io"], [], launch=Launch("shop")))
    edge.run(catalog.publish("some@h", ["io"], [order()], launch=Launch("shop")))
    edge.run(catalog.publish("own@h", ["io"], [], launch=Launch()))
    fleet = edge.run(catalog.fleet())
    edge.close()
    check = workflows(Known({**fleet, "old@h": {"app": "shop"}}))
    assert (check.status, check.message, check.fix) == ("warn", f"none@h: {NO_WORKFLOW}", WHERE)
    assert workflows(Known({"some@h": fleet["some@h"]}, [order()])).message == "1 published"


def test_the_queues_of_steps_and_undos_are_needed() -> None:
    """A plain task that the app routes needs no known queue."""
    homes = {"start_log.release": "undos", "start_log.reserve": "io", "start_log.print": "io"}
    assert queues_of([order()], homes.__getitem__) == {"io", "undos", "printers", "mails"}
    assert queues_of([], homes.__getitem__) == set()


def judged(redis_url: str, *others: Catalog, own: str = "") -> dict[str, Any]:
    """The warnings of a starting worker of queue ``celery`` beside these, by their text."""
    settings = Settings(redis_url=redis_url)
    runtime = Runtime(make_app(settings), settings)  # no other test has announced a worker under it
    if own:
        runtime.catalog.add_local(WorkerInfo(own, "celery"))
    for number, other in enumerate(others):
        runtime.edge.run(other.publish(f"w{number}@h", [*QUEUES], []))
    with structlog.testing.capture_logs() as lines:
        for _ in range(6):
            flow = runtime.host.announce("shop@h", ["celery"], slots=1, app="shop", broker="redis")
            runtime.edge.run(flow)
    found = {line["event"]: line for line in lines if line["log_level"] == "warning"}
    assert len(found) == len(lines)  # each once
    return found


QUEUES = ("printers",)


def test_a_worker_warns_of_what_no_worker_has(
    redis_url: str, registered: dict[str, Workflow]
) -> None:
    """The log names queues and functions once, after the workers started with it are there."""
    registered["start_log_order"] = order()
    other = Catalog(SystemClock())
    other.add_local(WorkerInfo("start_log.print", "printers"))
    found = judged(redis_url, other, own="start_log.reserve")
    assert found.keys() == {NO_CONSUMER, NO_FUNCTION}
    assert found[NO_CONSUMER]["queues"] == ["io", "mails"]
    fix = found[NO_CONSUMER]["fix"]
    assert fix.startswith("start it with -Q celery,io,mails, or another worker")
    assert found[NO_FUNCTION]["functions"] == "start_log.release"


@pytest.mark.parametrize("state", ["stopping", "ended"])
def test_a_worker_that_takes_no_more_consumes_nothing(
    redis_url: str, registered: dict[str, Workflow], state: str
) -> None:
    """In a redeploy its functions count for a while, but its queues do not."""
    registered["start_log_order"] = order()
    before, edge = Catalog(SystemClock()), Edge(redis_url)
    for name in ("reserve", "release", "print"):
        before.add_local(WorkerInfo(f"start_log.{name}", "undos"))
    queues, at_work = ["io", "undos", "printers", "mails"], 1 if state == "stopping" else None
    edge.run(before.publish("full@h", queues, [], at_work=at_work))
    if state == "ended":
        edge.run(before.retire("full@h"))
    edge.close()
    found = judged(redis_url)
    assert found[NO_CONSUMER]["queues"] == ["io", "mails", "printers", "undos"]
    assert "start_log.print" in found[NO_FUNCTION]["functions"]


def test_the_queue_to_which_an_app_routes_a_plain_task_is_needed(
    redis_url: str, registered: dict[str, Workflow]
) -> None:
    """`task_routes`, the task or `task_default_queue` names it, if the app has the task."""
    registered["start_log_order"] = order()
    settings = Settings(redis_url=redis_url)
    app = make_app(settings)
    app.main = "routed"

    @app.task(name="start_log.plain")  # type: ignore[untyped-decorator]  # celery has no types
    def plain() -> None: ...

    app.conf.task_default_queue = "stay"
    Runtime(app, settings)
    assert published.about(app)["routes"] == {"start_log.plain": "stay"}
    app.conf.task_routes = {"start_log.*": {"queue": "routed"}}
    assert published.about(app)["routes"] == {"start_log.plain": "routed"}
    app.tasks["start_log.plain"].queue = "own"
    assert published.about(app)["routes"] == {"start_log.plain": "own"}
    app.tasks["start_log.plain"].queue = None
    app.conf.task_routes = {"start_log.*": {"exchange": "elsewhere"}}
    assert published.about(app)["routes"] == {}
    app.conf.task_routes = (lambda *given, **options: 1 / 0,)
    with structlog.testing.capture_logs() as lines:
        assert published.about(app)["routes"] == {}
    assert "ZeroDivisionError" in lines[0]["error"]
    assert queues_of([order()], lambda name: "io", {"start_log.plain": "stay"}.get) == {
        *("io", "printers", "mails", "stay")
    }


def test_doctor_knows_the_queues_that_workers_route_plain_tasks_to(redis_url: str) -> None:
    """A running worker, an earlier one or the doctor's own app tells them."""
    edge, catalog = Edge(redis_url), Catalog(FakeClock())
    routes = {"start_log.plain": "stay"}
    launch = Launch("shop", (), ("io",), routes=routes)
    edge.run(catalog.publish("some@h", ["io"], [order()], launch=launch, routes=routes))
    fleet, known = edge.run(catalog.fleet()), edge.run(launches.read())
    edge.close()
    assert "stay" in queues(Known(fleet, [order()])).message
    bare = {host: {**each, "routes": {}} for host, each in fleet.items()}
    assert "stay" in queues(Known(bare, [order()], known)).message
    assert "stay" not in queues(Known(bare, [order()])).message
    app = Known(bare, [order()], route_of=lambda task: routes.get(task, ""))
    assert "stay" in queues(app).message


def test_queues_that_are_consumed_are_no_news() -> None:
    """The consumer may be this worker or another one."""
    with structlog.testing.capture_logs() as lines:
        warn_of_queues([], ["io"])
    assert lines == []
