"""How does an order succeed, and how is it undone when its shipment fails?

    python -m examples.ecommerce_order.main

Two orders of one customer.  The second is paid and confirmed; then the carrier is on strike, and
the saga returns the money and the goods.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import multiagents
from examples.ecommerce_order.shop import VARIABLE, open_shop
from examples.ecommerce_order.workflow import order
from examples.timeline import print_timeline
from multiagents import SagaFailed
from multiagents.testing.sandbox import sandbox

ORDER = {"customer": "Ada", "sku": "A1", "quantity": 2}
ANSWERS = {"confirmation": "Dear Ada, your two A1 are on their way. Thank you!"}
"""The text of the stub; a real model writes its own."""


async def main() -> None:
    """Run both orders in a shop of their own."""
    with tempfile.TemporaryDirectory() as folder:
        shop = {VARIABLE: str(Path(folder) / "shop.sqlite")}
        with sandbox(imports=["workers.io", "workers.llm"], answers=ANSWERS, env=shop):
            sell("an order that works", ORDER)
            sell("an order whose shipment fails", {**ORDER, "carrier": "on strike"})
            print(f"\nmails sent: {open_shop().mails()}")


def sell(title: str, wanted: dict[str, Any]) -> None:
    """Run one order to its end and show what it changed."""
    before = open_shop().balance()
    result = multiagents.start_saga.delay(order.name, wanted)
    try:
        ending = f"completed, {result.get(timeout=180)['total']}"
    except SagaFailed as error:
        ending = f"{error.state}, because {error.step} failed: {error.error['message']}"
    print(f"\n{title}: {ending}")
    print_timeline(multiagents.sagas.history(result.id))
    after = open_shop().balance()
    for name, amount in before.items():
        print(f"  {name}: {amount} -> {after[name]}")


if __name__ == "__main__":
    asyncio.run(main())
