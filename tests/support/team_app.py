"""Which app of a team, with its own settings, hosts sagas beside its tasks?"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from multiagents import WorkflowBuilder, attach, task, worker
from tests.support import values  # noqa: F401 - registers the workflow "values"

_URL = os.environ["MULTIAGENTS_REDIS_URL"]

app = Celery("team", broker=_URL, backend=_URL)
app.conf.update(
    task_default_queue="team",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    result_expires=60,
    timezone="Europe/Zurich",
)


@app.task(name="team.reserve")
def reserve(sku: str, amount: int = 1) -> str:
    return f"{sku}x{amount}"


@app.task(name="team.release")
def release(context: dict[str, Any]) -> dict[str, Any]:
    return {"released": True}


@app.task(name="team.count")
def count() -> int:
    return int(app.backend.client.incr("team:count"))


@app.task(name="team.boom")
def boom() -> None:
    raise RuntimeError("boom")


@app.task(name="team.add")
def add(one: Any, other: int) -> Any:
    return {"sum": one.get("length", 0) + other} if isinstance(one, dict) else one + other


@app.task(name="team.note_error")
def note_error(request: Any, exc: Any, traceback: Any) -> None:
    app.backend.client.set("team:error", str(exc))


@app.task(name="team.gather")
def gather(items: list[Any]) -> int:
    return len(items)


@worker("measure")
def measure(context: dict[str, Any]) -> dict[str, Any]:
    return {"length": len(context["value"])}


attach(app)

WorkflowBuilder("team_count").add_step("count", task(count, args=[])).build().register()
(
    WorkflowBuilder("team_order")
    .add_step(
        "reserve",
        task(reserve, args=["input.sku"], kwargs={"amount": "input.amount"}),
        compensation=task("team.release"),
    )
    .add_step("measure", "measure")
    .build()
    .register()
)
(
    WorkflowBuilder("team_failure")
    .add_step("reserve", task(reserve, args=["input.sku"]), compensation=task("team.release"))
    .add_step("boom", task("team.boom", args=[]), retry=1)
    .build()
    .register()
)
