"""The payments' part of sagas: a step with heartbeats, retries and a lease."""

from multiagents import NonRetryableError, worker
from orders.models import Order

KNOWN = {"A1", "B2"}


@worker("screen_order")
def screen(context):
    """Check an order before money moves; a refusal has no effect."""
    order = Order.objects.get(pk=context["order_id"])
    if order.sku not in KNOWN:
        raise NonRetryableError(f"no {order.sku} in this shop", clean=True)
    return {"risk": "high" if order.amount > 500 else "low"}
