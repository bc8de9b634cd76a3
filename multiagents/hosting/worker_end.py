"""What is said of a worker that ends?

Between the signal to end warm and the end of its last task it takes nothing more: others see it as
stopping, with how many tasks it is still at.  Then it says that it has ended.  One daemon thread
does both, because the worker's main thread waits for its pool meanwhile.  A worker that cannot say
it, being killed or without its server, is known by its silence.  In a program that hosts a worker,
an error may end the worker's thread before its end is told of: that is seen here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from multiagents.core.effects import Flow
from multiagents.storage.client import UNREACHABLE, Edge, StoreError

SAID_S = 2.0
"""How often it is said: a person who looks sees the number go down."""
JOIN_S = 2.0
"""The longest wait for what is being said at the end; an answer takes a second at most."""

log = structlog.get_logger(__name__)

Say = Callable[[], Flow[None]]


class Leaving:
    """Says that a worker is stopping, again and again, and that it has ended."""

    def __init__(self, edge: Edge, *, announce: Say, retire: Say, pause_s: float = SAID_S) -> None:
        self._pause_s = pause_s
        self._edge = edge
        self._announce = announce
        self._retire = retire
        self._over = threading.Event()
        self._worker = threading.main_thread()
        self._thread = threading.Thread(target=self._run, name="multiagents-leaving", daemon=True)

    def begin(self) -> None:
        """It is stopping; called in the worker's own thread."""
        self._worker = threading.current_thread()
        self._thread.start()

    def end(self) -> None:
        """It has ended; a second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._say(self._retire)

    def _run(self) -> None:
        while not self._over.is_set():
            self._say(self._announce)
            if not self._over.wait(self._pause_s) and not self._worker.is_alive():
                self._over.set()
                self._say(self._retire)

    def _say(self, what: Say) -> None:
        try:
            self._edge.run(what())
        except (*UNREACHABLE, StoreError) as error:  # then its silence says it
            log.debug("cannot tell others of a worker's end", error=type(error).__name__)
