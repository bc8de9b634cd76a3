"""Tasks of the shop from before its sagas, unchanged."""

from celery import shared_task

from orders.models import Order


@shared_task
def reserve(order_id):
    """Put the goods of an order aside."""
    Order.objects.filter(pk=order_id).update(state="reserved")


@shared_task
def release(order_id, reason=""):
    """Put them back on the shelf, and close the order."""
    Order.objects.filter(pk=order_id).update(state="cancelled")


@shared_task
def confirm(order_id):
    """Tell the customer that the order is on its way."""
    Order.objects.filter(pk=order_id).update(state="confirmed")
