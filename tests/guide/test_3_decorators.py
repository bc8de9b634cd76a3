"""Which options of a worker stand above its function?

How often it is tried, how long it may take, whether it is measured, and when calls to a failing
service stop.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multiagents import (
    CircuitBreakerOpenError,
    WorkflowBuilder,
    circuit_breaker,
    monitor_performance,
    retry,
    timeout,
    worker,
)
from multiagents.core.factory import create_simple_framework
from tests.guide.following import run_to_the_end

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

TRIES: list[str] = []


@pytest.fixture(autouse=True)
def no_tries():
    """Every test counts from zero."""
    TRIES.clear()


@worker("guide.pay_by_card")
@retry(max_attempts=3, backoff_factor=2.0, backoff_s=0.01)
@timeout(30)
@monitor_performance
async def pay_by_card(context: dict[str, Any]) -> dict[str, Any]:
    TRIES.append("card")
    if len(TRIES) < 3:
        raise ConnectionError("the bank hangs up")
    return {"payment_id": "pay-1", "status": "charged"}


@worker("guide.wait_for_ever")
@retry(max_attempts=1)
@timeout(0.1)
async def wait_for_ever(context: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


@worker("guide.ask_oracle")
@retry(max_attempts=1)
@circuit_breaker(failure_threshold=0.5, timeout_s=60, min_calls=2)
async def ask_oracle(context: dict[str, Any]) -> dict[str, Any]:
    TRIES.append("oracle")
    raise ConnectionError("the oracle is asleep")


@worker("guide.ask_oracle_or_guess")
@circuit_breaker(failure_threshold=0.5, timeout_s=60, fallback={"answer": "maybe"}, min_calls=2)
@retry(max_attempts=2, backoff_s=0.01)
async def ask_oracle_or_guess(context: dict[str, Any]) -> dict[str, Any]:
    TRIES.append("guess")
    raise ConnectionError("the oracle is asleep")


def run_steps(name: str, function: Any, *, times: int = 1) -> list[dict[str, Any]]:
    """The last statuses of sagas with one step of this worker."""
    workflow = WorkflowBuilder(name).add_step("only", function).build()

    async def program():
        event_bus, worker_manager, orchestrator = create_simple_framework(workflow)
        worker_manager.register(function)
        async with event_bus, worker_manager, orchestrator:
            return [await run_to_the_end(orchestrator, name, {}) for _ in range(times)]

    return asyncio.run(program())


def test_decorators_stack_and_the_engine_heeds_them():
    """Two failures and a success give three measured calls within the timeout."""
    measured = pay_by_card.performance
    calls, failures = measured.calls, measured.failures
    (status,) = run_steps("guide-card", pay_by_card)
    assert status["state"] == "completed"
    assert status["steps"]["only"]["attempts"] == 3
    assert (measured.calls - calls, measured.failures - failures) == (3, 2)


def test_an_attempt_ends_at_its_time_out():
    """The coroutine is cancelled, and the step fails with `StepTimeout`."""
    (status,) = run_steps("guide-forever", wait_for_ever)
    assert status["state"] == "failed"
    assert status["error"]["type"] == "StepTimeout"


def test_a_circuit_opens_when_too_much_fails():
    """After two failures every process refuses the third saga without a call."""
    statuses = run_steps("guide-oracle", ask_oracle, times=3)
    assert [s["error"]["type"] for s in statuses] == [
        "ConnectionError",
        "ConnectionError",
        CircuitBreakerOpenError.__name__,
    ]
    assert TRIES == ["oracle", "oracle"]


def test_an_open_circuit_can_answer_with_a_fallback():
    """Two failed attempts open the circuit, and the next saga gets the fallback."""
    failed, answered = run_steps("guide-guess", ask_oracle_or_guess, times=2)
    assert failed["state"] == "failed"
    assert answered["state"] == "completed"
    assert answered["result"] == {"answer": "maybe"}
