"""Which functions do the decorators refuse as workers and tools?"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from multiagents import (
    InvalidInput,
    circuit_breaker,
    dspy_worker,
    monitor_performance,
    retry,
    timeout,
    tool,
    worker,
)
from multiagents.worker_sdk.registry import Worker
from tests.support.llm import worker_of

FILE = Path(__file__).name
_numbers = itertools.count()


class Order(BaseModel):
    sku: str = "A1"


class Shop:
    def __call__(self, context: Any) -> None: ...

    def charge(self, context: Any) -> None: ...

    def count(self) -> None: ...

    @classmethod
    def open(cls, context: Any) -> None: ...

    @staticmethod
    def close(context: Any) -> None: ...


def none() -> None: ...


def one(context: Any, extra: int = 1, *, more: int = 2) -> None: ...


def two(first: Any, second: Any) -> None: ...


async def later(first: Any, second: Any) -> None: ...


def by_name(context: Any, *, amount: int) -> None: ...


def any_number(*contexts: Any, **more: Any) -> None: ...


def by_names(**more: Any) -> None: ...


def adding(function: Callable[..., Any]) -> Callable[..., Any]:
    """Another library's wrapper that adds an argument."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("connection", *args, **kwargs)

    return wrapper


def made(function: Callable[..., Any], **options: Any) -> Worker:
    return worker(f"signatures.w{next(_numbers)}", **options)(function)


REFUSED = {
    "no parameter": (none, "takes no parameter"),
    "two": (two, r"needs 2 arguments \(first, second\)"),
    "two, async": (later, r"needs 2 arguments \(first, second\)"),
    "keyword-only": (by_name, "needs the keyword argument 'amount'"),
    "keywords only": (by_names, "takes keyword arguments only"),
    "a method of a class": (Shop.charge, r"an unbound method"),
    "a method without": (Shop().count, "takes no parameter"),
    "marked": (retry(3)(timeout(3)(two)), "needs 2 arguments"),
    "monitored": (monitor_performance(none), "takes no parameter"),
    "guarded": (circuit_breaker(none), "takes no parameter"),
    "a partial of too little": (functools.partial(none), "takes no parameter"),
}
TAKEN = {
    "defaults": one,
    "any number": any_number,
    "an object": Shop(),
    "a method": Shop().charge,
    "a class method": Shop.open,
    "a static method": Shop.close,
    "a partial": functools.partial(two, 1),
    "a partial by name": functools.partial(by_name, amount=1),
    "a wrapper that adds": adding(two),
    "a builtin": print,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_worker_that_cannot_take_the_context_is_refused_with_its_line(kind: str) -> None:
    """The decorator's error has file, line, the mistake and what was expected."""
    function, wrong = REFUSED[kind]
    with pytest.raises(InvalidInput, match=wrong) as raised:
        made(function)
    assert f"{FILE}:" in str(raised.value)
    assert "expected one parameter, the context, as in `def charge(context)`" in str(raised.value)


def test_the_line_is_that_of_the_function() -> None:
    """The line is the function's, also through wrappers of this package."""
    line = two.__code__.co_firstlineno
    for function in (two, monitor_performance(two), functools.partial(two)):
        with pytest.raises(InvalidInput, match=rf"\(tests/unit/worker_sdk/{FILE}:{line}\)"):
            made(function)


@pytest.mark.parametrize("kind", TAKEN)
def test_whatever_can_take_the_context_is_a_worker(kind: str) -> None:
    """Defaults, varargs, bound methods and wrappers that add arguments are fine."""
    made(TAKEN[kind])


def test_a_model_may_come_with_the_context_or_alone() -> None:
    """With an ``input_model`` the function takes one or two arguments."""
    made(lambda order: None, input_model=Order)
    made(lambda order, context: None, input_model=Order)
    for wrong in (lambda: None, lambda order, context, more: None):
        with pytest.raises(InvalidInput, match="expected the input model, and the context"):
            made(wrong, input_model=Order)


def test_a_thinking_worker_is_looked_at_likewise() -> None:
    """Its function takes the context, its post_process the result and the context."""
    with pytest.raises(InvalidInput, match=f"takes no parameter; expected one.*{'context'}"):
        dspy_worker("signatures.thinking", signature="question -> answer")(none)
    thinking = dspy_worker("signatures.thinks", signature="question -> answer")(one)
    with pytest.raises(InvalidInput, match=r"post_process of worker 'signatures.thinks' \(.*:\d+"):
        thinking.post_process(none)
    assert thinking.post_process(two) is two


def test_a_refused_worker_leaves_no_trace() -> None:
    """Its name stays free, so a reload with the corrected function works."""
    with pytest.raises(InvalidInput):
        worker("signatures.mended")(none)
    worker("signatures.mended")(one)


def _numbers_of(up_to: int) -> Iterator[int]:
    yield from range(up_to)


def _by_place(city: str, /) -> str:
    return city


@pytest.mark.parametrize(
    ("function", "wrong"),
    [
        (_by_place, "has the positional-only parameter 'city'"),
        (_numbers_of, "is a generator"),
    ],
)
def test_a_tool_that_no_model_can_call_is_refused_with_its_line(
    function: Callable[..., Any], wrong: str
) -> None:
    """Both @tool and the worker that gets the tool refuse it."""
    place = rf"\(tests/unit/worker_sdk/{FILE}:{function.__code__.co_firstlineno}\)"
    with pytest.raises(InvalidInput, match=rf"{place} {wrong}"):
        tool(function)
    with pytest.raises(InvalidInput, match=rf"{place} of worker '.*' {wrong}"):
        worker_of(signature="question -> answer", reasoning="react", tools=[function])


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (object(), "a object; expected a function"),
        (max, "tool 'max' of worker '.*' has no readable parameters"),
        (Shop.charge, "is an unbound method"),
    ],
)
def test_a_worker_is_refused_with_what_is_no_tool(given: Any, wrong: str) -> None:
    """The decorator raises, not the worker's first run."""
    with pytest.raises(InvalidInput, match=wrong):
        worker_of(signature="question -> answer", reasoning="react", tools=[given])


def test_a_method_in_a_class_may_be_marked_as_a_tool() -> None:
    """Python binds the method later."""

    class Orders:
        @tool("find_order")
        def find(self, number: int) -> str:
            """Finds an order."""
            return str(number)

    worker_of(signature="question -> answer", reasoning="react", tools=[Orders().find])
