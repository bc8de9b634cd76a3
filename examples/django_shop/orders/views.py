"""How is an order placed and looked at over HTTP?"""

import json

from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from multiagents import UnknownSaga
from orders.models import Order
from orders.services import SoldOut, place_order
from proj.celery import sagas


@csrf_exempt
@require_POST
def place(request):
    """202 with the order's id; the saga runs in the background."""
    given = json.loads(request.body)
    try:
        order = place_order(given["sku"], given["amount"])
    except SoldOut as error:
        return JsonResponse({"error": f"{error} is sold out"}, status=409)
    return JsonResponse({"id": order.pk}, status=202, headers={"Location": f"/orders/{order.pk}/"})


@require_GET
def show(request, order_id):
    """The order, and the progress of its saga."""
    order = get_object_or_404(Order, pk=order_id)
    try:
        saga = sagas.get(str(order.pk))
    except UnknownSaga:  # it has not begun, or it has passed its retention
        return JsonResponse({"order": order.state, "saga": None})
    return JsonResponse({"order": order.state, "saga": saga["state"], "step": saga["current_step"]})
