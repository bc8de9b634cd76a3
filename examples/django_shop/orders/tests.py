"""Tests of the shop without a server: ``manage.py test --settings=proj.test_settings``."""

from django.test import TestCase

from multiagents.testing.lab import eager
from orders.models import Order
from orders.services import place_order
from payments.models import Payment
from proj.celery import runtime


class PurchaseTests(TestCase):
    """A saga runs to its end where a test's transaction would be committed."""

    def setUp(self):
        """Begin without sagas; ``self.lab`` can make steps fail."""
        self.lab = self.enterContext(eager(runtime))

    def post(self, sku="A1", amount="12.50"):
        """Place an order through the view; the response."""
        with self.captureOnCommitCallbacks(execute=True):
            return self.client.post(
                "/orders/", {"sku": sku, "amount": amount}, content_type="application/json"
            )

    def test_an_order_is_paid_and_confirmed(self):
        order = self.post().json()["id"]
        reply = self.client.get(f"/orders/{order}/").json()
        self.assertEqual(reply, {"order": "confirmed", "saga": "completed", "step": None})
        self.assertEqual(Payment.objects.get(order=order).amount, Order.objects.get().amount)

    def test_an_order_over_the_limit_is_cancelled(self):
        order = self.post(amount="5000").json()["id"]
        self.assertEqual(self.client.get(f"/orders/{order}/").json()["saga"], "compensated")
        self.assertEqual(Order.objects.get(pk=order).state, "cancelled")
        self.assertFalse(Payment.objects.exists())

    def test_an_order_that_cannot_be_confirmed_is_paid_back(self):
        self.lab.fail("confirm", error=RuntimeError("the printer is on fire"), attempt=None)
        order = self.post().json()["id"]
        self.lab.assert_path(order, "reserve", "screen", "charge", *["confirm"] * 3)
        self.lab.assert_undone(order, "charge", "reserve")
        self.assertTrue(Payment.objects.get(order=order).refunded)

    def test_an_order_that_cannot_be_screened_is_cancelled(self):
        self.lab.fail("screen", error=RuntimeError("the bank is closed"), attempt=None)
        order = self.post().json()["id"]
        self.assertEqual(Order.objects.get(pk=order).state, "cancelled")
        self.lab.assert_path(order, "reserve", *["screen"] * 3)

    def test_without_the_commit_there_is_no_saga(self):
        with self.captureOnCommitCallbacks(execute=False) as callbacks:
            order = place_order("A1", "12.50")
        self.assertEqual(len(callbacks), 1)
        self.assertEqual(self.client.get(f"/orders/{order.pk}/").json()["saga"], None)

    def test_what_is_sold_out_is_rolled_back(self):
        for _ in range(3):
            self.assertEqual(self.post().status_code, 202)
        self.assertEqual(self.post().status_code, 409)
        self.assertEqual(Order.objects.count(), 3)
