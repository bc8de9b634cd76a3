"""How is an ``async`` attempt waited for, cancelled, and given up?

The thread that waits is the one authority for its time: it cancels the coroutine once, when the
time-out is over or the lease is lost, and gives all of the attempt a second to clean up.  So the
next attempt, or the undo, begins when the clean-up has ended or its second is over.  What is still
at work then is left (see `activity`), and its end is told to whoever asks for it by `taken`.

A value that the function returns within that second counts; so does an error of its own.

What another attempt took by blocking the loop is not held against this one: it was not entered, or
not let go on, and ends as `LoopBlocked`, which does not count.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from functools import partial
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from multiagents.core.exceptions import (
    LeaseLost,
    LoopBlocked,
    NotAllowed,
    StepTimeout,
    WorkerExecutionError,
)
from multiagents.core.places import suspended_at
from multiagents.worker_sdk import loop, loop_watch
from multiagents.worker_sdk.activity import Activity, current
from multiagents.worker_sdk.loop import AttemptLoop

CANCEL_GRACE_S = 1.0
"""How long a cancelled attempt may clean up before its thread goes on without it."""

_waited_for: dict[str, AwaitedCall] = {}
"""Attempts at work, by token."""
_left: WeakValueDictionary[str, Activity] = WeakValueDictionary()
"""What failed attempts have left at work, by token; forgotten when that has ended."""


class Cancelled(Exception):
    """The coroutine has ended by its cancellation."""

    def __init__(self) -> None:
        super().__init__("the coroutine was cancelled")


class AwaitedCall:
    """One awaitable on a loop, and the thread that waits for it."""

    def __init__(self, name: str, awaitable: Awaitable[Any], activity: Activity) -> None:
        self.name = name
        self.activity = activity
        self.is_lost = False
        self.is_overdue = False
        self._entered_at = 0.0
        self.displaced = ""
        """Why its loop was given up under it."""
        self.is_cancelled = False
        """Its cancellation has reached the loop."""
        self.stood = ""
        """The line of the user's code at which its cancellation found it."""
        self._awaitable = awaitable
        self._context = copy_context()
        self._task: asyncio.Task[Any] | None = None
        self._begun_on: AttemptLoop | None = None
        self._asked = False
        self._turned = threading.Event()
        """It has ended, or is to be waited for no longer."""
        self._lock = threading.Lock()
        self._future = activity.begin()
        self._future.add_done_callback(lambda _: self._turned.set())
        self.home = loop.home()
        self._lost_s = self.home.lost_s

    def begin(self) -> None:
        """Hand it to the loop; the caller's context variables go with it."""
        self.home.enter(self)
        while self.home.is_retired:  # since it was chosen: it may end at any moment
            before, self.home = self.home, loop.home()
            self.home.enter(self)
            before.leave(self)
        loop_watch.watch.look_after(self.home)
        self._send()

    def wait(self, timeout_s: float | None) -> None:
        """Until it has ended, is displaced or lost, or that time and the clean-up are over."""
        try:
            self.is_overdue = not self._turn(timeout_s)
        except Exception:  # a time limit of Celery's own
            self._clean_up()
            raise
        except BaseException:
            self.cancel()
            raise
        if not self._future.done():
            self._clean_up()

    def _turn(self, timeout_s: float | None) -> bool:
        """Wait for its end; False if its time, which begins when it is entered, is over."""
        ends_at = time.monotonic() + (timeout_s or 0.0) + loop_watch.watch.blocked_s
        wait_s = timeout_s
        while not self._turned.wait(wait_s):
            if self._entered_at:
                ends_at = self._entered_at + (timeout_s or 0.0)
            wait_s = ends_at - time.monotonic()
            if wait_s <= 0:
                return False
        return True

    def end(self) -> None:
        """Nobody waits for it any more."""
        self.home.leave(self)

    def lose(self) -> None:
        """Its lease is lost: cancel it, from any thread."""
        self.is_lost = True
        self.cancel()
        self._turned.set()

    def displace(self, why: str, *, move: bool) -> None:
        """Its loop is given up: go to a new one, if it has not been entered and ``move`` is set."""
        with self._lock:
            if self._future.done() or not self.home.is_retired:  # it has gone by itself
                return
            moves = move and not self.is_entered and not self._asked
            if moves:
                before, self.home = self.home, loop.home()
        if moves:
            self._lost_s = self.home.lost_s
            self.begin()
            before.leave(self)
        else:
            self.displaced = why
            self.cancel()
            self._turned.set()

    def cancel(self) -> None:
        """Cancel the coroutine, the first time that this is called; if need be, do not enter it."""
        with self._lock:
            if self._asked:
                return
            self._asked = True
            if not self.is_entered and not self._future.done():
                self._future.set_exception(Cancelled())
                self.is_cancelled = True
                _close(self._awaitable)
                return
        self.home.call(self._cancel)

    def blocked_by(self, timeout_s: float | None) -> str:
        """Who else has taken the time of this attempt; empty: nobody."""
        if not (self.is_cancelled and self.is_entered):
            now = loop_watch.blocked_by_another(self.home, self.activity)
            if now:
                return now
        lost_s = loop_watch.watch.lost_s(self.home, to_others_than=self.activity)
        eaten_s = lost_s - self._lost_s
        if timeout_s is not None and eaten_s >= timeout_s / 2:
            return loop_watch.told_of(None, eaten_s)
        return ""

    @property
    def is_entered(self) -> bool:
        """Whether its function has been entered."""
        return self._entered_at > 0

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

    def _send(self) -> None:
        home = self.home
        # A copy for each loop: the one before may be in its own at this very moment.
        home.call(self._start, home, context=self._context.copy())

    # ---- on the loop ----

    def _start(self, home: AttemptLoop) -> None:
        """Once on each loop: one that is given up while this is handed to it hands it on, too."""
        if home is self.home and home is not self._begun_on:
            self._begun_on = home
            task = asyncio.ensure_future(self._entered(home), loop=home.loop)
            task.add_done_callback(partial(self._settle, home))
            self._task = task

    async def _entered(self, home: AttemptLoop) -> Any:
        with self._lock:
            if home is not self.home or self._asked:
                raise Cancelled
            self._entered_at = time.monotonic()
        return await self._awaitable

    def _cancel(self) -> None:
        self.is_cancelled = True
        if self._task is not None:
            self.stood = suspended_at(self._task.get_coro())
            self._task.cancel()

    def _settle(self, home: AttemptLoop, task: asyncio.Task[Any]) -> None:
        error = Cancelled() if task.cancelled() else task.exception()
        with self._lock:
            if home is not self.home or self._future.done():
                return
        if error is not None:
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())
        home.ended(self.activity)


loop.tells(AwaitedCall._entered.__code__, lambda frame: frame.f_locals["self"].activity)


def await_attempt(
    name: str,
    awaitable: Awaitable[Any],
    *,
    token: str,
    timeout_s: float | None,
    used_s: float = 0.0,
    finish: Callable[[Any], str] = str,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """What the awaitable of a worker function gives, on the process's loop.

    ``used_s``: how much of its time-out is gone.  ``finish`` makes a result's JSON, should it come
    after the attempt was given up; ``about`` says whose attempt it is.  Raises what the function
    raised, StepTimeout, LeaseLost, LoopBlocked, or WorkerExecutionError for its own cancellation.
    """
    if loop.on_loop_thread():
        _close(awaitable)
        raise NotAllowed(
            f"worker {name!r} was run from another async worker, which would wait for itself; run"
            " it with asyncio.to_thread"
        )
    activity = Activity(name, token, finish=finish, about=about)
    before = current.set(activity)
    try:
        waiting = AwaitedCall(name, awaitable, activity)
    finally:
        current.reset(before)
    if token:
        _waited_for[token] = waiting
    try:
        waiting.begin()
        waiting.wait(None if timeout_s is None else max(0.0, timeout_s - used_s))
        return _judged(waiting, timeout_s)
    except BaseException:
        if activity.give_up() and token:
            _left[token] = activity
        raise
    finally:
        waiting.end()
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


def _judged(waiting: AwaitedCall, timeout_s: float | None) -> Any:
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
    if waiting.displaced:
        raise LoopBlocked(f"worker {name!r}: {waiting.displaced}", waiting.is_entered) from error
    if waiting.is_overdue and not waiting.is_entered:
        why = waiting.blocked_by(timeout_s) or loop_watch.told_of(None, timeout_s or 0.0)
        raise LoopBlocked(f"worker {name!r} was not entered: {why}", False) from error
    if waiting.is_overdue and (why := waiting.blocked_by(timeout_s)):
        raise LoopBlocked(f"worker {name!r} did not end in time: {why}", True) from error
    if waiting.is_overdue:
        left = waiting.activity.left()
        still = (f"and is still at work ({left})",) if left else ()
        raise StepTimeout.of(name, timeout_s, *still).standing_at(waiting.stood) from error
    raise WorkerExecutionError(f"worker {name!r} was cancelled from inside") from error


def _close(awaitable: Awaitable[Any]) -> None:
    if inspect.iscoroutine(awaitable):
        awaitable.close()
