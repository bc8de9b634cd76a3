"""Which parts of an async attempt go on after its end, and does the engine notice?"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from multiagents.agents.tools import invoke
from multiagents.core.exceptions import LeaseLost, StepTimeout
from multiagents.worker_sdk import async_attempts
from multiagents.worker_sdk.activity import Activity, Ending
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import execute
from multiagents.worker_sdk.registry import Worker
from tests.support.processes import until

DEADLINE_S = 10.0


class Blocked:
    """A plain function that ends on release."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def pay(self) -> dict[str, int]:
        """The call of a blocking client."""
        self.begun.set()
        assert self.go.wait(DEADLINE_S)
        return {"paid": 1}


def timed_out(function: Callable[[Context], Any], *, token: str = "t") -> StepTimeout:
    """Run it with a timeout that passes at once."""
    with pytest.raises(StepTimeout) as caught:
        execute(Worker(function, "w"), Context(), token=token, timeout_s=0.05)
    return caught.value


def endings_of(activity: Activity | None) -> list[Ending]:
    """The list that gets the endings of code left running."""
    assert activity is not None
    told: list[Ending] = []
    activity.leave(told.append)
    return told


@pytest.fixture
def blocked() -> Blocked:
    return Blocked()


# ---- the second to clean up ----


def test_a_time_out_waits_for_the_clean_up() -> None:
    """One cancellation is sent, so an ``await`` in ``finally`` completes."""
    cleaned: list[str] = []

    async def function(context: Context) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            cleaned.append("after 0.2 s")

    error = timed_out(function)
    assert cleaned == ["after 0.2 s"]
    assert str(error) == "worker 'w' ran longer than its timeout_s of 0.05 s"
    assert async_attempts.taken("t") is None


def test_a_lost_lease_waits_for_the_clean_up() -> None:
    """The attempt finishes its ``finally``, even if another one has begun."""
    begun, cleaned = threading.Event(), threading.Event()

    async def function(context: Context) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.2)
            cleaned.set()

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(execute, Worker(function, "w"), Context(), token="t", timeout_s=60)
        assert begun.wait(DEADLINE_S)
        assert async_attempts.cancel("t")
        assert async_attempts.cancel("t")  # the lease keeper may find it lost again
        assert isinstance(ended.exception(DEADLINE_S), LeaseLost)
    assert cleaned.is_set()


def test_a_result_within_the_second_counts() -> None:
    """The rule is that of a plain function that catches its soft time limit."""

    async def function(context: Context) -> dict[str, bool]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return {"saved": True}
        return {}

    assert execute(Worker(function, "w"), Context(), timeout_s=0.05) == {"saved": True}


def test_the_time_of_a_plain_part_counts() -> None:
    """A plain function that returns an awaitable has one timeout, not two."""

    def function(context: Context) -> Any:
        ends_at = time.monotonic() + 0.3
        while time.monotonic() < ends_at:
            threading.Event().wait(0.01)
        return asyncio.sleep(0.3, {"done": True})

    with pytest.raises(StepTimeout):
        execute(Worker(function, "w"), Context(), timeout_s=0.5)


# ---- what is left at work ----


def test_a_thread_that_outlives_its_attempt_is_noticed(blocked: Blocked) -> None:
    """`asyncio.to_thread` leaves a thread whose effect comes after the coroutine's end."""

    async def function(context: Context) -> Any:
        return await asyncio.to_thread(blocked.pay)

    error = timed_out(function)
    assert str(error).endswith("and is still at work (Blocked.pay)")
    told = endings_of(async_attempts.taken("t"))
    assert told == []
    blocked.go.set()
    until(lambda: told, "the end of the thread")
    assert told == [Ending("Blocked.pay", 1, more=False)]
    assert async_attempts.taken("t") is None


def test_a_thread_that_ends_before_anybody_asks_is_told_of(blocked: Blocked) -> None:
    """The thread's end is reported after the failure, even if it came first."""

    async def function(context: Context) -> Any:
        return await asyncio.to_thread(blocked.pay)

    timed_out(function)
    left = async_attempts.taken("t")
    blocked.go.set()
    assert left is not None
    left.settle(DEADLINE_S)
    assert endings_of(left) == [Ending("Blocked.pay", 1, more=False)]


def test_a_thread_of_an_executor_of_ones_own_is_noticed(blocked: Blocked) -> None:
    """``run_in_executor`` counts with any executor."""
    with ThreadPoolExecutor(1) as own:

        async def function(context: Context) -> Any:
            return await asyncio.get_running_loop().run_in_executor(own, blocked.pay)

        timed_out(function)
        told = endings_of(async_attempts.taken("t"))
        blocked.go.set()
        until(lambda: told, "the end of the thread")


def test_a_plain_tool_that_outlives_its_attempt_is_noticed(blocked: Blocked) -> None:
    """So is the plain function of an LLM worker."""

    async def function(context: Context) -> Any:
        return await invoke(blocked.pay)

    timed_out(function)
    told = endings_of(async_attempts.taken("t"))
    blocked.go.set()
    until(lambda: told, "the end of the tool")
    assert told == [Ending("Blocked.pay", 1, more=False)]


def test_each_thread_is_told_of_as_it_ends(blocked: Blocked) -> None:
    """One thread that never ends hides no effect of the others."""
    other = Blocked()

    async def function(context: Context) -> Any:
        return await asyncio.gather(
            asyncio.to_thread(blocked.pay), asyncio.to_thread(other.pay), return_exceptions=True
        )

    timed_out(function)
    told = endings_of(async_attempts.taken("t"))
    other.go.set()
    until(lambda: told, "the end of the first")
    blocked.go.set()
    until(lambda: len(told) == 2, "the end of the second")
    assert [(each.part, each.more) for each in told] == [(1, True), (2, False)]


def test_a_failure_that_leaves_a_thread_is_noticed(blocked: Blocked) -> None:
    """One of two calls fails; the other's effect comes after the undo."""

    async def function(context: Context) -> None:
        await asyncio.gather(asyncio.to_thread(blocked.pay), refuse(blocked))

    async def refuse(first: Blocked) -> None:
        assert await asyncio.to_thread(first.begun.wait, DEADLINE_S)
        raise ValueError("the other one failed")

    with pytest.raises(ValueError, match="the other one failed"):
        execute(Worker(function, "w"), Context(), token="t")
    told = endings_of(async_attempts.taken("t"))
    blocked.go.set()
    until(lambda: told, "the end of the thread")


def test_a_coroutine_that_swallows_its_cancellation_brings_its_result(blocked: Blocked) -> None:
    """The result comes late, after the threads that it waits for."""

    async def function(context: Context) -> Any:
        paying = asyncio.ensure_future(asyncio.to_thread(blocked.pay))
        while not paying.done():
            try:
                await asyncio.shield(paying)
            except asyncio.CancelledError:
                continue
        return paying.result()

    timed_out(function)
    told = endings_of(async_attempts.taken("t"))
    blocked.go.set()
    until(lambda: len(told) == 2, "the end of the function")
    assert [(each.label, each.more) for each in told] == [
        ("Blocked.pay", True),
        ("its function", False),
    ]
    assert told[1].finish is not None
    assert json.loads(told[1].finish()) == {"paid": 1}


def test_what_no_thread_has_begun_does_not_begin(blocked: Blocked) -> None:
    """After its timeout an attempt starts no calls that a full executor still queues."""
    entered: list[bool] = []
    with ThreadPoolExecutor(1) as own:
        own.submit(blocked.pay)

        async def function(context: Context) -> Any:
            run = asyncio.get_running_loop().run_in_executor
            return await run(own, entered.append, True)

        timed_out(function)
        assert async_attempts.taken("t") is None
        blocked.go.set()
    assert entered == []


def test_a_look_up_of_a_name_is_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent name server causes many timeouts, and leaves no effect."""
    go = threading.Event()
    monkeypatch.setattr("multiagents.worker_sdk.loop._LOOKUPS", (go.wait, socket.getaddrinfo))

    async def function(context: Context) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, go.wait)

    timed_out(function)
    go.set()
    assert async_attempts.taken("t") is None


def test_nothing_is_kept_of_what_nobody_asks_for(blocked: Blocked) -> None:
    """A call without a saga, as in a unit test, leaves no record."""

    async def function(context: Context) -> Any:
        return await asyncio.to_thread(blocked.pay)

    timed_out(function, token="forgotten")
    blocked.go.set()
    until(lambda: gc.collect() and "forgotten" not in async_attempts._left, "it is forgotten")
