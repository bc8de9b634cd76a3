"""Does a worker say at its start which workflows it has found, and what they lack?"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import structlog.testing

from multiagents import WorkflowBuilder, task
from multiagents.cli.doctor.workers import Known, workflows
from multiagents.core.clock import FakeClock
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.engine.catalog import Catalog
from multiagents.engine.launches import Launch
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import Runtime
from multiagents.hosting.start_log import NO_WORKFLOW, WHERE, queues_of, tell_queues, tell_workflows
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
    """What this process registers, instead of what other tests have."""
    known: dict[str, Workflow] = {}
    monkeypatch.setattr(registry, "registered", lambda: dict(known))
    monkeypatch.setattr(registry, "forgotten", dict)
    return known


def told() -> list[Any]:
    with structlog.testing.capture_logs() as lines:
        tell_workflows()
    return lines


def test_a_start_names_workflows_and_the_sagas_modules(
    registered: dict[str, Workflow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line; a long list is cut."""
    registered.update({f"w{number:02}": order() for number in range(12)})
    monkeypatch.setitem(sys.modules, "start_log_app.sagas", ModuleType("start_log_app.sagas"))
    (line,) = told()
    assert line["log_level"] == "info"
    assert line["workflows"].startswith("w00, w01, ")
    assert line["workflows"].endswith(", w09 and 2 more")
    assert "start_log_app.sagas" in line["sagas_modules"]
    assert "multiagents" not in line["sagas_modules"]


def test_a_start_without_any_workflow_is_warned_of(registered: dict[str, Workflow]) -> None:
    """Its `sagas.py` stands where no worker looks, or nothing imports what registers them."""
    line, warning = told()
    assert line["workflows"] == "none"
    assert (warning["log_level"], warning["event"]) == ("warning", NO_WORKFLOW)
    assert "INSTALLED_APPS" in warning["fix"]


def test_doctor_warns_of_a_worker_without_workflows(redis_url: str) -> None:
    """One of a team's app that says so; earlier versions do not tell, the package's app has own."""
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
    """A plain task whose queue the app's routing names needs none that is known here."""
    homes = {"start_log.release": "undos", "start_log.reserve": "io", "start_log.print": "io"}
    assert queues_of([order()], homes.__getitem__) == {"io", "undos", "printers", "mails"}
    assert queues_of([], homes.__getitem__) == set()


def test_a_worker_warns_of_queues_that_no_worker_consumes(
    redis_url: str, registered: dict[str, Workflow]
) -> None:
    """Once, when the workers that were started with it are there."""
    registered["start_log_order"] = order()
    settings = Settings(redis_url=redis_url)
    runtime = Runtime(make_app(settings), settings)  # no other test has announced a worker by it
    other = Catalog(runtime.clock)
    other.add_local(WorkerInfo("start_log.print", "printers"))
    runtime.edge.run(other.publish("other@h", ["printers"], []))
    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            flow = runtime.host.announce("shop@h", ["celery"], slots=1, app="shop", broker="redis")
            runtime.edge.run(flow)
    (line,) = lines
    assert line["log_level"] == "warning"
    assert "no running worker consumes" in line["event"]
    assert line["queues"] == ["io", "mails"]
    assert line["fix"].startswith("start it with -Q celery,io,mails, or another worker")


def test_queues_that_are_consumed_are_no_news() -> None:
    """By this worker or another one."""
    with structlog.testing.capture_logs() as lines:
        tell_queues([], ["io"])
    assert lines == []
