"""Which real server do the tests run on?

One embedded server serves the whole session, in its own folder; a missing server is a failure,
never a skip.  The fixture ``redis_url`` gives it emptied.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog
from hypothesis import settings

from multiagents.core import program
from multiagents.core.logs import tame
from multiagents.core.settings import get_settings
from multiagents.devserver.binary import locate
from multiagents.devserver.server import EmbeddedServer
from multiagents.hosting import attached
from multiagents.worker_sdk import breaker
from multiagents.worker_sdk import registry as worker_registry
from multiagents.workflows import registry
from tests.support.watcher import guard

pytest_plugins = ["tests.support.llm_provider", "tests.support.office"]

OF_A_DELIVERY = (
    ("multiagents.hosting.fence", "fenced"),
    ("multiagents.hosting.step_task", "slot"),
    ("multiagents.hosting.plain_reports", "_returned"),
)
"""State that a thread keeps of the delivery it runs, by module and name."""
LONG = ("tests/processes/", "tests/simulation/", "tests/docs/", "tests/upgrade/")
"""Folders of tests that start processes or run for long; all others run at the end."""


def pytest_configure() -> None:
    """End all started processes with this run, and register the profile of `make test-fast`."""
    guard()
    settings.register_profile("fast", max_examples=10)


def pytest_report_header() -> str:
    """The server that the tests use."""
    found = locate()
    return f"server: {found.path.name} {'.'.join(map(str, found.version))} ({found.source})"


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around xdist, which reads the groups
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """With several test processes, long tests begin first.

    A file's tests stay together, because they share what they start. Tests marked ``single`` share
    nothing and go to any process; a test's own group stays.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(LONG))
        for item in items:
            if not (item.get_closest_marker("single") or item.get_closest_marker("xdist_group")):
                item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    yield
    for item in items:
        _show_group(item)


def _show_group(item: Any) -> None:
    """Put xdist's group into the id of a test, by which its scheduler keeps the group together.

    xdist 3.8 sets ``_nodeid``, which pytest reads no more since 9.2: each test was its own group.
    """
    grouped = getattr(item, "_nodeid", item.nodeid)
    if grouped != item.nodeid:
        item._id = type(item._id).parse(grouped)


@pytest.fixture(autouse=True)
def _no_app_attached(_without_a_delivery: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a program that has attached no app yet.

    The reset after a delivery begins before ``monkeypatch``, so it ends after its undo.
    """
    monkeypatch.setattr(attached, "_latest", None)
    monkeypatch.setattr(program, "_name_of_app", None)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """Reset the process state that a test set: log, settings and registries.

    A command in this process sets up its log and reads its settings once, so the next test would
    lose warnings or print them elsewhere. Workflows and workers that a test's own lines registered
    are removed; those of modules stay, because a module is imported once.
    """
    before, workers_before = registry.registered().keys(), worker_registry.workers().keys()
    yield
    if logs := sys.modules.get("multiagents.monitoring.logs"):
        logs.close_logs()
    structlog.reset_defaults()
    tame()
    get_settings.cache_clear()
    for name in registry.registered().keys() - before:
        place = registry.place_of(name)
        if place is not None and Path(place.file).resolve() == request.path:
            registry.forget(name)
    for name, worker in worker_registry.workers().items():
        if name not in workers_before and _stands_in(request.path, worker.function):
            del worker_registry._registry._workers[name]


def _stands_in(path: Path, function: Callable[..., Any]) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and Path(code.co_filename).resolve() == path


@pytest.fixture(autouse=True)
def _without_a_delivery() -> Iterator[None]:
    """Reset the state that a delivery or an embedded worker left in this thread.

    A worker leaves its channel, its view of the store and its breakers.
    """
    is_connected = "multiagents.hosting.runtime" in sys.modules  # its import connects the breakers
    connection = breaker._connection
    yield
    for module, name in OF_A_DELIVERY:
        if loaded := sys.modules.get(module):
            vars(getattr(loaded, name)).clear()  # of this thread alone
    if requests := sys.modules.get("multiagents.hosting.step_request"):
        vars(requests.sight).update(vars(type(requests.sight)()))
        requests.channel.close()
    if is_connected:
        breaker._connection = connection


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The session's server; stopped at the end."""
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def redis_url(server: EmbeddedServer) -> str:
    """The URL of the server, emptied."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def port(server: EmbeddedServer) -> int:
    """The port of the session's server, as it is."""
    return server.port
