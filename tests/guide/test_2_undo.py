"""What happens if a step fails?

Its error says whether to retry or to give up. A saga that gives up runs the compensation of each
step that may have had an effect, the last step's first.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from multiagents import WorkflowBuilder, worker
from multiagents.core.exceptions import WorkerExecutionError
from multiagents.core.factory import create_simple_framework
from tests.guide.following import run_to_the_end

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

STOCK = {"lamp": 5}
PAID: dict[str, int] = {}
UNDONE: list[str] = []
CALLS: list[int] = []


@pytest.fixture(autouse=True)
def full_shelf():
    """Every test begins with five lamps and no payments."""
    STOCK["lamp"] = 5
    PAID.clear()
    UNDONE.clear()
    CALLS.clear()


@worker("guide.take_from_shelf")
async def take_from_shelf(context: dict[str, Any]) -> dict[str, Any]:
    if not context.get("item"):
        raise ValueError("an order needs an item")
    STOCK[context["item"]] -= 1
    return {"taken": context["item"]}


@worker("guide.put_back_on_shelf")
async def put_back_on_shelf(context: dict[str, Any]) -> dict[str, Any]:
    """A compensation may run twice, and may find nothing to undo."""
    item = context.get("taken")
    if item is None:
        return {"status": "nothing_to_do"}
    UNDONE.append("shelf")
    STOCK[item] += 1
    return {"status": "success", "back": item}


@worker("guide.take_money")
async def take_money(context: dict[str, Any]) -> dict[str, Any]:
    PAID[context["customer"]] = context["price"]
    return {"payment": f"pay-{context['customer']}", "status": "charged"}


@worker("guide.give_money_back")
async def give_money_back(context: dict[str, Any]) -> dict[str, Any]:
    UNDONE.append("money")
    try:
        del PAID[context["customer"]]
    except KeyError as error:
        return {"status": "failed", "error": str(error), "requires_manual_intervention": True}
    return {"status": "success"}


@worker("guide.send_parcel")
async def send_parcel(context: dict[str, Any]) -> dict[str, Any]:
    match context["road"]:
        case "closed":
            raise ValueError("no such address")
        case "slow":
            return {"status": "service_unavailable", "retry_later": True}
        case "bumpy" if len(CALLS) < 1:
            CALLS.append(1)
            raise WorkerExecutionError("the van is late")
    return {"parcel": "on its way"}


@worker("guide.call_parcel_back")
async def call_parcel_back(context: dict[str, Any]) -> dict[str, Any]:
    UNDONE.append("parcel")
    return {"status": "success"}


ORDER = (
    WorkflowBuilder("guide-order")
    .add_step("stock", "guide.take_from_shelf", compensation="guide.put_back_on_shelf")
    .add_step("payment", "guide.take_money", compensation="guide.give_money_back")
    .add_step(
        "shipping",
        "guide.send_parcel",
        compensation="guide.call_parcel_back",
        retry={"max_attempts": 3, "backoff_s": 0.01},
    )
    .build()
)
WORKERS = (
    take_from_shelf,
    put_back_on_shelf,
    take_money,
    give_money_back,
    send_parcel,
    call_parcel_back,
)


def place(order: dict[str, Any]) -> dict[str, Any]:
    """The last status of one order."""

    async def program():
        event_bus, worker_manager, orchestrator = create_simple_framework(ORDER)
        for function in WORKERS:
            worker_manager.register(function)
        async with event_bus, worker_manager, orchestrator:
            return await run_to_the_end(orchestrator, "guide-order", order)

    return asyncio.run(program())


def test_what_went_well_stays():
    """A completed saga undoes nothing."""
    status = place({"item": "lamp", "customer": "Ada", "price": 30, "road": "open"})
    assert status["state"] == "completed"
    assert status["result"] == {"parcel": "on its way"}
    assert (STOCK["lamp"], PAID, UNDONE) == (4, {"Ada": 30}, [])


def test_a_failure_is_undone_from_the_last_step_to_the_first():
    """The parcel may have left before the error, so its compensation runs first."""
    status = place({"item": "lamp", "customer": "Ada", "price": 30, "road": "closed"})
    assert status["state"] == "compensated"
    assert status["error"]["message"] == "no such address"
    assert UNDONE == ["parcel", "money", "shelf"]
    assert (STOCK["lamp"], PAID) == (5, {})


def test_an_error_that_may_pass_is_tried_again():
    """`WorkerExecutionError` is retried; `ValueError` is not."""
    status = place({"item": "lamp", "customer": "Ada", "price": 30, "road": "bumpy"})
    assert status["state"] == "completed"
    assert status["steps"]["shipping"]["attempts"] == 2


def test_a_bad_input_fails_the_saga_before_it_has_done_anything():
    """The first step refuses, and its compensation reports that there is nothing to undo."""
    status = place({"customer": "Ada", "price": 30, "road": "open"})
    assert status["state"] == "compensated"
    assert status["error"]["type"] == "ValueError"
    assert (STOCK["lamp"], PAID, UNDONE) == (5, {}, [])


def test_a_result_is_a_result_whatever_it_says():
    """Only an exception fails a step; no returned value does."""
    status = place({"item": "lamp", "customer": "Ada", "price": 30, "road": "slow"})
    assert status["state"] == "completed"
    assert status["result"]["status"] == "service_unavailable"
