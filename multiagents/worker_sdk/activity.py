"""Which parts of an attempt still run, and how is their end reported after it has failed?

An `Activity` is an attempt's coroutine and the calls that it has given to threads, by
`asyncio.to_thread`, ``run_in_executor``, or as a plain tool.  A cancellation of the coroutine does
not stop a thread.  Calls that still run when an attempt fails are *left*.  The end of each of them
is reported, the coroutine's own last, because that one may bring the step's result.

A context variable holds the activity of the running code.  No Redis, no Celery.
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
"""The activity of the running code."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a call that was left running."""

    label: str
    part: int
    """The number of this ending within its attempt, from 1."""
    more: bool
    """Whether other parts of the attempt still run."""
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
        """The total time for which it has blocked its loop."""
        self._finish = finish
        self._function: Future[Any] = Future()
        self._open: dict[Future[Any], str] = {}
        self._parts = 0
        self._given_up = False
        self._tell: Tell | None = None
        self._lock = threading.Lock()
        self._telling = threading.Lock()

    def begin(self) -> Future[Any]:
        """Begin the coroutine; returns the future that takes its outcome."""
        self._add(self._function, "its function")
        return self._function

    def add(self, call: Future[Any], function: Any, args: tuple[Any, ...] = ()) -> None:
        """Note a call that the attempt has given to a thread."""
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
        """Wait for the end of all its calls.  Calls that no thread has begun are cancelled."""
        with self._lock:
            calls = list(self._open)
        for call in calls:
            if call is not self._function:
                call.cancel()
        wait(calls, seconds)

    def give_up(self) -> bool:
        """Note that the attempt has failed.  True if parts of it still run: see `leave`."""
        with self._lock:
            self._given_up = any(not call.done() for call in self._open)
            return self._given_up

    def left(self) -> str:
        """The labels of the running calls, for people."""
        with self._lock:
            return ", ".join(label for call, label in self._open.items() if not call.done())

    def leave(self, tell: Tell) -> None:
        """Call ``tell`` at the end of each call that still ran when the attempt was given up.

        ``tell`` may take long: it runs in the thread of the call, never on a loop.
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
        """The endings to report now: the function's end waits for that of its threads."""
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
    """The name of a thread's function, below the wrappers that carry its context."""
    while True:
        if isinstance(function, functools.partial):
            function, args = function.func, (*function.args, *args)
        elif getattr(function, "__name__", "") == "run" and args and callable(args[0]):
            function, args = args[0], args[1:]  # Context.run
        else:
            return str(getattr(function, "__qualname__", type(function).__name__))
