"""Which async step queries the database, as docs/how-to/django.md shows?"""

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from multiagents import worker
from orders.models import Order


def count_orders() -> int:
    close_old_connections()
    found: int = Order.objects.count()
    return found


@worker("count_orders")
async def counted(context: dict) -> dict:
    return {"orders": await sync_to_async(count_orders)()}
