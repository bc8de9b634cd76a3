"""Do long and wide sagas complete on a real worker?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from multiagents import WorkflowBuilder, attach
from multiagents.core.settings import Settings
from tests.processes import Worker

pytestmark = pytest.mark.processes

LENGTH = 200


@pytest.fixture(scope="module")
def client(server: Any) -> Iterator[Any]:
    """The engine as a client of a real worker with two processes."""
    options = ("-Q", "llm,io", "-c", "2")
    with Worker(server.url, *options, imports="tests.support.basic_workers") as worker:
        worker.wait_ready()
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
