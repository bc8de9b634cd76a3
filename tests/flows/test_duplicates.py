"""Does a second message of an attempt leave the running attempt alone?

A resent command has two messages with one Celery id, unknown to each other's workers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from celery import signals
from celery.app.task import Context

from multiagents import WorkflowBuilder, worker
from multiagents.core import ids
from multiagents.core.names import HEADER
from multiagents.storage.calls import Call
from multiagents.storage.client import UNREACHABLE
from tests.support.processes import wait_for
from tests.support.traced import TracedWorker

_effects: list[str] = []
_leave = threading.Event()


@worker("dup_charge", retry=1)
def charge(context: Any) -> dict[str, Any]:
    _effects.append("began")
    assert _leave.wait(20)
    _effects.append("charged")
    return {"charged": 1}


@worker("dup_refund")
def refund(context: Any) -> dict[str, Any]:
    _effects.append("refunded")
    return {}


class Twice(NamedTuple):
    """A saga whose step runs in one worker, while another gets the second message."""

    runner: TracedWorker
    other: TracedWorker
    saga_id: str

    @property
    def task_id(self) -> str:
        return ids.step_id(self.saga_id, "run", "charge", 1)

    def saga(self) -> dict[str, Any]:
        found: dict[str, Any] = self.runner.runtime.call("get", self.saga_id)
        return found

    def message(self) -> Any:
        """The second message, as Celery's signals show it."""
        mark = [self.saga_id, "run", "charge", 1, "", 0]
        return Context({"id": self.task_id, "headers": {HEADER: mark}, HEADER: mark})


@pytest.fixture
def twice(redis_url: str) -> Iterator[Twice]:
    _effects.clear()
    _leave.clear()
    runner, other = TracedWorker(redis_url, "runner"), TracedWorker(redis_url, "other")
    builder = WorkflowBuilder("dup").add_step("charge", "dup_charge", compensation="dup_refund")
    saga_id = runner.runtime.call("start", builder.build(), {})
    arguments = (saga_id, "run", "charge", "dup_charge")
    thread = threading.Thread(target=runner.deliver, args=arguments)
    thread.start()
    wait_for(lambda: _effects == ["began"], 10.0, "the step")
    yield Twice(runner, other, saga_id)
    _leave.set()
    thread.join(10)
    runner.close()
    other.close()


def claim_fails(made: TracedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the claim fail, as in an outage that ends with its last retry."""
    execute: Callable[[Any], Any] = made.runtime.edge.execute

    def broken(effect: Any) -> Any:
        if isinstance(effect, Call) and effect.script == "claim":
            raise UNREACHABLE[0]("away")
        return execute(effect)

    monkeypatch.setattr(made.runtime.edge, "execute", broken)


def goes_on_alone(twice: Twice) -> None:
    """Assert that the step still runs and succeeds, and that nothing was undone."""
    saga = twice.saga()
    assert (saga["state"], saga["steps"]["charge"]["state"]) == ("running", "running")
    _leave.set()
    wait_for(lambda: twice.saga()["state"] == "completed", 10.0, "the end")
    assert _effects == ["began", "charged"]
    assert not twice.saga()["needs_attention"]


def test_a_claim_that_fails_does_not_fail_what_another_worker_runs(
    twice: Twice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's tracer calls the errback, which must not report the other worker's attempt."""
    claim_fails(twice.other, monkeypatch)
    twice.other.deliver(twice.saga_id, "run", "charge", "dup_charge")
    goes_on_alone(twice)


def test_a_worker_without_the_function_does_not_fail_what_another_runs(twice: Twice) -> None:
    """The running attempt does not count as clean either, so its effect is not lost."""
    consumer = type("Consumer", (), {"app": twice.other.app, "hostname": "other"})()
    message, known = twice.message(), {"name": "dup_charge", "id": twice.task_id}
    signals.task_unknown.send(sender=consumer, message=message, exc=KeyError(), **known)
    goes_on_alone(twice)


@pytest.mark.parametrize("expired", [False, True])
def test_a_revoked_message_does_not_fail_what_another_worker_runs(
    twice: Twice, expired: bool
) -> None:
    """The revoked message did not run here; ``terminate=True`` ends the running attempt."""
    task = twice.other.app.tasks["dup_charge"]
    how = {"terminated": False, "expired": expired, "signum": None}
    signals.task_revoked.send(sender=task, request=twice.message(), **how)
    goes_on_alone(twice)
