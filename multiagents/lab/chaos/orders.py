"""What do the customers of the chaos shop order, and which orders fail?

The seed and an order's number always give the same order.  An order names its own trouble, with the
payment or the parcel.  The injected faults come on top of that.
"""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Any

WORKFLOW = "chaos.order"
STEPS = ("reserve", "charge", "pack", "ship")
"""Each has one effect on the ledger."""
SKU = "A1"
RESERVED, SHIPPED, BOXES, USED = "A1 reserved", "A1 shipped", "boxes", "boxes used"
CUSTOMER, SHOP = "customer", "shop"
PRICE_CENTS = 1990
MOST_PIECES = 3


class Trouble(StrEnum):
    """The trouble of an order without any injected fault."""

    NONE = "none"
    STUMBLES_BEFORE = "the bank fails once, before it takes the money"
    STUMBLES_AFTER = "the bank fails once, after it took the money"
    REFUSES = "the bank refuses the card"
    BREAKS_BEFORE = "the bank always fails, before it takes the money"
    BREAKS_AFTER = "the bank always fails, after it took the money"
    REFUND_STUMBLES = "likewise, and fails once after it gave the money back"
    REFUND_STUCK = "likewise, and never gives the money back"
    STRIKE = "the carrier always fails, after it took the parcel"


WEIGHTS = {
    Trouble.NONE: 60,
    Trouble.STUMBLES_BEFORE: 6,
    Trouble.STUMBLES_AFTER: 6,
    Trouble.REFUSES: 6,
    Trouble.BREAKS_BEFORE: 5,
    Trouble.BREAKS_AFTER: 5,
    Trouble.REFUND_STUMBLES: 4,
    Trouble.REFUND_STUCK: 2,
    Trouble.STRIKE: 6,
}
MAY_COMPLETE = frozenset({Trouble.NONE, Trouble.STUMBLES_BEFORE, Trouble.STUMBLES_AFTER})
TAKES_MONEY_AND_BREAKS = frozenset(
    {Trouble.BREAKS_AFTER, Trouble.REFUND_STUMBLES, Trouble.REFUND_STUCK}
)
REPEATS = frozenset(
    {
        *((trouble, "charge", "done again") for trouble in TAKES_MONEY_AND_BREAKS),
        (Trouble.STUMBLES_AFTER, "charge", "done again"),
        (Trouble.STRIKE, "ship", "done again"),
        (Trouble.REFUND_STUMBLES, "charge", "undone again"),
    }
)
"""The duplicates that an order causes without any injected fault."""


def order(seed: int, number: int, step_s: float) -> dict[str, Any]:
    """The input of the saga with this number, from 0.  ``step_s``: mean seconds of a step."""
    chance = random.Random(f"order {seed} {number}")
    (trouble,) = chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))
    quantity = chance.randint(1, MOST_PIECES)
    return {
        "sku": SKU,
        "quantity": quantity,
        "cents": quantity * PRICE_CENTS,
        "trouble": trouble.value,
        "step_s": round(step_s * chance.uniform(0.2, 1.8), 4),
    }


def opening(sagas: int) -> dict[str, dict[str, int]]:
    """The shop's stock and money at the beginning, enough for that many orders."""
    pieces = sagas * MOST_PIECES
    return {
        "stock": {SKU: pieces, RESERVED: 0, SHIPPED: 0, BOXES: sagas, USED: 0},
        "money": {CUSTOMER: pieces * PRICE_CENTS, SHOP: 0},
    }
