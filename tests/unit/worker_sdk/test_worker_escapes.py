"""Does every exception that leaves a worker function end its attempt and its lease?"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown

from multiagents.core.exceptions import InvalidInput, WorkerExecutionError
from multiagents.core.ports import Assignment
from multiagents.core.states import Kind
from multiagents.worker_sdk.attempt import perform
from multiagents.worker_sdk.context import Context
from multiagents.worker_sdk.execute import execute
from multiagents.worker_sdk.registry import Worker


class Panic(BaseException):
    """An error outside `Exception`, as panics of Rust extensions are."""


class Mute(BaseException):
    """An error without a readable message."""

    def __str__(self) -> str:
        raise ValueError("no")


def raising(error: BaseException) -> Callable[[Context], None]:
    """A plain function that raises this error."""

    def function(context: Context) -> None:
        raise error

    return function


def raising_async(error: BaseException) -> Callable[[Context], Any]:
    """An async function that raises this error."""

    async def function(context: Context) -> None:
        raise error

    return function


ESCAPES = [
    (Panic("index out of bounds"), "raised Panic: index out of bounds"),
    (Mute(), r"raised Mute: \(its message could not be read: ValueError\)"),
    (GeneratorExit(), "raised GeneratorExit$"),
    (SystemExit(3), r"called sys\.exit\(\)$"),
]


@pytest.mark.parametrize("made", [raising, raising_async], ids=["plain", "async"])
@pytest.mark.parametrize(("error", "told"), ESCAPES, ids=lambda each: type(each).__name__)
def test_what_is_no_exception_is_a_failure_that_names_it(made: Any, error: Any, told: str) -> None:
    """The saga gets a true report at once, whatever the error's class."""
    with pytest.raises(WorkerExecutionError, match=f"worker 'w' {told}"):
        execute(Worker(made(error), "w"), Context(), timeout_s=5)


def test_a_cancellation_that_leaks_out_of_asyncio_run_is_a_failure() -> None:
    """Such an error does not cancel the attempt."""

    def function(context: Context) -> None:
        async def main() -> None:
            inner = asyncio.ensure_future(asyncio.sleep(10))
            inner.cancel()
            await inner

        asyncio.run(main())

    with pytest.raises(WorkerExecutionError, match="worker 'w' raised CancelledError"):
        execute(Worker(function, "w"), Context())


def test_an_interrupt_is_the_functions_own_unless_python_raised_it() -> None:
    """Python raises it only in the main thread, and only where Celery has not taken the signal."""
    worker = Worker(raising(KeyboardInterrupt()), "w")
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(execute, worker, Context()).exception()
    assert str(error) == "worker 'w' raised KeyboardInterrupt"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(WorkerExecutionError, match="raised KeyboardInterrupt"):
            execute(worker, Context())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            execute(worker, Context())
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_end_of_a_worker_passes_through_its_function() -> None:
    """Celery's shutdown is no failure of the step it interrupts."""
    with pytest.raises(WorkerShutdown):
        execute(Worker(raising(WorkerShutdown(0)), "w"), Context())


class NoNotes:
    """Leases that store nothing."""

    def note(self, held: Assignment, field: str, value: Any) -> bool:
        return True


@pytest.mark.parametrize("made", [raising, raising_async], ids=["plain", "async"])
@pytest.mark.parametrize("error", [Ignore(), Reject("r"), Retry("r")], ids=repr)
def test_an_exception_of_celerys_own_is_a_failure(made: Any, error: Exception) -> None:
    """Celery does not report it, so the attempt would otherwise never end."""
    held = Assignment("s", "w", "v", Kind.RUN, "a", 1, "n", "w", "io", "d")
    told = f"raised Celery's {type(error).__name__}"
    with pytest.raises(WorkerExecutionError, match=told):
        perform(Worker(made(error), "w"), held, NoNotes(), limit=1000)


def test_sys_exit_in_a_thread_of_a_pool_is_a_failure() -> None:
    """Python would end that thread without a message."""
    worker = Worker(raising(SystemExit(1)), "w")
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(execute, worker, Context()).exception()
    assert str(error) == "worker 'w' called sys.exit()"


def test_a_generator_is_refused_as_a_worker() -> None:
    """A call runs none of its code, so no attempt could do its work."""

    def plain(context: Context) -> Iterator[int]:
        yield 1

    async def asynchronous(context: Context) -> AsyncIterator[int]:
        yield 1

    for function in (plain, asynchronous):
        with pytest.raises(InvalidInput, match=r"worker 'w' .* is a generator .* return one dict"):
            Worker(function, "w")
