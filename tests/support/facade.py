"""Which programs do the tests of the asyncio face run?

Their workers and workflows, and a framework over a real server with an embedded worker.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from multiagents import (
    NonRetryableError,
    Orchestrator,
    WorkerManager,
    WorkflowBuilder,
    worker,
)
from multiagents.event_bus.redis_bus import RedisEventBus
from multiagents.hosting.runtime import runtime_at

ENDED = {"completed", "failed", "compensated", "cancelled"}


@worker("facade.double")
async def double(context):
    return {"doubled": 2 * context["number"]}


@worker("facade.describe", queue="facade-words")
def describe(context):
    return {"said": f"it is {context['doubled']}"}


@worker("facade.refuse")
def refuse(context):
    raise NonRetryableError("out of stock; password=hunter2")


@worker("facade.put_back")
def put_back(context):
    return {"put_back": context["number"]}


GATE = threading.Event()
"""Opened by a test, so that `wait_at_gate` returns."""


@worker("facade.wait_at_gate")
def wait_at_gate(context):
    GATE.wait(10)
    return {"passed": True}


CANCELLED = threading.Event()


@worker("facade.endless")
async def endless(context):
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        CANCELLED.set()
        raise


NUMBERS = (
    WorkflowBuilder("facade-numbers")
    .add_step("double", "facade.double")
    .add_step("describe", "facade.describe")
    .build()
)
REFUSED = (
    WorkflowBuilder("facade-refused")
    .add_step("double", "facade.double", compensation="facade.put_back")
    .add_step("refuse", "facade.refuse")
    .build()
)


@contextmanager
def quick_stops(url: str) -> Iterator[None]:
    """A stopping worker waits for kombu's next poll of its queues: 0.05 s instead of 1 s."""
    conf = runtime_at(url).app.conf
    options = dict(conf.broker_transport_options)
    conf.broker_transport_options = {**options, "polling_interval": 0.05}
    yield
    conf.broker_transport_options = options


def one_step(name: str, worker_name: str) -> Any:
    return WorkflowBuilder(name).add_step("only", worker_name).build()


async def until(
    condition: Callable[[], Awaitable[Any]] | Callable[[], Any], what: str, deadline_s: float = 15
) -> Any:
    """The first true answer of ``condition``, plain or async."""
    async with asyncio.timeout(deadline_s):
        while True:
            answer = condition()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(0.02)
    raise AssertionError(what)


async def ended(orchestrator: Orchestrator, saga_id: str) -> dict[str, Any]:
    async def status() -> dict[str, Any] | None:
        found = await orchestrator.get_status(saga_id)
        return found if found["state"] in ENDED else None

    found: dict[str, Any] = await until(status, f"end of {saga_id}")
    return found


@asynccontextmanager
async def framework(
    redis_url: str, workflow: Any, *functions: Any, monitor: Any = None, **manager: Any
) -> AsyncIterator[tuple[RedisEventBus, WorkerManager, Orchestrator]]:
    """Start everything, and stop it in the order that programs use."""
    bus = RedisEventBus(redis_url, event_monitor=monitor)
    workers = WorkerManager(bus, **manager)
    for function in functions:
        workers.register(function)
    orchestrator = Orchestrator(workflow, bus)
    async with bus, orchestrator, workers:
        yield bus, workers, orchestrator
