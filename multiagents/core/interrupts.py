"""Which code must Ctrl-C not interrupt?

An exception between the start of a process and its registration would leave the process behind.
`held_back` delays signals until the end of such lines.  Code with nothing to clean up may end at
once: `ending_at_once`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""The exit code that shells give a program that Ctrl-C ended."""

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and SIGHUP until the end of the block, which has to be short.

    An ignored signal stays ignored, also in a process that is started in the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run only in the main thread
        return
    came: list[signal.Signals] = []
    before = {
        number: signal.signal(number, lambda number, frame: came.append(signal.Signals(number)))
        for number in HELD
        if callable(signal.getsignal(number)) or signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end this process in the block: no traceback, exit code 130.

    For imports: an imported module may show or swallow an exception during its import.
    """
    if not end_at_once():
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_at_once() -> bool:
    """Let Ctrl-C end this process from now on; False if another handler, or none, is set."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))
    return True
