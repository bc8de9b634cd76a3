"""How does a worker announce its end?

After the signal for a warm shutdown a worker takes no more work.  It announces itself as stopping,
with the number of its running tasks, until the last one ends; then it withdraws.  One daemon thread
does both, because the worker's main thread waits for the pool.  A worker that is killed, or has no
server, is known by its missing heartbeat.  In a program that hosts a worker, an error may end the
worker's thread first; the thread here sees that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from multiagents.core.effects import Flow
from multiagents.storage.client import UNREACHABLE, Edge, StoreError

SAID_S = 2.0
"""The time between two announcements, in which an operator sees the number fall."""
JOIN_S = 2.0
"""The longest wait for a running announcement at the end; an answer takes a second at most."""

log = structlog.get_logger(__name__)

Say = Callable[[], Flow[None]]


class Leaving:
    """Announces repeatedly that a worker is stopping, and then that it has ended."""

    def __init__(self, edge: Edge, *, announce: Say, retire: Say, pause_s: float = SAID_S) -> None:
        self._pause_s = pause_s
        self._edge = edge
        self._announce = announce
        self._retire = retire
        self._over = threading.Event()
        self._worker = threading.main_thread()
        self._thread = threading.Thread(target=self._run, name="multiagents-leaving", daemon=True)

    def begin(self) -> None:
        """Announce the stop from now on; called in the worker's own thread."""
        self._worker = threading.current_thread()
        self._thread.start()

    def end(self) -> None:
        """Withdraw the worker; a second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)
        self._announce_safely(self._retire)

    def _run(self) -> None:
        while not self._over.is_set():
            self._announce_safely(self._announce)
            if not self._over.wait(self._pause_s) and not self._worker.is_alive():
                self._over.set()
                self._announce_safely(self._retire)

    def _announce_safely(self, what: Say) -> None:
        try:
            self._edge.run(what())
        except (*UNREACHABLE, StoreError) as error:  # then its missing heartbeat shows it
            log.debug("cannot announce a worker's end", error=type(error).__name__)
