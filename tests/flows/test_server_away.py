"""What does a program see if its server does not answer?"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TimeoutError as CeleryTimeoutError

from multiagents import NoServer, Orchestrator, RedisEventBus, WorkflowBuilder
from multiagents.core.events import StatusEvent
from multiagents.core.settings import Settings
from multiagents.devserver.binary import locate
from multiagents.event_bus.redis_bus import _client
from multiagents.hosting.app import make_app
from multiagents.hosting.eager import _in_process_redis
from multiagents.hosting.runtime import Runtime, runtime_at
from multiagents.storage.outages import reason_of
from multiagents.storage.routing import open_async_edge
from multiagents.transport.async_result import _Wait

AWAY = "redis://someone:se%40cret@127.0.0.1:1/0"
"""No server listens on port 1."""
WORKFLOW = WorkflowBuilder("away").add_step("a", "echo").build()


def _runtime() -> Runtime:
    settings = Settings(redis_url=AWAY)
    return Runtime(make_app(settings), settings)


async def _facade() -> None:
    async with Orchestrator(WORKFLOW, state_store=AWAY):
        pass


async def _facade_later() -> None:
    """A facade whose server was there at its start."""
    orchestrator = Orchestrator(WORKFLOW, state_store=AWAY)
    orchestrator._home = home = runtime_at(AWAY)
    orchestrator._edge = open_async_edge(home.settings, perform=home.courier)
    try:
        await orchestrator.list()
    finally:
        await orchestrator.stop()


async def _bus() -> None:
    async with RedisEventBus(AWAY):
        pass


async def _bus_later() -> None:
    bus = RedisEventBus(AWAY)
    bus._sender = _client(AWAY, redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0))
    try:
        await bus.publish(StatusEvent(transaction_id="t", correlation_id="c", state="running"))
    finally:
        await bus.stop()


CALLS: dict[str, Callable[[], Any]] = {
    "an operation": lambda: _runtime().call("list"),
    "a start": lambda: _runtime().start_saga.delay(WORKFLOW, {}),
    "a worker's process": lambda: _runtime().prepare(),
    "the facade": lambda: asyncio.run(_facade()),
    "the facade, later": lambda: asyncio.run(_facade_later()),
    "the bus": lambda: asyncio.run(_bus()),
    "the bus, later": lambda: asyncio.run(_bus_later()),
}


@pytest.mark.parametrize("kind", CALLS)
def test_no_server_is_told_without_the_frames_of_others(kind: str) -> None:
    """The traceback ends at the caller's own call; server and reason appear, no password."""
    wanted = r"no Redis .* at redis://127.0.0.1:1/0 \(connection refused"
    with pytest.raises(NoServer, match=wanted) as raised:
        CALLS[kind]()
    shown = "".join(traceback.format_exception(raised.value))
    assert "/redis/" not in shown
    assert shown.count("Traceback") == 1
    assert "cret" not in shown


def test_a_server_binary_that_does_not_run_likewise(tmp_path: Path) -> None:
    """The embedded server has its own causes."""
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    with pytest.raises(NoServer, match="Exec format error") as raised:
        locate(Settings(redis_server=broken))
    assert "".join(traceback.format_exception(raised.value)).count("Traceback") == 1


def test_a_wait_that_is_over_likewise() -> None:
    """The error is raised outside the handler of the store's error."""

    def wait() -> None:
        try:
            raise redis.ConnectionError("Error 111")
        except redis.ConnectionError:
            _Wait("s", 0).check("no server answers")

    wanted = "no server answers; saga s has not ended in time"
    with pytest.raises(CeleryTimeoutError, match=wanted) as raised:
        wait()
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (redis.ConnectionError("Error 111 connecting to h:1. Connection refused."), "refused"),
        (redis.ConnectionError("[Errno 111] Connect call failed ('h', 1)"), "connection refused"),
        (redis.TimeoutError("Timeout reading from socket"), "no answer in time"),
        (
            redis.AuthenticationError("invalid username-password pair"),
            "rejects the user or password",
        ),
        (redis.ConnectionError("Error -2 connecting. Name or service not known."), "unknown host"),
        (redis.ConnectionError("pass=secret"), "ConnectionError"),
    ],
)
def test_why_is_told_in_plain_words(error: Exception, reason: str) -> None:
    """The message omits the error's own text, which may quote a URL."""
    assert reason in reason_of(error)
    assert "secret" not in reason_of(error)


def test_eager_mode_without_its_library_likewise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the missing library."""
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    wanted = r"task_always_eager runs .*fakeredis.*pip install 'multiagents\[testing\]'"
    with pytest.raises(NoServer, match=wanted) as raised:
        _in_process_redis("task_always_eager")
    assert raised.value.__suppress_context__
