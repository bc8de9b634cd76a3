"""What may Ctrl-C not cut in two?

A process that is started and not yet noted would be left behind by an exception in between.
`held_back` makes such lines one: the signal comes after them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait for the end of the block, which has to be short.

    What is ignored stays so, for a process that is started in the block too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread alone
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
