"""Can another event loop use a started orchestrator?

An ``async def`` worker of the same program runs on a separate loop, in another thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from multiagents import Orchestrator, UnknownSaga, worker
from multiagents.event_bus.memory_bus import MemoryEventBus
from tests.support.facade import (
    NUMBERS,
    describe,
    double,
    ended,
    framework,
    one_step,
    quick_stops,
    until,
)

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

PARENT = one_step("facade-parent", "facade.parent")
ASKING = one_step("facade-asking", "facade.ask")


class Programs:
    """The objects of a program that its workers use."""

    orchestrator: Orchestrator


@worker("facade.parent", timeout_s=20)
async def parent(context):
    saga_id = await Programs.orchestrator.execute_workflow(NUMBERS, {"number": context["number"]})
    return {"child": (await ended(Programs.orchestrator, saga_id))["result"]}


@worker("facade.ask", retry=1)
async def ask(context):
    """Call in vain, with its own time limit."""
    async with asyncio.timeout(0.1):
        await Programs.orchestrator.get_status(context["saga_id"])
    return {}


@pytest.fixture(autouse=True)
def short_polls(server: Any) -> Iterator[None]:
    with quick_stops(server.url):
        yield


def in_a_thread(call: Callable[[], Awaitable[Any]], deadline_s: float = 10) -> Any:
    """The result of ``call`` on a separate loop, while this thread and its loop stand still."""
    found: list[Any] = []

    def run() -> None:
        async def main() -> Any:
            return await call()

        found.append(asyncio.run(main()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(deadline_s)
    assert not thread.is_alive(), "it waits for the loop that waits for it"
    return found[0]


def test_an_async_worker_starts_a_child_saga_and_waits_for_it(redis_url):
    """Several workers do so at once, through the program's own orchestrator in one process."""

    async def main():
        functions = (parent, double, describe)
        async with framework(redis_url, PARENT, *functions) as (_, _, orchestrator):
            Programs.orchestrator = orchestrator
            start = orchestrator.execute_workflow
            ids = [await start("facade-parent", {"number": number}) for number in range(5)]
            return [(await ended(orchestrator, saga_id))["result"] for saga_id in ids]

    assert asyncio.run(main()) == [{"child": {"said": f"it is {2 * n}"}} for n in range(5)]


def test_a_call_from_another_loop_does_not_wait_for_the_first(redis_url):
    """The call needs nothing of the loop of `start`, and its errors reach the caller."""

    async def main():
        async with framework(redis_url, NUMBERS, double, describe) as (_, _, orchestrator):
            saga_id = await orchestrator.execute_workflow("facade-numbers", {"number": 3})
            status = in_a_thread(lambda: orchestrator.get_status(saga_id))
            assert status["transaction_id"] == saga_id
            assert in_a_thread(lambda: orchestrator.list(workflow="facade-numbers"))
            with pytest.raises(UnknownSaga):
                await asyncio.to_thread(asyncio.run, orchestrator.get_status("no-such-saga"))

    asyncio.run(main())


def test_a_time_limit_of_a_worker_ends_its_call(redis_url):
    """With a silent server, time limit, cancellation and errors reach the worker."""

    async def main():
        async with framework(redis_url, ASKING, ask) as (_, _, orchestrator):
            Programs.orchestrator = orchestrator
            saga_id = await orchestrator.execute_workflow(ASKING, {"saga_id": "some-saga"})
            assert (await ended(orchestrator, saga_id))["error"]["type"] == "UnknownSaga"
            with redis.Redis.from_url(redis_url) as client:
                client.client_pause(700, all=True)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(asyncio.run, ask({"saga_id": saga_id}))
            called = asyncio.to_thread(asyncio.run, _cancelled(orchestrator))
            assert await called == "cancelled"

    asyncio.run(main())


async def _cancelled(orchestrator: Orchestrator) -> str:
    call = asyncio.create_task(orchestrator.get_status("some-saga"))
    await asyncio.sleep(0)
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return "cancelled"
    return "went on"


def test_it_is_stopped_from_another_loop_and_works_after_the_end_of_its_own(redis_url):
    """Each connection closes on its own loop; a closed loop has none."""

    async def stopped_elsewhere():
        orchestrator = Orchestrator(NUMBERS, MemoryEventBus(), state_store=redis_url)
        with redis.Redis.from_url(redis_url) as client:
            await orchestrator.start()
            await orchestrator.list()
            before = len(client.client_list())
            await asyncio.to_thread(asyncio.run, orchestrator.stop())
            await until(lambda: len(client.client_list()) < before, "a connection to be closed")

    async def left():
        orchestrator = Orchestrator(NUMBERS, None, state_store=redis_url)
        await orchestrator.start()
        return orchestrator

    asyncio.run(stopped_elsewhere())
    orchestrator = asyncio.run(left())
    assert asyncio.run(orchestrator.list()) == []
    asyncio.run(orchestrator.stop())


def test_in_eager_mode_a_worker_may_start_a_child_saga(saga_lab):
    """Such a test needs no server and does not deadlock."""

    async def main():
        async with Orchestrator(PARENT, MemoryEventBus()) as orchestrator:
            Programs.orchestrator = orchestrator
            saga_id = await orchestrator.execute_workflow("facade-parent", {"number": 5})
            return await orchestrator.get_status(saga_id)

    assert asyncio.run(main())["result"] == {"child": {"said": "it is 10"}}
