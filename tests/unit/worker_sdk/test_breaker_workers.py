"""Does a guarded worker or object keep calls from a failing service?"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from multiagents.core.clock import FakeClock
from multiagents.core.exceptions import CircuitBreakerOpenError, InvalidInput, NonRetryableError
from multiagents.storage.client import Edge
from multiagents.worker_sdk import breaker
from multiagents.worker_sdk.breaker import CircuitBreaker, circuit_breaker
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.decorators import worker
from multiagents.worker_sdk.execute import execute


def _shop(calls: list[Any], *, below: bool, asynchronous: bool, **options: Any) -> Any:
    """A guarded worker, plain or async, with the breaker below or above @worker."""

    def plain(context: dict[str, Any]) -> dict[str, Any]:
        calls.append(context)
        if context.get("error"):
            raise context["error"]
        return {"ok": True}

    async def coroutine(context: dict[str, Any]) -> dict[str, Any]:
        return plain(context)

    function: Callable[..., Any] = coroutine if asynchronous else plain
    guard = circuit_breaker(timeout_s=30, min_calls=2, **options)
    named = worker(f"tests.shop_{'below' if below else 'above'}_{asynchronous}")
    return named(guard(function)) if below else guard(named(function))


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("below", [False, True])
def test_a_guarded_worker_is_refused_while_open_and_recovers(
    clock: FakeClock, below: bool, asynchronous: bool
) -> None:
    """The breaker works below and above @worker, for plain and async workers."""
    calls: list[Any] = []
    shop = _shop(calls, below=below, asynchronous=asynchronous)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            execute(shop, Context({"error": OSError("down")}))
    clock.advance(10)
    with pytest.raises(CircuitBreakerOpenError, match=r"is open: .* in 20\.0 s") as caught:
        execute(shop, Context())
    assert caught.value.retry_after == 20
    assert len(calls) == 2
    clock.advance(20)
    assert execute(shop, Context()) == {"ok": True}
    assert execute(shop, Context()) == {"ok": True}


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "fallback", [{"cached": 1}, lambda context: {"cached": context["x"]}], ids=["value", "function"]
)
def test_a_fallback_is_returned_instead_of_an_error(asynchronous: bool, fallback: Any) -> None:
    """A fallback is a value or a function of the same arguments, used only while open."""
    shop = _shop([], below=True, asynchronous=asynchronous, fallback=fallback)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            execute(shop, Context({"error": OSError("down")}))
    assert execute(shop, Context({"x": 1})) == {"cached": 1}


@pytest.mark.usefixtures("connected")
def test_an_async_fallback_is_awaited() -> None:
    """An async function may have an async fallback."""

    async def cached(context: Context) -> dict[str, Any]:
        return {"cached": 1}

    shop = _shop([], below=True, asynchronous=True, fallback=cached)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            execute(shop, Context({"error": OSError("down")}))
    assert execute(shop, Context()) == {"cached": 1}


@pytest.mark.usefixtures("connected")
def test_a_final_refusal_by_the_service_opens_nothing() -> None:
    """A declined card is an answer, so the service counts as working."""
    shop = _shop([], below=True, asynchronous=False)
    for _ in range(5):
        with pytest.raises(NonRetryableError, match="declined"):
            execute(shop, Context({"error": NonRetryableError("declined")}))


@pytest.mark.usefixtures("connected")
def test_a_time_out_counts_as_a_failure() -> None:
    """An async function gets the timeout as a cancellation."""

    @circuit_breaker(min_calls=1, name="slow")
    async def slow(context: Context) -> None:
        await asyncio.Event().wait()

    @worker("tests.quick")
    async def quick(context: Context) -> None:
        """Starts this process's loop first, since that takes a while on a loaded machine."""

    made = worker("tests.slow")(slow)
    execute(quick, Context())
    with pytest.raises(TimeoutError):
        execute(made, Context(), timeout_s=0.5)  # enough to enter the function
    with pytest.raises(CircuitBreakerOpenError):
        execute(made, Context(), timeout_s=0.5)


@pytest.mark.usefixtures("connected")
def test_functions_of_one_service_share_a_circuit_by_name() -> None:
    """Failures of one function spare the other."""

    @circuit_breaker(min_calls=1, name="provider")
    def charge() -> None:
        raise OSError("down")

    @circuit_breaker(min_calls=1, name="provider")
    def refund() -> None: ...

    with pytest.raises(OSError, match="down"):
        charge()
    with pytest.raises(CircuitBreakerOpenError, match="circuit 'provider' is open"):
        refund()


@pytest.mark.usefixtures("unconnected")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_outside_an_engine_it_is_the_plain_function(asynchronous: bool) -> None:
    """A unit test needs no server and never meets an open circuit."""
    calls: list[Any] = []
    shop = _shop(calls, below=True, asynchronous=asynchronous)
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            execute(shop, Context({"error": OSError("down")}))
    assert len(calls) == 5


def test_a_store_that_cannot_be_reached_stops_no_call(
    caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    """The log reports the store without its password, and the call goes through."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"redis://:hunter2@127.0.0.1:{free.getsockname()[1]}/0"
    edge = Edge(url, retries=0, timeout_s=1)
    before = breaker._connection
    breaker.connect(edge.execute, clock)
    try:
        with caplog.at_level(logging.WARNING):
            assert execute(_shop([], below=True, asynchronous=False), Context()) == {"ok": True}
    finally:
        breaker._connection = before
        edge.close()
    assert "could not reach its store" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"failure_threshold": 0}, "failure_threshold=0: expected above 0 to 1"),
        ({"failure_threshold": 50}, "failure_threshold=50"),
        ({"timeout_s": 0}, "timeout_s=0"),
        ({"timeout_s": 5, "timeout_seconds": 6}, "timeout_seconds=6 are one setting"),
        ({"min_calls": 0, "window_s": -1}, "window_s=-1: .*; min_calls=0: expected at least 1"),
    ],
)
def test_bad_limits_are_refused_where_they_are_written(
    options: dict[str, Any], message: str
) -> None:
    """One error names all of them."""
    with pytest.raises(InvalidInput, match=message):
        circuit_breaker(**options)


@pytest.mark.usefixtures("unconnected")
def test_it_works_without_brackets() -> None:
    """`@circuit_breaker` alone uses every default."""

    @circuit_breaker
    def plain(one: int, *, two: int) -> int:
        return one + two

    assert plain(1, two=2) == 3
    assert plain.__name__ == "plain"


def test_breakers_stay_with_the_app_that_connected_them(connected: None, edge: Edge) -> None:
    """An app of the package for another server takes them only if no app has them yet."""
    before = breaker._connection
    breaker.connect(edge.execute, replaces=False)
    assert breaker._connection is before
    breaker.disconnect()
    breaker.connect(edge.execute, replaces=False)
    assert breaker._connection is not None


# ---- an object instead of a decorator ----


def down(*_: Any) -> None:
    raise OSError("down")


async def down_later(*_: Any) -> None:
    raise OSError("down")


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("failing", [down, down_later, lambda: down_later()])
def test_calls_through_a_circuit_breaker_open_it_and_a_probe_closes_it(
    clock: FakeClock, failing: Callable[..., Any]
) -> None:
    """It takes plain functions, coroutine functions and functions that return a coroutine."""

    async def main() -> None:
        shop = CircuitBreaker(0.5, 30, min_calls=2, name="shop")
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                await shop.call(failing)
        with pytest.raises(CircuitBreakerOpenError, match="circuit 'shop' is open"):
            await shop.call(sorted, [2, 1])
        clock.advance(30)
        assert await shop.call(sorted, [2, 1], reverse=True) == [2, 1]

    asyncio.run(main())


@pytest.mark.usefixtures("connected")
def test_a_circuit_breaker_shares_its_circuit_with_other_processes_and_decorators() -> None:
    """The shared key is its name, or else the line that makes it, as in every process."""

    @circuit_breaker(min_calls=1, name="provider", timeout_seconds=30)
    def fetch() -> None: ...

    class Ours(CircuitBreaker):
        def __init__(self) -> None:
            super().__init__(min_calls=1)

    async def main() -> None:
        with pytest.raises(OSError, match="down"):
            await CircuitBreaker(min_calls=1, name="provider").call(down)
        with pytest.raises(CircuitBreakerOpenError) as caught:
            fetch()
        assert caught.value.retry_after == 60
        again, other = [CircuitBreaker(min_calls=1) for _ in range(2)], Ours()
        with pytest.raises(OSError, match="down"):
            await again[0].call(down_later)
        with pytest.raises(CircuitBreakerOpenError):
            await again[1].call(down_later)
        assert again[0].name == again[1].name == f"{__name__}:{line_of_both}"
        assert other.name == again[0].name

    line_of_both = main.__code__.co_firstlineno + 6
    asyncio.run(main())


@pytest.mark.usefixtures("connected")
def test_a_circuit_breaker_has_a_fallback_and_refuses_bad_limits() -> None:
    """Both work as in the decorator, and errors name the object's arguments."""

    async def main() -> list[Any]:
        cached = CircuitBreaker(min_calls=1, fallback=lambda given: [given])
        with pytest.raises(OSError, match="down"):
            await cached.call(down, "A1")
        found: list[Any] = await cached.call(down, "A1")
        return found

    assert asyncio.run(main()) == ["A1"]
    with pytest.raises(InvalidInput, match="timeout_seconds=0: expected seconds"):
        CircuitBreaker(timeout_seconds=0)
