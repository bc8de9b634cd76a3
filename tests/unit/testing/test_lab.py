"""Does a test's lab reach plain tasks, and only steps that exist?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery import shared_task

from multiagents import (
    InvalidInput,
    NonRetryableError,
    WorkflowBuilder,
    app,
    start_saga,
    task,
    worker,
)
from multiagents.testing.lab import SagaLab
from multiagents.workflows import registry

CALLED: list[str] = []


@app.task(name="lab.pay")  # type: ignore[untyped-decorator]  # celery has no types
def pay(amount: int) -> int:
    CALLED.append("pay")
    return amount


@shared_task(name="lab.pay_back")  # type: ignore[untyped-decorator]  # celery has no types
def pay_back(amount: int) -> None:
    CALLED.append("pay back")


@app.task(name="lab.receipt")  # type: ignore[untyped-decorator]  # celery has no types
def receipt(amount: int) -> str:
    CALLED.append("receipt")
    return "sent"


@worker("lab.check")
def check(context: Any) -> dict[str, Any]:
    return {}


AMOUNT = ["input.amount"]
GIVEN = {"amount": 3}


@pytest.fixture
def order() -> Any:
    """A workflow that pays by a task object and sends a receipt by a task's name."""
    CALLED.clear()
    return (
        WorkflowBuilder("lab_order")
        .add_step("check", check)
        .add_step("pay", task(pay, args=AMOUNT), compensation=task(pay_back, args=AMOUNT), retry=2)
        .add_step("receipt", task("lab.receipt", args=AMOUNT), retry=1)
        .build()
    )


def test_a_plain_task_fails_by_the_tests_wish_and_what_came_before_is_undone(
    saga_lab: SagaLab, order: Any
) -> None:
    """The lab does not call the task; path and undos list plain tasks."""
    saga_lab.fail("receipt", attempt=None, error=NonRetryableError("no paper"))
    saga_id = saga_lab.start(order, GIVEN)
    saga = saga_lab.get(saga_id)
    assert saga["state"] == "compensated"
    assert saga["error"]["message"] == "no paper"
    saga_lab.assert_path(saga_id, "check", "pay", "receipt")
    saga_lab.assert_undone(saga_id, "pay")
    assert CALLED == ["pay", "pay back"]


def test_a_plain_task_fails_on_the_attempt_that_is_named(saga_lab: SagaLab, order: Any) -> None:
    """The path has each attempt, and the next one succeeds."""
    saga_lab.fail("pay", attempt=1, error=RuntimeError("line is busy"))
    saga_id = saga_lab.start(order, GIVEN)
    assert saga_lab.get(saga_id)["state"] == "completed"
    saga_lab.assert_path(saga_id, "check", "pay", "pay", "receipt")
    assert CALLED == ["pay", "receipt"]


def test_the_undo_of_a_plain_task_fails_by_the_tests_wish(saga_lab: SagaLab, order: Any) -> None:
    """The undo fails until it is parked; the forward attempt succeeds."""
    saga_lab.fail("receipt", error=NonRetryableError("no paper"))
    saga_lab.fail("pay", attempt=None, undo=True, error=NonRetryableError("bank closed"))
    saga_id = saga_lab.start(order, GIVEN)
    saga = saga_lab.get(saga_id)
    assert saga["steps"]["pay"]["compensation"]["state"] == "parked"
    saga_lab.assert_undone(saga_id, "pay")
    assert CALLED == ["pay"]


@pytest.mark.parametrize(
    ("name", "undo", "why"),
    [
        ("reciept", False, "unknown step 'reciept' of workflow 'lab_order'; did you mean receipt?"),
        ("x", False, "unknown step 'x' of workflow 'lab_order'; known: check, pay, receipt"),
        ("lab.receipt", False, "'lab.receipt' is not a step: name the step that runs it, receipt"),
        ("lab.check", False, "'lab.check' is not a step: name the step that runs it, check"),
        ("receipt", True, "step 'receipt' has no compensation that could fail"),
    ],
)
def test_a_step_that_cannot_fail_is_refused(
    saga_lab: SagaLab, order: Any, name: str, undo: bool, why: str
) -> None:
    """A fault that never occurs would leave an empty test green."""
    saga_lab.fail(name, undo=undo)
    with pytest.raises(InvalidInput, match=re.escape(f"the test's fail({name!r}): {why}")):
        start_saga.delay(order, GIVEN)
    assert CALLED == []


@pytest.fixture
def later() -> Iterator[str]:
    """The name of a registered workflow."""
    yield WorkflowBuilder("lab_later").add_step("later", check, retry=1).build().register().name
    registry.forget("lab_later")


def test_a_step_of_another_workflow_can_fail(saga_lab: SagaLab, order: Any, later: str) -> None:
    """The lab takes steps of registered workflows and of sagas begun before."""
    saga_lab.start(WorkflowBuilder("lab_first").add_step("first", check).build())
    saga_lab.fail("first")
    saga_lab.fail("later")
    assert saga_lab.get(saga_lab.start(order, GIVEN))["state"] == "completed"
    assert saga_lab.get(saga_lab.start(later))["state"] == "failed"


@pytest.mark.parametrize(
    ("argument", "undo"),
    [("has(result.value) ? result.value : null", "succeeded"), ("result.value", "parked")],
)
def test_an_undo_that_guards_its_result_runs_where_its_step_failed(
    saga_lab: SagaLab, argument: str, undo: str
) -> None:
    """A failed step without result is undone, and an error names the missing guard."""
    back = task(pay_back, args=[argument])
    flow = WorkflowBuilder("lab_pay").add_step("pay", task(pay, args=AMOUNT), compensation=back)
    saga_lab.fail("pay", attempt=None, error=NonRetryableError("who knows"))
    found = saga_lab.get(saga_lab.start(flow.build(), GIVEN))["steps"]["pay"]["compensation"]
    assert found["state"] == undo
    if undo == "parked":
        assert "has(result.value) ? result.value : null" in found["error"]["message"]
