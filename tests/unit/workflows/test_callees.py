"""Are all functions and tasks of a workflow listed, with place and queue?"""

from __future__ import annotations

from multiagents import WorkflowBuilder, task
from multiagents.workflows.callees import callees, functions, plain_tasks

FLOW = (
    WorkflowBuilder("callees")
    .add_step("pay", "charge", queue="slow", compensation="refund")
    .add_step("mail", task("shop.mail", args=[]), queue="mails", compensation=task("shop.sorry"))
    .add_step("print", task("shop.print", args=[], queue="printers"))
    .build()
)


def test_each_callee_has_its_place() -> None:
    """The list follows the definition's order, each undo after its step."""
    assert [each.place for each in callees([FLOW])] == [
        "workflow 'callees', worker of step 'pay'",
        "workflow 'callees', compensation of step 'pay'",
        "workflow 'callees', worker of step 'mail'",
        "workflow 'callees', compensation of step 'mail'",
        "workflow 'callees', worker of step 'print'",
    ]
    assert [name for _, name in functions([FLOW])] == ["charge", "refund"]
    assert [call.task for _, call in plain_tasks([FLOW])] == [
        *("shop.mail", "shop.sorry", "shop.print")
    ]


def test_a_step_queue_holds_for_its_plain_undo_and_for_no_function_that_undoes() -> None:
    """The engine sends them so; a task's own queue comes first."""
    assert [each.queue for each in callees([FLOW])] == ["slow", "", "mails", "mails", "printers"]
