"""How is an ``async`` attempt waited for, cancelled, and given up?

The thread that waits is the one authority for its time: it cancels the coroutine once, when the
time-out is over or the lease is lost, and gives all of the attempt a second to clean up.  So the
next attempt, or the undo, begins when the clean-up has ended or its second is over.  What is still
at work then is left (see `activity`), and its end is told to whoever asks for it by `taken`.

A value that the function returns within that second counts; so does an error of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

from multiagents.core.exceptions import (
    LeaseLost,
    NotAllowed,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.worker_sdk import loop
from multiagents.worker_sdk.activity import Activity, current

CANCEL_GRACE_S = 1.0
"""How long a cancelled attempt may clean up before its thread goes on without it."""

_waited_for: dict[str, Waiting] = {}
"""Attempts at work, by token."""
_left: WeakValueDictionary[str, Activity] = WeakValueDictionary()
"""What failed attempts have left at work, by token; forgotten when that has ended."""


class Cancelled(Exception):
    """The coroutine has ended by its cancellation."""


class Waiting:
    """One awaitable on the process's loop, and the thread that waits for it."""

    def __init__(self, name: str, awaitable: Awaitable[Any], activity: Activity) -> None:
        self.name = name
        self.activity = activity
        self.is_lost = False
        self.is_overdue = False
        self._awaitable = awaitable
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._turned = threading.Event()
        """It has ended, or its lease is lost."""
        self._lock = threading.Lock()
        self._future = activity.begin()
        self._future.add_done_callback(lambda _: self._turned.set())
        self._loop = loop.process_loop()

    def begin(self) -> None:
        """Hand it to the loop; the caller's context variables go with it."""
        self._loop.call_soon_threadsafe(self._start)

    def wait(self, timeout_s: float | None) -> None:
        """Until it has ended, its lease is lost, or that time and the clean-up are over."""
        try:
            if not self._turned.wait(timeout_s):
                self.is_overdue = True
        except Exception:  # a time limit of Celery's own
            self._clean_up()
            raise
        except BaseException:
            self.cancel()
            raise
        if not self._future.done():
            self._clean_up()

    def lose(self) -> None:
        """Its lease is lost: cancel it, from any thread."""
        self.is_lost = True
        self.cancel()
        self._turned.set()

    def cancel(self) -> None:
        """Cancel the coroutine, the first time that this is called."""
        with self._lock:
            if self._cancelled:
                return
            self._cancelled = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._cancel)

    @property
    def has_ended(self) -> bool:
        """Whether its outcome is known."""
        return self._future.done()

    def outcome(self) -> Any:
        """What it returned.  Raises what it raised, or `Cancelled`."""
        return self._future.result()

    def _clean_up(self) -> None:
        self.cancel()
        self.activity.settle(CANCEL_GRACE_S)

    # ---- on the loop ----

    def _start(self) -> None:
        with self._lock:
            if self._cancelled:
                _close(self._awaitable)
                self._future.set_exception(Cancelled())
                return
            self._task = asyncio.ensure_future(_awaited(self._awaitable), loop=self._loop)
        self._task.add_done_callback(self._settle)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._future.set_exception(Cancelled())
        elif (error := task.exception()) is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())


def await_attempt(
    name: str,
    awaitable: Awaitable[Any],
    *,
    token: str,
    timeout_s: float | None,
    used_s: float = 0.0,
    finish: Callable[[Any], str] = str,
) -> Any:
    """What the awaitable of a worker function gives, on the process's loop.

    ``used_s``: how much of its time-out is gone.  ``finish`` makes a result's JSON, should it come
    after the attempt was given up.  Raises what the function raised, StepTimeout, LeaseLost, or
    WorkerExecutionError for its own cancellation.
    """
    if loop.on_loop_thread():
        _close(awaitable)
        raise NotAllowed(
            f"worker {name!r} was run from another async worker, which would wait for itself; run"
            " it with asyncio.to_thread"
        )
    activity = Activity(name, token, finish)
    before = current.set(activity)
    try:
        waiting = Waiting(name, awaitable, activity)
        if token:
            _waited_for[token] = waiting
        waiting.begin()
    finally:
        current.reset(before)
    try:
        waiting.wait(None if timeout_s is None else max(0.0, timeout_s - used_s))
        return _judged(waiting, timeout_s)
    except BaseException:
        if activity.give_up() and token:
            _left[token] = activity
        raise
    finally:
        _waited_for.pop(token, None)


def cancel(token: str) -> bool:
    """Cancel the async attempt of that token; False if there is none (a plain function, or over).

    The coroutine gets asyncio's CancelledError; its `await_attempt` raises LeaseLost when it has
    cleaned up, or its second is over.
    """
    waiting = _waited_for.get(token)
    if waiting is None:
        return False
    waiting.lose()
    return True


def keeps_time(token: str) -> bool:
    """Whether the attempt of that token is one whose time-out is kept here."""
    return token in _waited_for


def taken(token: str) -> Activity | None:
    """What the failed attempt of that token has left at work, given out once."""
    return _left.pop(token, None)


def _judged(waiting: Waiting, timeout_s: float | None) -> Any:
    name = waiting.name
    if waiting.has_ended:
        try:
            return waiting.outcome()
        except Cancelled as cancelled:
            error: Exception = cancelled
    else:
        error = TimeoutError(f"it did not end within {CANCEL_GRACE_S:g} s of its cancellation")
    if waiting.is_lost:
        raise LeaseLost(f"worker {name!r} was cancelled: it no longer owns its step") from error
    if waiting.is_overdue:
        left = waiting.activity.left()
        still = f", and is still at work ({left})" if left else ""
        raise StepTimeout(
            f"worker {name!r} did not end within its time-out of {timeout_s} s{still}"
        ) from error
    raise WorkerExecutionError(f"worker {name!r} was cancelled from inside") from error


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _close(awaitable: Awaitable[Any]) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()
