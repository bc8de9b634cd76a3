"""What do the examples do on the `io` queue, where work waits for a database or another system?

Every worker may run twice under one idempotency key (a retry, a worker that was killed after its
work) and its effect counts once: the shop ensures that.  A compensation may run for a step with
an unknown outcome.
"""

from __future__ import annotations

from typing import Any

from examples.ecommerce_order.shop import RefusedError, open_shop
from multiagents import Context, NonRetryableError, WorkerExecutionError, worker
from workers import workflows as workflows  # a worker publishes them, so that all start by name

# ---- a simple workflow ----


@worker("check_readings")
def check_readings(context: Context) -> dict[str, Any]:
    """Refuse readings that have no average: a retry would not help."""
    readings = context["readings"]
    if not readings:
        raise NonRetryableError("there are no readings", clean=True)
    return {"count": len(readings)}


@worker("file_report")
async def file_report(context: Context) -> dict[str, Any]:
    """Write the report line; the context has the results of all steps before."""
    return {"report": f"{context['count']} readings, {context['average']:.1f} degrees on average"}


# ---- an order ----


@worker("validate_order")
def validate_order(context: Context) -> dict[str, Any]:
    """Refuse goods that the shop does not sell; return the price."""
    price = open_shop().price(context["sku"])
    if price is None:
        raise NonRetryableError(f"the shop does not sell {context['sku']!r}", clean=True)
    cents = price * context["quantity"]
    return {"cents": cents, "total": f"{cents / 100:.2f} EUR"}


@worker("reserve_inventory")
def reserve_inventory(context: Context) -> dict[str, Any]:
    """Take the goods off the shelf."""
    try:
        open_shop().take(context.idempotency_key, context["sku"], context["quantity"])
    except RefusedError as error:
        raise NonRetryableError(str(error), clean=True) from error
    return {"reserved": context["quantity"]}


@worker("release_inventory")
def release_inventory(context: Context) -> dict[str, Any]:
    """Put the goods back, if they were taken."""
    return {"released": open_shop().put_back(context.step_idempotency_key)}


@worker("charge_payment")
async def charge_payment(context: Context) -> dict[str, Any]:
    """Move the money from the customer to the shop."""
    try:
        open_shop().pay(context.idempotency_key, context["customer"], context["cents"])
    except RefusedError as error:
        raise NonRetryableError(str(error), clean=True) from error
    return {"charged": context["cents"]}


@worker("refund_payment")
async def refund_payment(context: Context) -> dict[str, Any]:
    """Move the money back, if it was moved."""
    return {"refunded": open_shop().put_back(context.step_idempotency_key)}


@worker("ship_order")
def ship_order(context: Context) -> dict[str, Any]:
    """Hand the parcel to the carrier; a carrier on strike may be back at the next attempt."""
    if context.get("carrier") == "on strike":
        raise WorkerExecutionError("the carrier is on strike")
    open_shop().write(
        context.idempotency_key, "parcel", f"{context['quantity']} x {context['sku']}"
    )
    return {"shipped": True}


@worker("recall_shipment")
def recall_shipment(context: Context) -> dict[str, Any]:
    """Stop the parcel, if there is one."""
    return {"recalled": open_shop().put_back(context.step_idempotency_key)}


@worker("notify_customer")
async def notify_customer(context: Context) -> dict[str, Any]:
    """Send the text that the model wrote."""
    open_shop().write(context.idempotency_key, "mail", context["confirmation"])
    return {"notified": context["customer"], "total": context["total"]}


# ---- a fan-out ----


@worker("write_review")
def write_review(context: Context) -> dict[str, Any]:
    """Join the branches: each one's result is under its step's name."""
    words = context.results["words"]["words"]
    keywords = context.results["keywords"]["keywords"]
    level = context.results["readability"]["level"]
    return {"review": f"{words} words, {level} to read, about {', '.join(keywords)}"}
