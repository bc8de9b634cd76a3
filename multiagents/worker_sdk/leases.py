"""Who keeps a running step alive, and who stops it?

One daemon thread per process renews the leases of all attempts that run in it, at a third of the
lease, and watches their time-outs.  A lease that cannot be renewed is lost: another attempt may
have begun, so the attempt is cancelled where that is possible, and its report changes nothing.

A time-out ends an ``async`` worker by cancellation (see `run`); a plain function under prefork
by first raising SoftTimeLimitExceeded in it.  What has not ended a moment later ends with its
process.  In the other pools nothing can end a thread: its attempt is given up, and what its
function returns in the end is a late report.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from multiagents.core.clock import Clock
from multiagents.core.ports import Assignment, Engine

GRACE_MS = 1500
"""How long a function may take to clean up after its soft time limit or its cancellation, which
`run` gives 1 s."""

log = structlog.get_logger(__name__)


class Cancel(Protocol):
    """Cancels the async attempt of a nonce; False for a plain function, or if it is over."""

    def __call__(self, token: str, /, *, overdue: bool = False) -> bool: ...


class LeaseKeeper:
    """Renews what this process has claimed.  Starts its thread with the first lease."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock,
        lease_ms: int,
        cancel: Cancel,
        on_timeout: Callable[[Assignment], None],
        can_kill: bool,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._lease_ms = lease_ms
        self._cancel = cancel
        self._on_timeout = on_timeout
        self._can_kill = can_kill
        self._held: dict[str, Assignment] = {}
        self._lost: set[str] = set()
        self._warned: set[str] = set()
        self._overdue: set[str] = set()
        self._renewed_ms = 0
        self._renewed: set[str] = set()
        self._failing = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, held: Assignment) -> None:
        """Keep this attempt's lease until `release`."""
        with self._lock:
            self._held[held.nonce] = held
            if self._thread is None:
                self._renewed_ms = self._clock.now_ms()
                self._thread = threading.Thread(
                    target=self._run, name="multiagents-leases", daemon=True
                )
                self._thread.start()
        if held.deadline_ms:
            self._wake.set()

    def release(self, held: Assignment) -> None:
        """The attempt is reported (or given up)."""
        with self._lock:
            self._held.pop(held.nonce, None)
            self._lost.discard(held.nonce)
            self._warned.discard(held.nonce)
            self._overdue.discard(held.nonce)

    def note(self, held: Assignment, field: str, value: Any) -> bool:
        """Store progress or a checkpoint now, renewing the lease; False if it is lost."""
        notes = {held.nonce: {f"{field}:{held.step}": json.dumps(value)}}
        if self._engine.renew([held], notes):
            self._lose(held)
            return False
        return True

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause_s())
            self._wake.clear()
            try:
                self._tick()
            except Exception as error:  # noqa: BLE001 - the thread must outlive a server's absence
                log.warning("cannot look after leases", error=type(error).__name__)

    def _pause_s(self) -> float:
        """Until the next renewal or time-out.

        As short with nothing held: what is held from now on may have to be renewed then.
        """
        with self._lock:
            deadlines = [
                held.deadline_ms
                for held in self._held.values()
                if held.deadline_ms and held.nonce not in self._overdue
            ]
        now_ms = self._clock.now_ms()
        wait_ms = self._lease_ms / (12 if self._failing else 3)
        for deadline_ms in deadlines:
            until = deadline_ms - now_ms
            wait_ms = min(wait_ms, until if until > 0 else GRACE_MS / 4)
        return max(0.02, wait_ms / 1000)

    def _tick(self) -> None:
        now_ms = self._clock.now_ms()
        with self._lock:
            held = list(self._held.values())
        for attempt in held:
            if attempt.deadline_ms and now_ms >= attempt.deadline_ms:
                self._time_out(attempt, grace_is_over=now_ms >= attempt.deadline_ms + GRACE_MS)
        if held and (self._failing or now_ms - self._renewed_ms >= self._lease_ms / 3):
            self._renew(held, now_ms)

    def _renew(self, held: list[Assignment], now_ms: int) -> None:
        """Renew all, and soon again after a failure: a short outage must not cost a lease (E9)."""
        try:
            lost = self._engine.renew(held, {})
        except Exception as error:  # noqa: BLE001 - the thread must outlive a server's absence
            if not self._failing:
                log.warning("leases not renewed, will go on trying", error=type(error).__name__)
            self._failing = True
            return
        if not self._failing:
            self._note_lateness(held, now_ms)
        self._failing = False
        self._renewed_ms = now_ms
        for attempt in lost:
            self._lose(attempt)

    def _note_lateness(self, held: list[Assignment], now_ms: int) -> None:
        """A function that holds the GIL for seconds keeps this thread from renewing (E9)."""
        late = now_ms - self._renewed_ms >= self._lease_ms * 2 / 3
        if late and any(attempt.nonce in self._renewed for attempt in held):
            log.warning("leases renewed late", by_ms=round(now_ms - self._renewed_ms))
            self._engine.count_late()
        self._renewed = {attempt.nonce for attempt in held}

    def _lose(self, attempt: Assignment) -> None:
        with self._lock:
            if attempt.nonce not in self._held or attempt.nonce in self._lost:
                return
            self._lost.add(attempt.nonce)
        log.warning("lease lost", saga=attempt.saga_id, step=attempt.step, attempt=attempt.attempt)
        self._cancel(attempt.nonce)

    def _time_out(self, attempt: Assignment, *, grace_is_over: bool) -> None:
        if attempt.nonce in self._overdue:
            return
        if attempt.nonce not in self._warned:
            if self._cancel(attempt.nonce, overdue=True) or self._interrupt(attempt):
                self._warned.add(attempt.nonce)
                return
        elif not grace_is_over:
            return
        self._on_timeout(attempt)
        self._overdue.add(attempt.nonce)
        if self._can_kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def _interrupt(self, attempt: Assignment) -> bool:
        """Raise SoftTimeLimitExceeded in the function, by the handler of billiard's children."""
        with self._lock:
            if not self._can_kill or attempt.nonce not in self._held:
                return self._can_kill
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            return True
