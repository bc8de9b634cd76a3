"""What do the broker and the result backend contain? No worker runs here."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from multiagents import SagaFailed, WorkflowBuilder, attach
from multiagents.core.names import COMPENSATE, HEADER
from multiagents.core.ports import WorkerInfo
from multiagents.core.settings import Settings

PRIORITY_SUFFIX = "\x06\x16"
"""kombu's separator between a queue's name and a priority."""


@pytest.fixture
def runtime(redis_url: str) -> Iterator[Any]:
    """The engine of an app that only starts sagas."""
    app = Celery("messages", broker=redis_url, backend=redis_url, set_as_current=False)
    made = attach(app, Settings(redis_url=redis_url))
    made.catalog.add_local(WorkerInfo("work"))
    yield made
    app.close()


def flow(**options: Any):
    return WorkflowBuilder("one").add_step("only", "work", **options).build()


def waiting(runtime: Any, queue: str) -> list[dict[str, Any]]:
    """The messages in a queue: headers, properties and the decoded body."""
    found = []
    for raw in runtime.edge.client.lrange(queue, 0, -1):
        message = json.loads(raw)
        message["body"] = json.loads(base64.b64decode(message["body"]))
        found.append(message)
    return found


def test_a_step_message_carries_its_errback_and_its_attempt(runtime):
    """Every step's signature has ``link_error`` and the engine's mark."""
    saga_id = runtime.call("start", flow())
    (message,) = waiting(runtime, "io")
    args, _, embedded = message["body"]
    assert args == [saga_id, "run", "only", 1]
    assert [errback["task"] for errback in embedded["errbacks"]] == [COMPENSATE]
    assert message["headers"]["task"] == "work"
    assert message["headers"][HEADER][:4] == [saga_id, "run", "only", 1]
    assert message["headers"]["timelimit"] == [None, None]


def test_a_steps_queue_and_priority_are_the_brokers(runtime):
    """``queue=`` takes any queue; a priority selects kombu's list."""
    runtime.call("start", flow(queue="urgent", priority=6))
    assert len(waiting(runtime, f"urgent{PRIORITY_SUFFIX}6")) == 1


def test_a_cancelled_saga_is_a_revoked_result(runtime):
    """Rule 14: every waiting task id gets REVOKED."""
    result = runtime.start_saga.delay(flow(), {})
    saga = runtime.call("cancel", result.id, reason="changed my mind")
    assert saga["state"] == "cancelled"
    assert AsyncResult(result.id, app=runtime.app).state == "REVOKED"


def test_a_saga_failed_survives_pickling_and_json():
    """The error crosses processes whole."""
    undo = {"a": {"state": "succeeded", "attempts": 1, "error": None}}
    error = SagaFailed("s1", "compensated", "b", {"type": "E", "message": "x"}, undo)
    for copy in (
        pickle.loads(pickle.dumps(error)),
        SagaFailed.from_dict(json.loads(json.dumps(error.to_dict()))),
        SagaFailed(*json.loads(json.dumps(error.args))),
    ):
        assert copy.to_dict() == error.to_dict()
        assert str(copy) == str(error)


def test_a_start_is_in_the_store_before_anything_is_sent(runtime):
    """The outbox keeps the first command if the broker is unreachable."""
    runtime.app.conf.broker_url = "redis://127.0.0.1:1/0"
    runtime.app.conf.task_publish_retry = False
    saga_id = runtime.call("start", flow())
    assert runtime.call("get", saga_id)["state"] == "running"
    assert waiting(runtime, "io") == []
