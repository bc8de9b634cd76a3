"""On which event loop do ``async def`` workers run?

One per process, in a daemon thread, started on first use and kept: clients with connection pools
live as long as the process, as their authors expect.  A forked child starts its own; a loop does
not cross a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

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
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(
                target=_serve, args=(_loop,), name="multiagents-loop", daemon=True
            )
            _thread.start()
        return _loop


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the process's loop; the caller's context variables go with it."""
    return asyncio.run_coroutine_threadsafe(coroutine, process_loop())


def on_loop_thread() -> bool:
    """Whether the caller is on the loop: waiting there for the loop would wait for ever."""
    return _thread is not None and threading.get_ident() == _thread.ident


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
