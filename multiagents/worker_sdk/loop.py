"""On which event loop do ``async def`` workers run?

One per process, in a daemon thread, started at first use and kept.  So clients with connection
pools live as long as the process, as their authors expect.  A forked child starts its own, since a
loop does not survive a fork.

An `AttemptLoop` is a loop with its thread and its attempts.  A loop that a blocking call keeps for
too long is retired (see `loop_watch`), and the next attempt gets a new one.  A retired loop ends
with its last attempt.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from asyncio.events import Handle
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from types import CodeType, FrameType
from typing import Any, Protocol

from multiagents.worker_sdk.activity import Activity, current

_LOOKUPS = (socket.getaddrinfo, socket.getnameinfo)
"""Look-ups of host names also run in threads, but have no effect to report."""
Whose = Callable[[FrameType], Activity | None]

_whose: dict[CodeType, Whose] = {
    Handle._run.__code__: lambda frame: frame.f_locals["self"]._context.get(current)
}
"""The code by which a loop enters a callback, and a function that finds its attempt."""


class LoopAttempt(Protocol):
    """An attempt on a loop."""

    activity: Activity
    home: AttemptLoop

    @property
    def is_entered(self) -> bool:
        """Whether its function has been entered."""

    @property
    def has_ended(self) -> bool:
        """Whether its outcome is known."""


class AttemptLoop:
    """A loop, its thread, and the attempts on it."""

    def __init__(self) -> None:
        self.loop = _made()
        self.attempts: set[Any] = set()
        """The attempts for which a thread waits."""
        self.left: set[Activity] = set()
        """The activities that were given up and still run."""
        self.lost_s = 0.0
        """The total time for which the loop did not answer."""
        self.is_retired = False
        self._greenlet: Any = None
        """Its thread's greenlet, where threads are greenlets (gevent, eventlet)."""
        self._thread = threading.Thread(target=self._serve, name="multiagents-loop", daemon=True)
        self._thread.start()

    def enter(self, attempt: LoopAttempt) -> None:
        """Add an attempt for which a thread waits."""
        self.attempts.add(attempt)

    def leave(self, attempt: LoopAttempt) -> None:
        """End the wait for an attempt, whose coroutine may still run."""
        if attempt.is_entered and attempt.home is self:
            self.left.add(attempt.activity)
            if attempt.has_ended:
                self.left.discard(attempt.activity)
        self.attempts.discard(attempt)
        self._end_if_over()

    def ended(self, activity: Activity) -> None:
        """Note the end of a coroutine."""
        self.left.discard(activity)
        self._end_if_over()

    def retire(self) -> None:
        """Let a new loop take its place."""
        global _home
        with _lock:
            self.is_retired = True
            if _home is self:
                _home = None
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self.is_retired and not self.attempts and not self.left:
            self.call(self.loop.stop)

    def call(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> None:
        """Make the loop call this soon; a closed loop calls nothing."""
        try:
            self.loop.call_soon_threadsafe(callback, *args, context=context)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def frame(self) -> FrameType | None:
        """The present frame of its thread."""
        if self._greenlet is not None:
            found: FrameType | None = self._greenlet.gr_frame
            return found
        return frames().get(self._thread.ident or 0)

    @property
    def is_greenlet(self) -> bool:
        """Whether its thread is a greenlet; asyncio runs no second loop beside it."""
        return self._greenlet is not None

    def running(self) -> Activity | None:
        """The attempt whose code runs on it now, if it can be found."""
        frame = self.frame()
        while frame is not None:
            whose = _whose.get(frame.f_code)
            if whose is not None:
                return whose(frame)
            frame = frame.f_back
        return None

    def _serve(self) -> None:
        _here.home = self
        self._greenlet = _own_greenlet()
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                # A task called sys.exit().  asyncio has stored that for the task's waiter, and
                # also lets it end the loop, with all the other workers' tasks on it.
                continue
            break
        _wind_up(self.loop)


class _Here(threading.local):
    """The loop that this thread runs, if any."""

    home: AttemptLoop | None = None


_here = _Here()
_lock = threading.Lock()
_home: AttemptLoop | None = None
_parents: list[AttemptLoop] = []
"""Loops from before a fork; a collected one would close resources that the parent still uses."""


def home() -> AttemptLoop:
    """The loop of this process, running."""
    global _home
    with _lock:
        if _home is None:
            _home = AttemptLoop()
        return _home


def register_code(code: CodeType, whose: Whose) -> None:
    """Register code whose frame shows the attempt that runs it, on any kind of loop."""
    _whose[code] = whose


def process_loop() -> asyncio.AbstractEventLoop:
    """The running loop of this process."""
    return home().loop


def on_loop_thread() -> bool:
    """Whether the caller is on a worker loop, where a wait for the loop would never end."""
    return _here.home is not None


def _made() -> asyncio.AbstractEventLoop:
    """A loop that notes the attempt of each call given to a thread, in any executor."""
    loop = asyncio.new_event_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    original = loop.run_in_executor

    def run_in_executor(
        given: Executor | None, function: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        activity = current.get()
        if activity is None or function in _LOOKUPS:
            return original(given, function, *args)
        # asyncio's own attribute, because a program may have set another executor.
        default = getattr(loop, "_default_executor", None) or executor
        call = (given or default).submit(function, *args)
        activity.add(call, function, args)
        return asyncio.wrap_future(call, loop=loop)

    loop.run_in_executor = run_in_executor  # type: ignore[assignment]  # the loop is our own
    return loop


def _own_greenlet() -> Any:
    """The greenlet of this thread; None in a thread of the operating system."""
    greenlet: Any = sys.modules.get("greenlet")
    found = greenlet and greenlet.getcurrent()
    return found if found and found.parent is not None else None


def frames() -> dict[int, FrameType]:
    """The present frame of each thread.

    Python holds a lock meanwhile, and other threads may wait for it with the GIL.  If a garbage
    collection ran code there that releases the GIL, the whole process would stop (gh-106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collects:
            gc.enable()


def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    """End a retired loop as `asyncio.run` does, and cancel the tasks left on it."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _forget() -> None:
    global _lock, _home, _here
    if _home is not None:
        _parents.append(_home)
    _lock, _home, _here = threading.Lock(), None, _Here()


os.register_at_fork(after_in_child=_forget)
