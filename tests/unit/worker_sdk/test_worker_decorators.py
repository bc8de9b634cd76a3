"""Does a decorated function stay a function, and does the engine get its options?"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import pickle
from typing import Any

import pytest

from multiagents.core.exceptions import InvalidInput
from multiagents.core.policies import RetryPolicy
from multiagents.worker_sdk.decorators import monitor_performance, retry, timeout, worker
from multiagents.worker_sdk.registry import Registry, Worker, find, workers


@worker("tests.module_level")
def module_level(context: dict[str, Any]) -> dict[str, Any]:
    """Stays importable and picklable by name."""
    return {"seen": context["x"]}


def test_a_worker_called_directly_is_the_plain_function() -> None:
    """A direct call keeps arguments, result, name and docstring."""

    @worker("tests.plain")
    def add(one: int, *rest: int, scale: int = 1) -> int:
        """Adds."""
        return (one + sum(rest)) * scale

    assert add(1, 2, 3, scale=10) == 60
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert list(inspect.signature(add).parameters) == ["one", "rest", "scale"]


def test_an_async_worker_called_directly_gives_a_coroutine() -> None:
    """A unit test awaits it like any async function."""

    @worker("tests.async")
    async def double(context: dict[str, int]) -> dict[str, int]:
        return {"y": context["x"] * 2}

    call = double({"x": 2})
    assert inspect.iscoroutine(call)
    assert asyncio.run(call) == {"y": 4}
    assert double.is_async


def test_the_name_is_the_functions_own_unless_given() -> None:
    """The decorator works bare, with empty brackets and with a name."""

    @worker
    def tests_bare(context: dict[str, Any]) -> None: ...

    @worker()
    def tests_empty(context: dict[str, Any]) -> None: ...

    assert (tests_bare.name, tests_empty.worker_name) == ("tests_bare", "tests_empty")
    assert find("tests_bare") is tests_bare
    assert workers()["tests_empty"] is tests_empty
    assert find("tests_nobody") is None


@pytest.mark.parametrize(
    ("options", "queue"),
    [
        ({}, "io"),
        ({"kind": "llm"}, "llm"),
        ({"kind": "cpu"}, "io"),
        ({"kind": "cpu", "queue": "cpu"}, "cpu"),
        ({"kind": "llm", "queue": "gpu"}, "gpu"),
    ],
)
def test_the_home_queue_follows_from_the_kind(options: dict[str, Any], queue: str) -> None:
    """A named queue comes before the kind's."""
    made = worker("tests.queue", **options)(_nothing)
    assert made.home_queue == queue
    assert made.info.queue == queue


def test_the_stacked_decorators_of_the_seeds_reach_the_worker() -> None:
    """Decorators below @worker mark the function, and the worker takes the marks."""

    @worker("tests.stacked")
    @retry(max_attempts=4, backoff_factor=3.0)
    @timeout(30)
    @monitor_performance
    async def charge(context: dict[str, Any]) -> dict[str, Any]:
        return {"status": "charged"}

    assert charge.retry == RetryPolicy(max_attempts=4, factor=3.0)
    assert charge.timeout_s == 30
    assert asyncio.run(charge({})) == {"status": "charged"}
    assert charge.performance is not None
    assert charge.performance.calls == 1


def test_the_same_decorators_work_above_a_worker() -> None:
    """They change the same worker object."""

    @monitor_performance
    @timeout(7)
    @retry(2)
    @worker("tests.above")
    def charge(context: dict[str, Any]) -> dict[str, Any]:
        return {}

    assert isinstance(charge, Worker)
    assert find("tests.above") is charge
    assert (charge.retry, charge.timeout_s) == (RetryPolicy(max_attempts=2), 7)
    charge({})
    assert charge.performance is not None
    assert charge.performance.calls == 1


def test_a_marked_function_stays_the_plain_function() -> None:
    """@retry neither retries nor wraps a direct call."""
    calls = []

    @retry(5)
    @timeout(1)
    def fail() -> None:
        calls.append(1)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert calls == [1]
    assert inspect.isfunction(fail)


def test_of_two_that_say_the_same_the_outer_one_wins() -> None:
    """@worker's argument is outside of a mark below it."""
    made = worker("tests.outer", retry=7, timeout_s=5)(retry(2)(timeout(9)(_nothing_new())))
    assert (made.retry, made.timeout_s) == (RetryPolicy(max_attempts=7), 5)


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        (5, RetryPolicy(max_attempts=5)),
        ({"max_attempts": 2, "cap_s": 9}, RetryPolicy(max_attempts=2, cap_s=9)),
        (RetryPolicy(jitter=False), RetryPolicy(jitter=False)),
    ],
)
def test_a_retry_is_a_policy_a_dict_or_a_number(given: Any, policy: RetryPolicy) -> None:
    """The three forms give the same policy."""
    assert worker("tests.retry", retry=given)(_nothing).retry == policy


@pytest.mark.parametrize("given", [0, True, {"attempts": 3}, {"max_attempts": "3"}, {"cap_s": -1}])
def test_a_bad_retry_is_refused_where_it_is_written(given: Any) -> None:
    """The decorator raises, not the step's first failure."""
    with pytest.raises(InvalidInput, match="bad retry policy"):
        worker("tests.bad", retry=given)(_nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "1st"}, "cannot be named '1st'"),
        ({"name": "a b"}, "cannot be named 'a b'"),
        ({"name": ""}, "cannot be named ''"),
        ({"name": "x" * 129}, "at most 128"),
        ({"name": 5}, "cannot be named 5"),
        ({"name": "multiagents.start_saga"}, "belong to the engine"),
        ({"kind": "gpu"}, "expected one of io, cpu, llm"),
        ({"queue": "a,b"}, "queue of worker"),
        ({"timeout_s": 0}, "expected seconds"),
        ({"timeout_s": float("nan")}, "expected seconds"),
        ({"timeout_s": True}, "expected seconds"),
        ({"input_model": dict}, "pydantic.BaseModel"),
    ],
)
def test_a_bad_option_is_refused_where_it_is_written(options: dict[str, Any], message: str) -> None:
    """The message names the option and what was expected."""
    with pytest.raises(InvalidInput, match=message):
        worker(**{"name": "tests.bad", **options})(_nothing)


def test_bare_retry_and_timeout_say_what_is_missing() -> None:
    """Without brackets the function would be taken for a number."""
    with pytest.raises(InvalidInput, match="bad retry policy: max_attempts"):
        retry(_nothing)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(InvalidInput, match="timeout of @timeout"):
        timeout(_nothing)  # type: ignore[arg-type]  # the mistake


def test_two_functions_cannot_share_a_name() -> None:
    """The error names both places."""
    registry = Registry()
    registry.register(Worker(_nothing, "charge"))
    with pytest.raises(
        InvalidInput, match=r"_nothing \(.*py:\d+\) and .*_other \(.*py:\d+\); give"
    ):
        registry.register(Worker(_other, "charge"))


def test_the_same_function_registered_again_replaces_itself() -> None:
    """A module may be reloaded, or run as __main__ and imported too."""
    registry = Registry()
    registry.register(Worker(_nothing, "charge"))
    again = registry.register(Worker(_nothing_new(), "charge"))
    assert registry.find("charge") is again
    main = Worker(_nothing_new(), "charge")
    main.function.__module__ = "__main__"
    assert registry.register(main) is registry.find("charge")


def test_a_worker_cannot_be_made_a_worker_again() -> None:
    """One step would otherwise have two names."""
    with pytest.raises(InvalidInput, match=r"is the worker 'tests\.module_level' already"):
        worker("tests.twice")(module_level)


def test_listeners_hear_of_workers_known_and_to_come() -> None:
    """Each worker becomes a Celery task, whatever is imported first."""
    registry = Registry()
    first = registry.register(Worker(_nothing, "first"))
    heard: list[Worker] = []
    registry.on_register(heard.append)
    second = registry.register(Worker(_other, "second"))
    assert heard == [first, second]


def test_a_worker_is_pickled_by_name_like_a_function() -> None:
    """A deep copy is the worker itself."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert copy.deepcopy(module_level) is module_level


def test_performance_counts_calls_failures_and_time(caplog: pytest.LogCaptureFixture) -> None:
    """`True` switches the counts on, and the log omits error messages."""

    @monitor_performance
    def fail_on(context: dict[str, Any]) -> None:
        if context["fail"]:
            raise OSError("secret")

    made = worker("tests.performance")(fail_on)
    with caplog.at_level(logging.DEBUG, "multiagents.worker"):
        made({"fail": False})
        with pytest.raises(OSError, match="secret"):
            made({"fail": True})
    seen = made.performance
    assert seen is not None
    assert (seen.calls, seen.failures) == (2, 1)
    assert 0 < seen.mean_s <= seen.max_s <= seen.total_s
    events = [record.getMessage() for record in caplog.records]
    assert [event.split("'")[1] for event in events] == [
        "worker started",
        "worker finished",
        "worker started",
        "worker failed",
    ]
    assert "error='OSError'" in events[3]
    assert "secret" not in caplog.text


def _nothing(context: dict[str, Any]) -> None: ...


def _other(context: dict[str, Any]) -> None: ...


def _nothing_new() -> Any:
    """A new function in the same place as `_nothing`."""

    def function(context: dict[str, Any]) -> None: ...

    function.__qualname__ = "_nothing"
    return function
