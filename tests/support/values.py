"""Which values without a JSON form enter a saga, by every way?"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from celery import shared_task

from multiagents import WorkerExecutionError, WorkflowBuilder, task, worker

WEI = 10**20 + 1
GIVEN: dict[str, Any] = {
    "id": UUID(int=7),
    "price": Decimal("1.50"),
    "day": date(2025, 1, 31),
    "at": datetime(2025, 1, 31, 9, tzinfo=UTC),
    "open": time(9, 30),
    "raw": b"hello",
    "wei": WEI,
    "rates": {1: Decimal(2)},
}
STORED: dict[str, Any] = {
    "id": "00000000-0000-0000-0000-000000000007",
    "price": "1.50",
    "day": "2025-01-31",
    "at": "2025-01-31T09:00:00+00:00",
    "open": "09:30:00",
    "raw": "aGVsbG8=",
    "wei": WEI,
    "rates": {"1": "2"},
}


@shared_task(name="values.plain")
def plain(wei: int, given: dict[str, Any], more: int) -> dict[str, Any]:
    """Return the input, and the same values unchanged."""
    return {"wei": wei, "more": more, "given": given, "own": GIVEN}


@shared_task(name="values.alone")
def alone(context: dict[str, Any]) -> UUID:
    return UUID(int=7)


@shared_task(name="values.unknown")
def unknown(context: dict[str, Any]) -> dict[str, Any]:
    return {"at": datetime(2025, 1, 31)}


@worker("values.worker", retry={"max_attempts": 2, "backoff_s": 0})
def returning(context: Any) -> dict[str, Any]:
    if context.attempt == 1:
        context.checkpoint(GIVEN)
        raise WorkerExecutionError("once")
    return {"kept": context.checkpoint_value, "input": dict(context.results), "own": GIVEN}


WorkflowBuilder("values").add_step("alone", task(alone)).add_step(
    "plain",
    task(plain, args=["input.wei", "input", "[input.wei][0]"]),
    when="input.wei > 100 && input.wei == input.wei && input.wei != 1e20",
).add_step("worker", "values.worker").build().register()
WorkflowBuilder("values_refused").add_step("unknown", task(unknown), retry=1).build().register()

RESULTS: dict[str, Any] = {
    "alone": {"value": str(UUID(int=7))},
    "plain": {"wei": WEI, "more": WEI, "given": STORED, "own": STORED},
}
EXPECTED: dict[str, Any] = {**RESULTS, "worker": {"kept": STORED, "input": RESULTS, "own": STORED}}
REFUSED = "task result: key 'at' is a datetime without a time zone: give it one"
