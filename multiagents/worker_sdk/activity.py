"""What of an attempt is at work, and is its end heard of after the attempt was given up?

An `Activity` is an attempt's coroutine and the calls which that has given to threads, by
`asyncio.to_thread`, ``run_in_executor``, or as a plain tool.  Cancelling the coroutine does not
stop a thread.  What is still at work when an attempt fails is *left*; the end of each call that was
left is told, the coroutine's own last, because it is the one that may bring the step's result.

A context variable says to which activity a call belongs.  No Redis, no Celery.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

current: ContextVar[Activity | None] = ContextVar("multiagents_activity", default=None)
"""Of the attempt that the running code belongs to."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of something that was left at work."""

    label: str
    part: int
    """Counts the endings of one attempt, from 1."""
    more: bool
    """Whether more of the attempt is still at work."""
    finish: Callable[[], str] | None = None
    """For the worker function itself: its result as JSON; raises what the function raised."""


Tell = Callable[[Ending], None]


class Activity:
    """The coroutine and the calls in threads of one attempt."""

    def __init__(
        self,
        name: str,
        token: str = "",
        *,
        finish: Callable[[Any], str] = str,
        about: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.token = token
        self.about = about
        """Its saga, step and attempt."""
        self.blocked_s = 0.0
        """For how long it has blocked its loop."""
        self._finish = finish
        self._function: Future[Any] = Future()
        self._open: dict[Future[Any], str] = {}
        self._parts = 0
        self._given_up = False
        self._tell: Tell | None = None
        self._lock = threading.Lock()
        self._telling = threading.Lock()

    def begin(self) -> Future[Any]:
        """Its coroutine begins: the future that is to be given its outcome."""
        self._add(self._function, "its function")
        return self._function

    def add(self, call: Future[Any], function: Any, args: tuple[Any, ...] = ()) -> None:
        """It has given a call to a thread."""
        self._add(call, _label(function, args))

    def _add(self, call: Future[Any], label: str) -> None:
        with self._lock:
            self._open[call] = label
            told = self._tell is not None
        call.add_done_callback(self._ended if told else self._forget)

    def _forget(self, call: Future[Any]) -> None:
        with self._lock:
            if not self._given_up:
                self._open.pop(call, None)

    def settle(self, seconds: float) -> None:
        """Wait for the end of all of it.  Calls that no thread has begun do not begin."""
        with self._lock:
            calls = list(self._open)
        for call in calls:
            if call is not self._function:
                call.cancel()
        wait(calls, seconds)

    def give_up(self) -> bool:
        """Its attempt has failed; whether anything of it is still at work: see `leave`."""
        with self._lock:
            self._given_up = any(not call.done() for call in self._open)
            return self._given_up

    def left(self) -> str:
        """What is at work, for people."""
        with self._lock:
            return ", ".join(label for call, label in self._open.items() if not call.done())

    def leave(self, tell: Tell) -> None:
        """``tell`` of the end of each call that was at work when it was given up.

        ``tell`` may take long: it is called in the thread of the call, never on a loop.
        """
        with self._lock:
            self._tell = tell
            calls = list(self._open)
        for call in calls:
            call.add_done_callback(self._ended)

    def _ended(self, call: Future[Any]) -> None:
        if call is self._function:  # on the loop, which must not wait
            threading.Thread(target=self._report, args=(call,), name="multiagents-late").start()
        else:
            self._report(call)

    def _report(self, call: Future[Any]) -> None:
        with self._telling:
            for ending in self._endings(call):
                if self._tell is not None:
                    self._tell(ending)

    def _endings(self, call: Future[Any]) -> list[Ending]:
        """What there is to tell now: the function's end waits for that of its threads."""
        with self._lock:
            label = self._open.get(call)
            if label is None:
                return []
            found = []
            if call is not self._function:
                del self._open[call]
                if not call.cancelled():
                    found.append(self._ending(label))
            if list(self._open) == [self._function] and self._function.done():
                del self._open[self._function]
                found.append(self._ending("its function", self._finished))
            return found

    def _ending(self, label: str, finish: Callable[[], str] | None = None) -> Ending:
        self._parts += 1
        return Ending(label, self._parts, bool(self._open), finish)

    def _finished(self) -> str:
        return self._finish(self._function.result())


def _label(function: Any, args: tuple[Any, ...]) -> str:
    """The name of what runs in a thread, below the layers that carry its context."""
    while True:
        if isinstance(function, functools.partial):
            function, args = function.func, (*function.args, *args)
        elif getattr(function, "__name__", "") == "run" and args and callable(args[0]):
            function, args = args[0], args[1:]  # Context.run
        else:
            return str(getattr(function, "__qualname__", type(function).__name__))
