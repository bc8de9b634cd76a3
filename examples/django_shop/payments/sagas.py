"""What payments bring to sagas: a step with heartbeats, retries and a lease."""

from multiagents import NonRetryableError, worker
from orders.models import Order

KNOWN = {"A1", "B2"}


@worker("screen_order")
def screen(context):
    """Look at an order before money moves; it has done nothing when it refuses."""
    order = Order.objects.get(pk=context["order_id"])
    if order.sku not in KNOWN:
        raise NonRetryableError(f"no {order.sku} in this shop", clean=True)
    return {"risk": "high" if order.amount > 500 else "low"}
