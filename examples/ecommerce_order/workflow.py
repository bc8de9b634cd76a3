"""Which steps does an order have, and which worker undoes each?

The worker functions are in workers/io.py and workers/llm.py; a workflow has only their names.
"""

from __future__ import annotations

from multiagents import WorkflowBuilder

order = (
    WorkflowBuilder("ecommerce_order", description="Sell something", timeout_s=600, tags=["shop"])
    .add_step("validate", "validate_order")
    .add_step("inventory", "reserve_inventory", compensation="release_inventory")
    .add_step("payment", "charge_payment", compensation="refund_payment", timeout_s=30)
    .add_step("confirmation", "write_confirmation")
    .add_step(
        "fulfilment",
        "ship_order",
        compensation="recall_shipment",
        retry={"max_attempts": 2, "backoff_s": 0.5},
    )
    .add_step("notification", "notify_customer")
    .build()
    .register()
)
