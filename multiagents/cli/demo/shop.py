"""What does the demo's worker do?

It handles the order of a small shop: validate, reserve, charge, confirm (a language model writes),
ship, notify; and the undo of each.  A step that runs twice with one key takes effect once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from multiagents import (
    NonRetryableError,
    WorkerExecutionError,
    WorkflowBuilder,
    dspy_worker,
    worker,
)
from multiagents.cli.demo.store import SHOP_VARIABLE, RefusedError, Shop

WORKFLOW = "demo.order"
PRICE_CENTS = 1990
QUICK = {"max_attempts": 2, "backoff_s": 0.3, "jitter": False}
"""Two attempts in quick succession: the demo shows a retry without a long wait."""


def shop() -> Shop:
    """The demo's shop."""
    return Shop(Path(os.environ[SHOP_VARIABLE]))


@worker("demo.validate")
def validate(context: Any) -> dict[str, Any]:
    """Refuse goods that the shop does not sell; return the price."""
    if shop().in_stock(context["sku"]) is None:
        raise NonRetryableError(f"the shop does not sell {context['sku']!r}", clean=True)
    cents = context["quantity"] * PRICE_CENTS
    return {"cents": cents, "total": f"{cents / 100:.2f} EUR"}


@worker("demo.reserve")
def reserve(context: Any) -> dict[str, Any]:
    """Take the goods off the shelf."""
    _move(context, ("stock", context["sku"], -context["quantity"]))
    return {"reserved": context["quantity"]}


@worker("demo.charge")
def charge(context: Any) -> dict[str, Any]:
    """Move the money from the customer to the shop."""
    cents = context["cents"]
    _move(context, ("money", "customer", -cents), ("money", "shop", cents))
    return {"charged": cents}


@worker("demo.put_back")
def put_back(context: Any) -> dict[str, Any]:
    """Undo a reservation or a charge; do nothing if there was none."""
    return {"put_back": shop().put_back(context.step_idempotency_key)}


@dspy_worker(
    "demo.confirm",
    signature="customer: str, sku: str, quantity: int, total: str -> confirmation: str",
    retry=QUICK,
)
def confirm(context: Any) -> dict[str, Any]:
    """Have the model write to the customer."""
    return {}


@worker("demo.ship", retry=QUICK)
def ship(context: Any) -> dict[str, Any]:
    """Give the parcel to the carrier, which fails if the order requests that."""
    if context.get("carrier") == "on strike":
        raise WorkerExecutionError("the carrier is on strike")
    shop().write(context.idempotency_key, "shipment", context["sku"])
    return {"shipment": context.idempotency_key}


@worker("demo.recall")
def recall(context: Any) -> dict[str, Any]:
    """Recall the parcel if there is one: a failed step may have sent it."""
    return {"recalled": shop().tear(context.step_idempotency_key)}


@worker("demo.notify")
def notify(context: Any) -> dict[str, Any]:
    """Send the model's text."""
    shop().write(context.idempotency_key, "mail", context["confirmation"])
    return {"notified": context["customer"], "total": context["total"]}


def _move(context: Any, *moves: tuple[str, str, int]) -> None:
    try:
        shop().move(context.idempotency_key, *moves)
    except RefusedError as error:
        raise NonRetryableError(str(error), clean=True) from error


order = (
    WorkflowBuilder(WORKFLOW, description="The order of multiagents demo")
    .add_step("validate", "demo.validate")
    .add_step("reserve", "demo.reserve", compensation="demo.put_back")
    .add_step("charge", "demo.charge", compensation="demo.put_back")
    .add_step("confirm", "demo.confirm")
    .add_step("ship", "demo.ship", compensation="demo.recall")
    .add_step("notify", "demo.notify")
    .build()
    .register()
)
