"""What has been paid?"""

import uuid

from django.db import models

from orders.models import Order


class Payment(models.Model):
    """Money that was taken for an order; one for each order, whatever is repeated."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    amount = models.DecimalField(max_digits=8, decimal_places=2)
    refunded = models.BooleanField(default=False)
