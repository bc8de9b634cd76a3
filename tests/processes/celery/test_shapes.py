"""Do long and wide sagas complete on a real worker?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from multiagents import WorkflowBuilder, attach
from multiagents.core.settings import Settings
from tests.support.processes import Worker, wait_for

pytestmark = pytest.mark.processes

LENGTH = 200


@pytest.fixture(scope="module")
def worker(server: Any) -> Iterator[Worker]:
    """A real worker with two processes."""
    options = ("-Q", "llm,io", "-c", "2")
    with Worker(server.url, *options, imports="tests.support.basic_workers") as worker:
        worker.wait_ready()
        yield worker


@pytest.fixture(scope="module")
def client(server: Any, worker: Worker) -> Iterator[Any]:
    """The engine as a client of that worker."""
    app = Celery("shapes", broker=server.url, backend=server.url, set_as_current=False)
    yield attach(app, Settings(redis_url=server.url))
    app.close()


def test_a_chain_of_two_hundred_steps_completes(client):
    """Each step runs once; a continued step has an id of its own."""
    builder = WorkflowBuilder("long")
    for number in range(LENGTH):
        builder.add_step(f"s{number}", "echo")
    result = client.start_saga.delay(builder.build(), {"text": "hi"})
    assert result.get(timeout=60) == {"echo": "hi"}
    saga = client.call("get", result.id)
    assert [step["attempts"] for step in saga["steps"].values()] == [1] * LENGTH


def test_a_fan_out_of_two_hundred_joins(client):
    """All branches run once, and the join after the last of them."""
    builder = WorkflowBuilder("wide").add_step("first", "echo")
    builder.parallel([(f"p{number}", "echo") for number in range(LENGTH)])
    builder.add_step("join", "echo")
    result = client.start_saga.delay(builder.build(), {"text": "hi"})
    assert result.get(timeout=60) == {"echo": "hi"}
    steps = client.call("get", result.id)["steps"]
    assert all(step["attempts"] == 1 for step in steps.values())
    order = [event["step"] for event in client.call("history", result.id) if event["step"]]
    assert order[-2:] == ["join", "join"]
    assert order.count("join") == 2


def test_every_log_line_of_a_step_says_which_step_it_is(client, worker):
    """Celery's own and the function's, also of a step that is gone on with, and of an async one."""
    result = client.start_saga.delay("telling", {})
    result.get(timeout=60)
    wait_for(lambda: f"[{result.id}:two:1] succeeded" in worker.log, 10, "Celery's line")
    lines = [line for line in worker.log.splitlines() if result.id in line]
    for step in ("one", "two"):
        mark = f" saga={result.id} workflow=telling step={step} attempt=1"
        assert sum("told by logging" in line and line.endswith(mark) for line in lines) == 1
        assert sum("succeeded in" in line and line.endswith(mark) for line in lines) == 1
        told = [line for line in lines if "told by structlog" in line]
        assert sum(f"step={step}" in line and "workflow=telling" in line for line in told) == 1
