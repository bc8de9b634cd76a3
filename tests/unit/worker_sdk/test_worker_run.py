"""Does an attempt end as its function does, and on time?"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from multiagents.core.exceptions import (
    InvalidResult,
    LeaseLost,
    NotAllowed,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.core.states import FailureEffect
from multiagents.worker_sdk import loop
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import InputRefused, cancel, classify, execute
from multiagents.worker_sdk.registry import Worker
from tests.support.processes import until

DEADLINE_S = 10.0


def made(function: Callable[..., Any], **options: Any) -> Worker:
    """An unregistered worker of that function."""
    return Worker(function, "charge", **options)


class Order(BaseModel):
    amount: int = Field(gt=0)


class Receipt(BaseModel):
    id: str
    paid: int = 0


def test_a_plain_function_runs_in_the_calling_thread() -> None:
    """The function gets the context, and no return value means {}."""
    seen: list[Any] = []

    def function(context: Context) -> None:
        seen.append((threading.get_ident(), context["x"], context.step))

    assert execute(made(function), Context({"x": 1}, step="s")) == {}
    assert seen == [(threading.get_ident(), 1, "s")]


def test_async_functions_share_one_loop_for_the_processs_life() -> None:
    """A client's connections stay open from one attempt to the next."""

    async def function(context: Context) -> dict[str, Any]:
        return {"loop": id(asyncio.get_running_loop()), "thread": threading.get_ident()}

    first, second = (execute(made(function), Context()) for _ in range(2))
    assert first == second
    assert first["thread"] != threading.get_ident()


def test_context_variables_of_the_caller_reach_an_async_function() -> None:
    """Logging contexts and tracing spans use them."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")

    async def function(context: Context) -> dict[str, str]:
        return {"value": variable.get()}

    assert execute(made(function), Context()) == {"value": "here"}


def test_a_plain_function_that_returns_an_awaitable_is_awaited() -> None:
    """A decorator may hide the ``async``."""

    async def inner() -> dict[str, int]:
        return {"a": 1}

    assert execute(made(lambda context: inner()), Context()) == {"a": 1}


@pytest.mark.parametrize("result", [[1], "done", 5, True])
def test_a_result_that_is_no_dict_is_told_so(result: Any) -> None:
    """The error names worker and type, and says what to do."""
    with pytest.raises(InvalidResult, match=r"worker 'charge' returned \w+: return a dict"):
        execute(made(lambda context: result), Context())


def test_a_result_that_is_no_json_names_its_key() -> None:
    """The error has the function's file and line, and nothing is stored."""
    place = rf"\(tests/unit/worker_sdk/{Path(__file__).name}:\d+\)$"
    wanted = rf"result of 'charge': key 'at' is an object; .*: convert it {place}"
    with pytest.raises(InvalidResult, match=wanted):
        execute(made(lambda context: {"at": object()}), Context())


def test_an_input_model_is_what_the_function_gets() -> None:
    """A function with a second parameter gets the context, too."""
    assert execute(
        made(lambda order: {"paid": order.amount}, input_model=Order), Context(amount_of(5))
    ) == {"paid": 5}

    def both(order: Order, context: Context) -> dict[str, Any]:
        return {"paid": order.amount, "step": context.step, "other": context["other"]}

    context = Context({**amount_of(5), "other": 1}, step="s")
    assert execute(made(both, input_model=Order), context) == {"paid": 5, "step": "s", "other": 1}


def test_an_input_that_the_model_refuses_never_reaches_the_function() -> None:
    """The verdict is clean and final, and the message omits the value."""
    entered: list[Any] = []
    with pytest.raises(InputRefused) as caught:
        execute(made(entered.append, input_model=Order), Context(amount_of(-77)))
    assert entered == []
    assert str(caught.value) == (
        "input of worker 'charge' is refused by Order: amount: Input should be greater than 0"
    )
    verdict = classify(caught.value)
    assert (verdict.effect, verdict.retryable) == (FailureEffect.CLEAN, False)


def test_an_output_model_shapes_the_result() -> None:
    """The result may be an instance or a dict; a mismatch is an invalid result."""
    for returned in (Receipt(id="a"), {"id": "a", "more": 1}):
        worker = made(lambda context, value=returned: value, output_model=Receipt)
        assert execute(worker, Context()) == {"id": "a", "paid": 0}
    with pytest.raises(InvalidResult, match="refused by Receipt: id: Field required"):
        execute(made(lambda context: None, output_model=Receipt), Context())


def test_an_async_function_is_cancelled_when_its_time_is_over() -> None:
    """The function may clean up; the step's timeout comes before the worker's."""
    cleaned: list[bool] = []

    async def function(context: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with pytest.raises(StepTimeout, match=r"'charge' ran longer than its timeout_s of 0\.02 s"):
        execute(made(function, timeout_s=60), Context(), timeout_s=0.02)
    assert cleaned == [True]
    with pytest.raises(StepTimeout):
        execute(made(function, timeout_s=0.02), Context())


def test_a_time_out_of_the_function_itself_is_not_the_steps() -> None:
    """A socket's TimeoutError stays unchanged."""

    async def function(context: Context) -> None:
        raise TimeoutError("read timed out")

    with pytest.raises(TimeoutError, match="read timed out") as caught:
        execute(made(function), Context(), timeout_s=30)
    assert not isinstance(caught.value, StepTimeout)


def test_a_coroutine_that_ignores_its_cancellation_is_left_behind() -> None:
    """It runs on after 1 s of grace, and the engine fences its late effects."""
    release = threading.Event()
    ended = threading.Event()

    async def function(context: Context) -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue
        ended.set()

    with pytest.raises(StepTimeout):
        execute(made(function), Context(), timeout_s=0.02)
    release.set()
    until(ended.is_set, "the coroutine's end")


def test_a_lost_lease_cancels_a_running_async_attempt() -> None:
    """Another thread cancels it by its token; execute raises LeaseLost."""
    begun, cancelled = threading.Event(), threading.Event()

    async def function(context: Context) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            execute(made(function), Context(), token="n1", timeout_s=30)
        except LeaseLost as error:
            caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    until(begun.is_set, "the attempt")
    until(lambda: cancel("n1"), "the attempt can be cancelled")
    thread.join(DEADLINE_S)
    assert len(caught) == 1
    until(cancelled.is_set, "the coroutine's end")
    assert not cancel("n1")


def test_what_is_not_running_cannot_be_cancelled() -> None:
    """Unknown, plain and ended attempts are not cancelled."""
    assert not cancel("nobody")
    inside: list[bool] = []
    execute(made(lambda context: inside.append(cancel("n2"))), Context(), token="n2")
    assert inside == [False]


def test_a_function_that_cancels_itself_has_failed() -> None:
    """A function's own cancellation is an error, not a lost lease."""

    async def function(context: Context) -> None:
        raise asyncio.CancelledError

    with pytest.raises(WorkerExecutionError, match="cancelled from inside"):
        execute(made(function), Context(), token="n3")


def test_sys_exit_in_a_worker_ends_neither_the_process_nor_the_loop() -> None:
    """Plain and async workers fail as a step, and the next attempt runs."""

    def plain(context: Context) -> None:
        raise SystemExit(3)

    async def asynchronous(context: Context) -> None:
        raise SystemExit(3)

    async def next_one(context: Context) -> dict[str, Any]:
        return {"ok": True}

    for function in (plain, asynchronous):
        with pytest.raises(WorkerExecutionError, match=r"called sys\.exit"):
            execute(made(function), Context(), timeout_s=5)
    assert execute(made(next_one), Context(), timeout_s=5) == {"ok": True}


def test_an_attempt_inside_an_async_worker_says_why_it_cannot_wait() -> None:
    """A wait for the loop on the loop would block the process for ever."""

    async def inner(context: Context) -> None: ...

    async def outer(context: Context) -> dict[str, Any]:
        return execute(made(inner), Context())

    with pytest.raises(NotAllowed, match=r"run it with asyncio\.to_thread"):
        execute(made(outer), Context(), timeout_s=5)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # as prefork does
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    """A loop of the parent does not run in the child."""

    async def function(context: Context) -> dict[str, Any]:
        return {"pid": os.getpid()}

    assert execute(made(function), Context(), timeout_s=5) == {"pid": os.getpid()}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            result = execute(made(function), Context(), timeout_s=5)
            status = 0 if result == {"pid": os.getpid()} else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.process_loop().is_running()


def amount_of(amount: int) -> dict[str, Any]:
    """An order's data."""
    return {"amount": amount}
