"""What does a worker of the chaos shop do?

Reserve, then charge and pack at the same time, then ship.  Each step spends half of its time before
its effect and half after it, so a fault can strike in both.  Each effect moves stock or money in
the ledger, once under its key.  The order says what fails (`orders.Trouble`).
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from multiagents import NonRetryableError, WorkerExecutionError, WorkflowBuilder, worker
from multiagents.lab.chaos.ledger import LEDGER_VARIABLE, Ledger
from multiagents.lab.chaos.orders import (
    BOXES,
    CUSTOMER,
    RESERVED,
    SHIPPED,
    SHOP,
    TAKES_MONEY_AND_BREAKS,
    USED,
    WORKFLOW,
    Trouble,
)

PATIENT = {"max_attempts": 6, "backoff_s": 0.2, "cap_s": 1.0}
"""For undos, and for steps that fail only by injected faults."""
USUAL = {"max_attempts": 3, "backoff_s": 0.2, "cap_s": 1.0}


def ledger(context: Any) -> Ledger:
    """The ledger, for writes of this attempt."""
    return Ledger(
        Path(os.environ[LEDGER_VARIABLE]),
        saga=context.transaction_id,
        step=context.step,
        attempt=context.attempt,
    )


@worker("chaos.reserve")
def reserve(context: Any) -> dict[str, Any]:
    """Take the goods off the shelf."""
    pieces = context["quantity"]
    _move(context, ("stock", context["sku"], -pieces), ("stock", RESERVED, pieces))
    return {"reserved": pieces}


@worker("chaos.charge")
def charge(context: Any) -> dict[str, Any]:
    """Move the money from the customer to the shop, unless the order's trouble prevents it."""
    trouble, cents = Trouble(context["trouble"]), context["cents"]
    if trouble is Trouble.REFUSES:
        raise NonRetryableError("the bank refuses the card", clean=True)
    stumbles = context.attempt == 1
    if trouble is Trouble.BREAKS_BEFORE or (trouble is Trouble.STUMBLES_BEFORE and stumbles):
        raise WorkerExecutionError("the bank fails before it takes the money")
    _move(context, ("money", CUSTOMER, -cents), ("money", SHOP, cents))
    if trouble in TAKES_MONEY_AND_BREAKS or (trouble is Trouble.STUMBLES_AFTER and stumbles):
        raise WorkerExecutionError("the bank fails after it took the money")
    return {"charged": cents}


@worker("chaos.pack")
async def pack(context: Any) -> dict[str, Any]:
    """Use up a box."""
    await asyncio.sleep(context["step_s"] / 2)
    ledger(context).move(context.idempotency_key, ("stock", BOXES, -1), ("stock", USED, 1))
    await asyncio.sleep(context["step_s"] / 2)
    return {"packed": True}


@worker("chaos.ship")
def ship(context: Any) -> dict[str, Any]:
    """Give the parcel to the carrier."""
    pieces = context["quantity"]
    _move(context, ("stock", RESERVED, -pieces), ("stock", SHIPPED, pieces))
    if Trouble(context["trouble"]) is Trouble.STRIKE:
        raise WorkerExecutionError("the carrier fails after it took the parcel")
    return {"shipped": pieces}


@worker("chaos.put_back")
def put_back(context: Any) -> dict[str, Any]:
    """Undo any of the steps; do nothing if it took no effect."""
    time.sleep(context["step_s"] / 2)
    return {"put_back": ledger(context).put_back(context.step_idempotency_key)}


@worker("chaos.refund")
def refund(context: Any) -> dict[str, Any]:
    """Give the money back, unless the order's trouble prevents it."""
    trouble = Trouble(context["trouble"])
    if trouble is Trouble.REFUND_STUCK:
        raise WorkerExecutionError("the bank does not give the money back")
    done = put_back.function(context)
    if trouble is Trouble.REFUND_STUMBLES and context.attempt == 1:
        raise WorkerExecutionError("the bank fails after it gave the money back")
    return dict(done)


def _move(context: Any, *moves: tuple[str, str, int]) -> None:
    time.sleep(context["step_s"] / 2)
    ledger(context).move(context.idempotency_key, *moves)
    time.sleep(context["step_s"] / 2)


order = (
    WorkflowBuilder(WORKFLOW, description="The order of multiagents chaos")
    .add_step(
        "reserve",
        "chaos.reserve",
        retry=PATIENT,
        compensation="chaos.put_back",
        compensation_retry=PATIENT,
    )
    .parallel(
        [
            {
                "name": "charge",
                "worker": "chaos.charge",
                "retry": USUAL,
                "compensation": "chaos.refund",
                "compensation_retry": USUAL,
            },
            {
                "name": "pack",
                "worker": "chaos.pack",
                "retry": PATIENT,
                "compensation": "chaos.put_back",
                "compensation_retry": PATIENT,
            },
        ]
    )
    .add_step(
        "ship",
        "chaos.ship",
        retry=USUAL,
        compensation="chaos.put_back",
        compensation_retry=PATIENT,
    )
    .build()
    .register()
)
