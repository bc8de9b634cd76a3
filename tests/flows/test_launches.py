"""Does the advice to start a worker fit the reader's project?"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from multiagents import WorkflowBuilder
from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import UnknownWorker, UnknownWorkflow
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings
from multiagents.engine import launches
from multiagents.engine.catalog import ALIVE_MS, Catalog, split
from multiagents.engine.launches import (
    KEPT_MS,
    Launch,
    advice,
    app_named,
    called_for,
    has_dev,
    launch_of,
    unknown_app,
)
from multiagents.hosting.app import make_app
from multiagents.hosting.runtime import attach, runtime_at
from multiagents.storage.client import Edge

SHOP = Launch("multiagents", ("shop", "shop.mail"), ("io", "llm"), ("reserve", "mail"), at_ms=2)
PROJ = Launch("proj", (), ("celery", "io"), ("pay",), at_ms=1)


def test_the_launch_that_has_the_functions_is_repeated() -> None:
    """The command has its app, its imports and the queue without a worker."""
    told = advice([SHOP, PROJ], queues=["io"], functions=["reserve"])
    assert told == "MULTIAGENTS_IMPORTS=shop,shop.mail celery -A multiagents worker -Q io"
    told = advice([SHOP, PROJ], queues=["slow"], functions=["pay"])
    assert told == "celery -A proj worker -Q slow"


def test_where_no_worker_runs_all_its_queues_are_consumed() -> None:
    """One queue alone would leave the others, and the engine's, without a worker."""
    told = advice([SHOP], queues=["slow"], functions=["mail"], alone=True)
    assert told.endswith("celery -A multiagents worker -Q io,llm,slow")
    assert advice([PROJ]) == "celery -A proj worker -Q celery,io"


def test_a_function_that_no_launch_had_needs_a_module() -> None:
    """The known imports stay; a team's app imports its own modules."""
    told = advice([SHOP], queues=["io"], functions=["reserve", "new"])
    assert told == (
        "MULTIAGENTS_IMPORTS=shop,shop.mail,YOUR_MODULE celery -A multiagents worker -Q io"
    )
    assert advice([PROJ], queues=["io"], functions=["new"]) == "celery -A proj worker -Q io"


def test_without_any_launch_the_askers_own_imports_are_taken() -> None:
    """The caller's MULTIAGENTS_IMPORTS fill the command, or else a placeholder does."""
    told = advice([], functions=["f"], imports=["shop"])
    assert told == "MULTIAGENTS_IMPORTS=shop celery -A multiagents worker"
    told = advice([], queues=["io"])
    assert told == "MULTIAGENTS_IMPORTS=YOUR_MODULE celery -A multiagents worker -Q io"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("celery -A proj worker -Q io", "proj"),
        ("celery -Aproj.app:it worker", "proj.app:it"),
        ("/usr/bin/celery --app=proj worker -c 2", "proj"),
        ("celery --app proj worker", "proj"),
        ("python -m celery worker", "named"),
        ("gunicorn -A proj", ""),
        ("program.py", ""),
    ],
)
def test_the_name_after_celery_is_found(line: str, name: str) -> None:
    """A worker embedded in a program has no such command."""
    assert app_named(line.split(), "named") == name


def test_a_worker_without_functions_is_no_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice must not repeat it; a team's app with plain tasks alone is fine."""
    monkeypatch.setattr("sys.argv", ["celery", "-A", "multiagents", "worker"])
    given: dict[str, Any] = {"imports": ["shop"], "queues": ["io"]}
    assert launch_of("multiagents", functions=[], **given) is None
    assert launch_of("multiagents", functions=["f"], **given) == Launch(
        "multiagents", ("shop",), ("io",), ("f",)
    )
    monkeypatch.setattr("sys.argv", ["celery", "-A", "proj.celery", "worker"])
    assert launch_of("proj", functions=[], **given) == Launch("proj.celery", (), ("io",))


@pytest.fixture
def edge(redis_url: str) -> Iterator[Edge]:
    made = Edge(redis_url)
    yield made
    made.close()


def test_a_launch_outlives_its_worker(edge: Edge) -> None:
    """It is needed most if no worker runs, and expires after a month without use."""
    clock = FakeClock()
    catalog = Catalog(clock)
    catalog.add_local(WorkerInfo("pay"))
    edge.run(catalog.publish("w@h", ["io"], [], launch=PROJ))
    assert edge.run(catalog.fleet())["w@h"]["app"] == "proj"
    edge.run(catalog.withdraw("w@h"))
    (found,) = edge.run(launches.read())
    assert (found.app, found.queues, found.at_ms) == ("proj", PROJ.queues, clock.now_ms())
    clock.advance(KEPT_MS / 1000 + 1)
    edge.run(Catalog(clock).publish("s@h", ["io"], [], launch=SHOP))
    assert [each.app for each in edge.run(launches.read())] == ["multiagents"]


def test_what_a_worker_knew_outlives_its_end_for_a_while(edge: Edge) -> None:
    """The worker may be restarting, and steps sent meanwhile need their queue."""
    clock = FakeClock()
    theirs, ours = Catalog(clock), Catalog(clock)
    theirs.add_local(WorkerInfo("think", queue="llm"))
    edge.run(theirs.publish("w@h", ["llm"], [], at_work=2))
    running, stopping = split(edge.run(ours.fleet()))
    assert (dict(running), stopping["w@h"]["at_work"]) == ({}, 2)
    edge.run(theirs.retire("w@h"))
    assert edge.run(ours.fleet()) == {}
    assert (ours.queue_of("think"), edge.run(ours.missing({"think"}))) == ("llm", set())
    clock.advance(ALIVE_MS / 1000)
    assert edge.run(ours.fleet()) == {}
    assert edge.run(ours.missing({"think"})) == {"think"}
    edge.run(theirs.retire("w@h"))  # a second time, without any information
    assert edge.run(ours.missing({"think"})) == {"think"}


def test_a_launch_tells_the_plain_tasks_of_its_app(edge: Edge) -> None:
    """An earlier version's unknown tasks differ from no tasks."""
    edge.run(launches.remember(replace(PROJ, tasks=("mail",))))
    edge.run(launches.remember(SHOP))
    assert {each.app: each.tasks for each in edge.run(launches.read())} == {
        "proj": ("mail",),
        "multiagents": None,
    }


def test_who_asks_may_have_the_module_that_no_launch_had() -> None:
    """The caller's MULTIAGENTS_IMPORTS are added unless a launch has them."""
    known = [Launch(imports=("shop",), functions=("charge",))]
    told = advice(known, queues=["io"], functions=["mail"], imports=("shop", "shop.mail"))
    assert told == "MULTIAGENTS_IMPORTS=shop,shop.mail celery -A multiagents worker -Q io"
    told = advice(known, queues=["io"], functions=["mail"], imports=("shop",))
    assert told == "MULTIAGENTS_IMPORTS=shop,YOUR_MODULE celery -A multiagents worker -Q io"


def test_in_a_program_with_an_app_of_its_own_that_app_is_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``-A`` takes the module that makes the app, whatever its name."""
    package = tmp_path / "launched_shop"
    package.mkdir()
    (package / "__init__.py").write_text("from .celery import app")
    (package / "celery.py").write_text("import celery; app = celery.Celery('Shop of ours')")
    monkeypatch.syspath_prepend(tmp_path)
    attach(importlib.import_module("launched_shop").app, Settings())
    assert advice([], queues=["io"], imports=["x"]) == "celery -A launched_shop worker -Q io"
    assert unknown_app().app == "launched_shop"
    assert not has_dev([])
    only_own = Launch(imports=("shop",), functions=("reserve",))
    assert advice([only_own], functions=["mail"]) == "celery -A launched_shop worker"
    with called_for("named"):
        assert advice([]) == "celery -A named worker"
    attach(Celery("main", set_as_current=False), Settings())
    assert advice([]) == "celery -A main worker"


@pytest.mark.parametrize("faces", ["attached", "package"])
def test_an_unknown_workflow_names_the_apps_worker_and_the_server(
    redis_url: str, faces: str
) -> None:
    """A wrong server looks like a missing worker; its URL has no password."""
    secret = redis_url.replace("redis://", "redis://default:hunter2@")
    runtime = attach(Celery("shop", set_as_current=False), Settings(redis_url=secret))
    if faces == "package":
        runtime = attach(make_app(Settings()), Settings(redis_url=secret))
    with pytest.raises(UnknownWorkflow) as refused:
        runtime.call("start", "launches_nothing", {})
    text = str(refused.value)
    assert "start one that imports its module, with `celery -A shop worker`" in text
    assert "YOUR_MODULE" not in text
    assert f"the server asked is {redis_url}, named by MULTIAGENTS_REDIS_URL" in text
    assert "hunter2" not in text


def test_an_app_that_is_not_attached_is_named_where_a_workflow_is_unknown(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers ignore the workflow, and one of the package's app seldom helps."""
    (tmp_path / "launched_alone.py").write_text("import celery; app = celery.Celery('alone')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    app = importlib.import_module("launched_alone").app
    monkeypatch.setattr("celery._state.default_app", app)
    own = runtime_at(redis_url)
    told = (
        "if app 'alone' has it, call multiagents.attach(app) where it is made (launched_alone.py)"
    )
    with pytest.raises(UnknownWorkflow, match=re.escape(told)):
        own.call("start", "launches_nothing", {})
    attach(app, Settings())
    with pytest.raises(UnknownWorkflow) as refused:
        own.call("start", "launches_nothing", {})
    assert "multiagents.attach" not in str(refused.value)


@pytest.mark.parametrize("hosts", [["celery@vm"], ["celery@vm", "two@vm"]])
def test_a_start_names_the_workers_that_lack_a_function(redis_url: str, hosts: list[str]) -> None:
    """An earlier worker of the same launch had it, so its name or module has changed."""
    runtime = runtime_at(redis_url)
    began_ms = runtime.clock.now_ms()
    before = Launch("proj", (), ("other",), ("launches.write_invoice",), at_ms=began_ms)
    runtime.edge.run(launches.remember(before))
    workflow = WorkflowBuilder("launches_invoice").add_step("a", "launches.write_invoice").build()
    now = replace(before, queues=("io",), functions=())
    catalog = Catalog(runtime.clock)
    for host in hosts:
        runtime.edge.run(catalog.publish(host, ["io"], [], launch=now))
    try:
        with pytest.raises(UnknownWorker) as refused:
            runtime.call("start", workflow, {})
        runtime.edge.run(catalog.publish("celery@vm", ["io"], [], launch=replace(now, app="new")))
        runtime.edge.run(catalog.withdraw("two@vm"))
        with pytest.raises(UnknownWorker) as other:
            runtime.call("start", workflow, {})
    finally:
        runtime.edge.run(catalog.withdraw("celery@vm"))
    who = "worker celery@vm lacks" if len(hosts) == 1 else "workers celery@vm, two@vm lack"
    text = str(refused.value)
    assert text.startswith(f"workflow 'launches_invoice' cannot run: {who} 'launches.write_inv")
    assert "have a worker import the module that has it, and start it again" in text
    assert "-Q other" not in text
    assert "start a worker that has it (`celery -A proj worker -Q other`)" in str(other.value)


def test_only_the_packages_own_app_has_dev() -> None:
    """A team's app has its own command."""
    assert has_dev([])
    assert has_dev([Launch(imports=("shop",))])
    assert not has_dev([Launch(app="proj"), Launch()])
