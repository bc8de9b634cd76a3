"""How does a thread wait for an ``async`` attempt, cancel it, and give it up?

Only the waiting thread keeps the attempt's time.  It cancels the coroutine once, after the timeout
or the loss of the lease, and gives the whole attempt a second to clean up.  So the next attempt, or
the undo, begins after the clean-up, or after that second.  Calls that still run then are left (see
`activity`); `taken` gives access to them.

A value that the function returns within that second counts; so does an error of its own.

Time that another attempt took by blocking the loop does not count against this one.  It was not
entered, or could not continue, and ends as `LoopBlocked`, which does not count as a try.
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
"""The time for a cancelled attempt to clean up before its thread continues without it."""

_waited_for: dict[str, AwaitedCall] = {}
"""Running attempts, by token."""
_left: WeakValueDictionary[str, Activity] = WeakValueDictionary()
"""Running calls of failed attempts, by token; forgotten at their end."""


class Cancelled(Exception):
    """The coroutine ended by its cancellation."""

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
        """The reason why its loop was retired; empty: it was not."""
        self.is_cancelled = False
        """Its cancellation has reached the loop."""
        self.stood = ""
        """The line of the user's code that its cancellation interrupted."""
        self._awaitable = awaitable
        self._context = copy_context()
        self._task: asyncio.Task[Any] | None = None
        self._begun_on: AttemptLoop | None = None
        self._asked = False
        self._turned = threading.Event()
        """Set when it has ended, or when the wait for it is over."""
        self._lock = threading.Lock()
        self._future = activity.begin()
        self._future.add_done_callback(lambda _: self._turned.set())
        self.home = loop.home()
        self._lost_s = self.home.lost_s

    def begin(self) -> None:
        """Hand it to the loop, with the caller's context variables."""
        self.home.enter(self)
        while self.home.is_retired:  # since the choice; it may end at any moment
            before, self.home = self.home, loop.home()
            self.home.enter(self)
            before.leave(self)
        loop_watch.watch.look_after(self.home)
        self._send()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until it has ended, is displaced or lost, or its time and clean-up are over."""
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
        """Wait for its end; False if its time is over, which begins at its entry."""
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
        """End the wait for it."""
        self.home.leave(self)

    def lose(self) -> None:
        """Cancel it because its lease is lost; from any thread."""
        self.is_lost = True
        self.cancel()
        self._turned.set()

    def displace(self, why: str, *, move: bool) -> None:
        """Leave a retired loop: for a new one if ``move`` is set and it was not entered."""
        with self._lock:
            if self._future.done() or not self.home.is_retired:  # it has moved already
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
        """Cancel the coroutine, once; one that was not entered never will be."""
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
        """The attempt that took this one's time, for people; empty if there is none."""
        if not (self.is_cancelled and self.is_entered):
            now = loop_watch.blocked_by_another(self.home, self.activity)
            if now:
                return now
        lost_s = loop_watch.watch.lost_s(self.home, to_others_than=self.activity)
        eaten_s = lost_s - self._lost_s
        if timeout_s is not None and eaten_s >= timeout_s / 2:
            return loop_watch.blockage_by(None, eaten_s)
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
        # A copy for each loop, since the earlier loop may be running in its own.
        home.call(self._start, home, context=self._context.copy())

    # ---- on the loop ----

    def _start(self, home: AttemptLoop) -> None:
        """Start it once on each loop; a loop retired meanwhile may call this too."""
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


loop.register_code(AwaitedCall._entered.__code__, lambda frame: frame.f_locals["self"].activity)


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
    """The result of a worker function's awaitable, run on the process's loop.

    ``used_s``: the spent part of its timeout.  ``finish`` makes the JSON of a result that comes
    after the attempt was given up; ``about`` holds its saga, step and attempt.  Raises the
    function's error, StepTimeout, LeaseLost, LoopBlocked, or WorkerExecutionError if it was
    cancelled from inside.
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
    """Cancel the async attempt of that token; False if none runs (a plain function, or ended).

    The coroutine gets asyncio's CancelledError.  Its `await_attempt` raises LeaseLost after the
    clean-up, or after its second.
    """
    waiting = _waited_for.get(token)
    if waiting is None:
        return False
    waiting.lose()
    return True


def keeps_time(token: str) -> bool:
    """Whether the timeout of that token's attempt is kept here."""
    return token in _waited_for


def taken(token: str) -> Activity | None:
    """The running calls of that token's failed attempt; given out once."""
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
        why = waiting.blocked_by(timeout_s) or loop_watch.blockage_by(None, timeout_s or 0.0)
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
