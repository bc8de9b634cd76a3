"""``manage.py start_missing``: sagas of orders whose process died right after the commit.

For cron or beat.  The saga's id is the order's, so what has been started is not started twice.
"""

from django.core.management.base import BaseCommand

from orders.models import Order
from orders.sagas import purchase
from proj.celery import start_saga


class Command(BaseCommand):
    """Start the missing sagas."""

    help = __doc__

    def handle(self, **options):
        for order in Order.objects.filter(state="new"):
            start_saga.apply_async((purchase, {"order_id": order.pk}), task_id=str(order.pk))
