"""The purchase of an order: existing tasks as steps and undos, and one worker of payments."""

from multiagents import WorkflowBuilder, task
from orders.tasks import confirm, release, reserve

ORDER = ["input.order_id"]

purchase = (
    WorkflowBuilder("purchase")
    .add_step(
        "reserve",
        task(reserve, args=ORDER),
        compensation=task(release, args=ORDER, kwargs={"reason": "error.message"}),
    )
    .add_step("screen", "screen_order")
    .add_step(
        "charge",
        task("payments.tasks.charge", args=ORDER),
        compensation=task("payments.tasks.refund", args=ORDER),
        retry=1,
    )
    .add_step("confirm", task(confirm, args=ORDER))
    .build()
    .register()
)
