"""Does a second message of an attempt leave the attempt alone that another worker is running?

A command that was sent again has two messages with one Celery id, and their workers know nothing of
each other.
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
    """A saga whose step one worker is running, and another that gets its second message."""

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
        """What Celery's signals show of the second message."""
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
    """As in an outage that is over with the claim's last try."""
    execute: Callable[[Any], Any] = made.runtime.edge.execute

    def broken(effect: Any) -> Any:
        if isinstance(effect, Call) and effect.script == "claim":
            raise UNREACHABLE[0]("away")
        return execute(effect)

    monkeypatch.setattr(made.runtime.edge, "execute", broken)


def goes_on_alone(twice: Twice) -> None:
    """The step is still running, ends well, and nothing was undone."""
    saga = twice.saga()
    assert (saga["state"], saga["steps"]["charge"]["state"]) == ("running", "running")
    _leave.set()
    wait_for(lambda: twice.saga()["state"] == "completed", 10.0, "the end")
    assert _effects == ["began", "charged"]
    assert not twice.saga()["needs_attention"]


def test_a_claim_that_fails_does_not_fail_what_another_worker_runs(
    twice: Twice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's tracer calls the errback, which must not take the other's attempt for its own."""
    claim_fails(twice.other, monkeypatch)
    twice.other.deliver(twice.saga_id, "run", "charge", "dup_charge")
    goes_on_alone(twice)


def test_a_worker_without_the_function_does_not_fail_what_another_runs(twice: Twice) -> None:
    """Nor call it clean, which would leave its effect for ever: its own message is not that."""
    consumer = type("Consumer", (), {"app": twice.other.app, "hostname": "other"})()
    message, known = twice.message(), {"name": "dup_charge", "id": twice.task_id}
    signals.task_unknown.send(sender=consumer, message=message, exc=KeyError(), **known)
    goes_on_alone(twice)


@pytest.mark.parametrize("expired", [False, True])
def test_a_revoked_message_does_not_fail_what_another_worker_runs(
    twice: Twice, expired: bool
) -> None:
    """It never ran here; where the other one runs, ``terminate=True`` ends it, if that is meant."""
    task = twice.other.app.tasks["dup_charge"]
    how = {"terminated": False, "expired": expired, "signum": None}
    signals.task_revoked.send(sender=task, request=twice.message(), **how)
    goes_on_alone(twice)
