"""Which payments exist?"""

import uuid

from django.db import models

from orders.models import Order


class Payment(models.Model):
    """Money taken for an order; one row per order, however often a task runs."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    amount = models.DecimalField(max_digits=8, decimal_places=2)
    refunded = models.BooleanField(default=False)
