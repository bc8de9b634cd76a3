"""What does the team add, to make a saga of its tasks?

`attach` lets the team's own app host sagas; its settings stay as they are.  `task` gives
the arguments of a task as expressions over the saga: ``input``, the results of other
``steps``, and for a compensation the ``result`` of the step that it undoes.  A result that is
not a dict is stored under ``value``.  A failed step has no result, and is undone all the same.
"""

from __future__ import annotations

from examples.team.tasks import app, create_invoice, void_invoice
from multiagents import WorkflowBuilder, attach, task

runtime = attach(app)
start_saga = runtime.start_saga

billing = (
    WorkflowBuilder("billing")
    .add_step(
        "invoice",
        task(create_invoice, args=["input.customer", "input.amount"]),
        compensation=task(void_invoice, args=["has(result.value) ? result.value : null"]),
    )
    .add_step("courier", task("billing.book_courier", kwargs={"address": "input.address"}))
    .build()
    .register()
)
