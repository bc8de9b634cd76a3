"""On which event loop do ``async def`` workers run?

One per process, in a daemon thread, started on first use and kept: clients with connection pools
live as long as the process, as their authors expect.  A forked child starts its own; a loop does
not cross a fork.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from multiagents.worker_sdk.activity import current

_LOOKUPS = (socket.getaddrinfo, socket.getnameinfo)
"""Names of hosts are looked up in threads, too; that has no effect that anybody need hear of."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_parents: list[asyncio.AbstractEventLoop] = []
"""Loops from before a fork: kept, because collecting one would close what the parent still uses."""


def process_loop() -> asyncio.AbstractEventLoop:
    """The running loop of this process."""
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = _made()
            _thread = threading.Thread(
                target=_serve, args=(_loop,), name="multiagents-loop", daemon=True
            )
            _thread.start()
        return _loop


def on_loop_thread() -> bool:
    """Whether the caller is on the loop: waiting there for the loop would wait for ever."""
    return _thread is not None and threading.get_ident() == _thread.ident


def _made() -> asyncio.AbstractEventLoop:
    """A loop that notes which attempt has given a call to a thread, in whatever executor."""
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
        # As asyncio itself keeps it: a program may have set another one.
        default = getattr(loop, "_default_executor", None) or executor
        call = (given or default).submit(function, *args)
        activity.add(call, function, args)
        return asyncio.wrap_future(call, loop=loop)

    loop.run_in_executor = run_in_executor  # type: ignore[assignment]  # the loop is our own
    return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            # A task called sys.exit(): asyncio has stored it for whoever waits for that task,
            # and also lets it end the loop, with all the other workers' tasks on it.
            continue
        return


def _forget() -> None:
    global _lock, _loop, _thread
    if _loop is not None:
        _parents.append(_loop)
    _lock, _loop, _thread = threading.Lock(), None, None


os.register_at_fork(after_in_child=_forget)
