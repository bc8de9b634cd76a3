"""Which sagas do the tests of dead letters park?"""

from __future__ import annotations

from typing import Any

from multiagents import NonRetryableError, WorkflowBuilder, worker
from multiagents.testing.lab import SagaLab
from multiagents.workflows.workflow import Workflow


@worker("letters.do")
def do(context: Any) -> dict[str, Any]:
    return {context.step: "done"}


@worker("letters.undo")
def undo(context: Any) -> dict[str, Any]:
    return {}


def order(name: str = "letters-order") -> Workflow:
    """Two steps with undo, and one that can fail."""
    return (
        WorkflowBuilder(name)
        .add_step("reserve", "letters.do", compensation="letters.undo")
        .add_step("charge", "letters.do", compensation="letters.undo")
        .add_step("ship", "letters.do")
        .build()
    )


def pivoted() -> Workflow:
    """After ``charge`` nothing is undone, so a later failure is parked."""
    return (
        WorkflowBuilder("letters-pivot")
        .add_step("charge", "letters.do", pivot=True)
        .add_step("mail", "letters.do")
        .add_step("file", "letters.do")
        .build()
    )


def park_undo(lab: SagaLab, step: str = "charge", name: str = "letters-order") -> str:
    """A failed saga with one parked undo; from then on everything works."""
    lab.fail("ship", error=NonRetryableError("no courier"), attempt=None)
    lab.fail(step, error=NonRetryableError("bank is closed"), attempt=None, undo=True)
    saga_id = lab.start(order(name), {"sku": "A1"})
    lab._eager.faults.clear()
    return saga_id


def park_step(lab: SagaLab, step: str = "mail") -> str:
    """A running saga with one parked step after the pivot."""
    lab.fail(step, error=NonRetryableError("no such address"), attempt=None)
    saga_id = lab.start(pivoted(), {"to": "ada"})
    lab._eager.faults.clear()
    return saga_id
