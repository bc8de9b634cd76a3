"""Which workflows can start by name where these workers run?  Those of the examples."""

from examples.customer_support import support
from examples.ecommerce_order.workflow import order
from examples.fan_out import review
from examples.simple_workflow import readings

__all__ = ["order", "readings", "review", "support"]
