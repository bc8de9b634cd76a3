"""Tasks of the shop from before its sagas, unchanged."""

from decimal import Decimal

from celery import shared_task

from orders.models import Order
from payments.models import Payment

LIMIT = Decimal("1000")


@shared_task
def charge(order_id):
    """Take the money for an order, once."""
    order = Order.objects.get(pk=order_id)
    if order.amount > LIMIT:
        raise RuntimeError(f"{order.amount} is over the limit of {LIMIT}")
    payment, _ = Payment.objects.get_or_create(order=order, defaults={"amount": order.amount})
    return {"payment_id": str(payment.pk)}


@shared_task
def refund(order_id):
    """Give the money for an order back, if it was taken."""
    return {"refunded": Payment.objects.filter(order=order_id).update(refunded=True)}
