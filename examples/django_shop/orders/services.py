"""What can be done with orders?"""

from decimal import Decimal

from django.db import transaction

from orders.models import Order
from proj.celery import start_saga

STOCK = 3


class SoldOut(Exception):
    """There are not enough pieces in stock."""


@transaction.atomic
def place_order(sku, amount):
    """Create an order; its saga starts after the commit, and never after a rollback.

    The saga's id is the order's id, so each leads to the other.
    """
    order = Order.objects.create(sku=sku, amount=Decimal(amount))
    start_saga.apply_async_on_commit(("purchase", {"order_id": order.pk}), task_id=str(order.pk))
    if Order.objects.filter(sku=sku).exclude(state="cancelled").count() > STOCK:
        raise SoldOut(sku)
    return order
