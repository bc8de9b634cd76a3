"""What has been ordered?"""

import uuid

from django.db import models


class Order(models.Model):
    """An order; its key is the id of its saga, too."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    sku = models.CharField(max_length=20)
    amount = models.DecimalField(max_digits=8, decimal_places=2)
    state = models.CharField(max_length=20, default="new")
