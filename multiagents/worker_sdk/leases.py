"""How are the leases of running attempts renewed, and their timeouts enforced?

One daemon thread per process renews the leases of all its attempts, at a third of the lease, and
watches their timeouts.  A lease that cannot be renewed is lost: another attempt may have begun.  So
the attempt is cancelled if that is possible, and its report changes nothing.  If its function has
ended, the lease does not count as lost: the attempt's own report ends the lease too.

The timeout of an ``async`` worker is kept by its waiting thread (see `async_attempts`).  In a plain
function under prefork SoftTimeLimitExceeded is raised; if it has not ended a moment later, its
process is killed.  In other pools no thread can be ended: the attempt is given up, and the
function's later result is a late report.  A function that has ended in time is not interrupted,
however long its report takes.  Its lease is renewed until the report is stored.

No lease is renewed for work that no longer runs.  The lease of a thread that is gone, or that has
begun another attempt, is released here.

A failure of one attempt concerns that one alone: the other leases are renewed all the same.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import structlog

from multiagents.core.clock import Clock
from multiagents.core.places import standing_at
from multiagents.core.ports import Assignment, Engine
from multiagents.worker_sdk.control import SoftTimeLimitExceeded
from multiagents.worker_sdk.loop import frames
from multiagents.worker_sdk.notes import Notes, Persist, Renew, once

PROGRESS = "p"
GRACE_MS = 1500
"""The time for a plain function to clean up after its soft time limit."""

log = structlog.get_logger(__name__)


class Holder(Protocol):
    """The thread that does the work of a lease."""

    def is_alive(self) -> bool:
        """Whether the thread may still run."""


@dataclass(slots=True, eq=False)
class _Lease:
    """The lease of one attempt, and the state of its timeout."""

    held: Assignment
    holder: Holder
    is_lost: bool = False
    is_interrupted: bool = False
    """Its soft time limit has passed: SoftTimeLimitExceeded is raised in its function."""
    is_overdue: bool = False
    """Its timeout is reported: the attempt is given up."""
    has_ended: bool = False
    """Its function has returned or raised."""
    kept_ms: int | None = None
    """The last time at which async code kept its timeout."""
    failed_reports: int = 0
    """Of its timeout."""

    @property
    def is_open(self) -> bool:
        """Whether its function runs, and is not given up."""
        return not (self.has_ended or self.is_overdue)


class LeaseKeeper:
    """Renews the leases of this process.  Starts its thread with the first lease."""

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock,
        lease_ms: int,
        cancel: Callable[[str], bool],
        on_timeout: Callable[[Assignment, str], None],
        can_kill: bool,
        keeps_time: Callable[[str], bool] = lambda token: False,
        keep_time: Callable[[bool], None] = lambda only_if_set: None,
        soon: Renew | None = None,
        persist: Persist = once,
    ) -> None:
        """``on_timeout`` gets the attempt's present line of the user's code, or "".

        ``soon``: the engine's `renew` without retries.  ``persist``: `report_retry.persist`."""
        self._engine = engine
        self._clock = clock
        self._lease_ms = lease_ms
        self._cancel = cancel
        self._on_timeout = on_timeout
        self._can_kill = can_kill
        self._keeps_time = keeps_time
        self._keep_time = keep_time
        self._timeless = False
        self._leases: dict[str, _Lease] = {}
        """By nonce."""
        self._work_of: dict[Holder, str] = {}
        self._interrupted = ""
        self._previous: Any = None
        self._renewed_ms = 0
        self._renewed: set[str] = set()
        self._failing = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._notes = Notes(
            engine.renew,
            soon=soon or engine.renew,
            clock=clock,
            persist=persist,
            is_away=lambda: self._failing,
        )

    def hold(self, held: Assignment, *, by: Holder | None = None) -> None:
        """Renew this attempt's lease until `release`, or until the thread that holds it is gone.

        ``by``: the calling thread, which does one attempt at a time.
        """
        holder = by or threading.current_thread()
        before = self._work_of.get(holder)
        if before is not None:
            self._abandon(before, "its thread has begun another")
        with self._lock:
            self._leases[held.nonce] = _Lease(held, holder)
            self._work_of[holder] = held.nonce
            if self._thread is None:
                self._begin()
        if held.deadline_ms:
            self._wake.set()

    def _begin(self) -> None:
        self._listen()
        self._renewed_ms = self._clock.now_ms()
        self._thread = threading.Thread(target=self._run, name="multiagents-leases", daemon=True)
        self._thread.start()

    def ended(self, held: Assignment) -> None:
        """Note that the function has returned or raised: its timeout no longer applies.

        Called in the function's own thread; a later signal is ignored.  The report may take long.
        """
        with self._lock:
            if (lease := self._leases.get(held.nonce)) is not None:
                lease.has_ended = True

    def release(self, held: Assignment) -> None:
        """End the renewals of an attempt that is reported or given up."""
        with self._lock:
            lease = self._leases.pop(held.nonce, None)
            if lease is not None and self._work_of.get(lease.holder) == held.nonce:
                del self._work_of[lease.holder]
        self._notes.forget(held.nonce)

    def note(self, held: Assignment, field: str, value: Any) -> bool:
        """Store progress (``p``) or a checkpoint (``k``); False if the lease is lost: see `Notes`.

        Raises StepTimeout for a checkpoint that has waited for its server until the timeout.
        """
        kept = bool(self._notes)
        store = self._notes.progress if field == PROGRESS else self._notes.checkpoint
        stands = store(held, {f"{field}:{held.step}": json.dumps(value)})
        if not stands:
            self._lose(held)
        if self._notes and not kept:
            self._wake.set()
        return stands

    def flush(self, held: Assignment) -> None:
        """Send an attempt's unsent notes, before its report.  Raises the store's error."""
        self._notes.flush(held)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause_s())
            self._wake.clear()
            try:
                self._tick()
            except Exception as error:  # noqa: BLE001 - the thread must survive an outage
                log.warning("cannot renew leases", error=type(error).__name__)

    def _pause_s(self) -> float:
        """The seconds until the next renewal or timeout.

        It is as short without any lease, since a lease held meanwhile may need renewal by then.
        """
        with self._lock:
            leases = [each for each in self._leases.values() if self._is_timed(each)]
        now_ms = self._clock.now_ms()
        wait_ms = self._lease_ms / (12 if self._failing or self._notes else 3)
        for lease in leases:
            until = lease.held.deadline_ms - now_ms
            wait_ms = min(wait_ms, until if until > 0 else GRACE_MS / 4)
        return max(0.02, wait_ms / 1000)

    def _tick(self) -> None:
        if not self._failing:  # else the renewals come first
            self._correct(only_if_set=True)
        self._look_for_the_gone()
        now_ms = self._clock.now_ms()
        with self._lock:
            leases = list(self._leases.values())
        held = [each.held for each in leases]
        timed = [each for each in leases if self._is_timed(each)]
        since_ms = now_ms - self._renewed_ms  # negative if the clock was set back
        if held and (self._failing or not 0 <= since_ms < self._lease_ms / 3):
            self._renew(held, now_ms)
        if not self._failing:  # after the renewals, since a new connection takes time
            self._notes.send()
            self._correct()
        overdue = [each for each in timed if now_ms >= each.held.deadline_ms]
        # Leases with the fewest failures first; the first failure ends this round.
        for lease in sorted(overdue, key=lambda each: each.failed_reports):
            if not self._has_timed_out(lease, now_ms):
                break

    def _look_for_the_gone(self) -> None:
        """Release the leases of threads that no longer run."""
        with self._lock:
            gone = [key for key, each in self._leases.items() if not each.holder.is_alive()]
        for nonce in gone:
            self._abandon(nonce, "its thread is gone")

    def _abandon(self, nonce: str, why: str) -> None:
        with self._lock:
            lease = self._leases.get(nonce)
        if lease is not None:
            log.error("a lease is no longer renewed", why=why, **_of(lease.held))
            self.release(lease.held)

    def _correct(self, *, only_if_set: bool = False) -> None:
        """Correct the clock: leases end by the server's, even if the host's is set (E9)."""
        try:
            self._keep_time(only_if_set)
        except Exception as error:  # noqa: BLE001 - the thread must survive an outage
            if not self._timeless:
                log.warning("clock not corrected, will go on trying", error=type(error).__name__)
            self._timeless = True
        else:
            if not only_if_set:  # that mostly makes no call to the server
                self._timeless = False

    def _is_timed(self, lease: _Lease) -> bool:
        """Whether its timeout applies: it is held, and its function runs."""
        is_held = self._leases.get(lease.held.nonce) is lease
        return is_held and lease.is_open and bool(lease.held.deadline_ms)

    def _renew(self, held: list[Assignment], now_ms: int) -> None:
        """Renew all; a failure is retried soon, so that a short outage costs no lease (E9)."""
        try:
            lost = self._engine.renew(held, {})
        except Exception as error:  # noqa: BLE001 - the thread must survive an outage
            if not self._failing:
                log.warning("leases not renewed; retrying", error=type(error).__name__)
            self._failing = True
            return
        late_ms = 0 if self._failing else self._lateness_ms(held, now_ms)
        self._failing = False
        self._renewed_ms = now_ms
        self._renewed = {attempt.nonce for attempt in held}
        for attempt in lost:
            self._lose(attempt)
        if late_ms:
            log.warning("leases renewed late", by_ms=late_ms)
            self._engine.count_late()

    def _lateness_ms(self, held: list[Assignment], now_ms: int) -> int:
        """How late the renewals are; a function that holds the GIL delays this thread (E9)."""
        since_ms = now_ms - self._renewed_ms
        late = since_ms >= self._lease_ms * 2 / 3
        return since_ms if late and any(each.nonce in self._renewed for each in held) else 0

    def _lose(self, attempt: Assignment) -> None:
        """Cancel it, once; not if it has ended or was given up, since its report ends the lease."""
        with self._lock:
            lease = self._leases.get(attempt.nonce)
            if lease is None or not lease.is_open or lease.is_lost:
                return
            lease.is_lost = True
        log.warning("lease lost", **_of(attempt))
        self._cancel(attempt.nonce)

    def _has_timed_out(self, lease: _Lease, now_ms: int) -> bool:
        """Report a timeout; False if that failed, which is logged once and retried."""
        try:
            self._time_out(lease, grace_is_over=now_ms >= lease.held.deadline_ms + GRACE_MS)
        except Exception as error:  # noqa: BLE001 - other attempts need this thread
            if not lease.failed_reports:
                what = {"error": type(error).__name__, **_of(lease.held)}
                log.warning("a timeout is not reported, will go on trying", **what)
            lease.failed_reports += 1
            return False
        return True

    def _time_out(self, lease: _Lease, *, grace_is_over: bool) -> None:
        if self._is_kept_elsewhere(lease):
            return
        if not lease.is_interrupted:
            if self._interrupt(lease):
                lease.is_interrupted = True
                return
        elif not grace_is_over:
            return
        with self._lock:
            if not self._is_timed(lease):
                return  # it has ended meanwhile, and its own report follows
        self._on_timeout(lease.held, _stands_at(lease.holder))
        lease.is_overdue = True
        if self._can_kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def _is_kept_elsewhere(self, lease: _Lease) -> bool:
        """Whether async code keeps its timeout, or did just now: its result is being checked."""
        now_ms = self._clock.now_ms()
        if self._keeps_time(lease.held.nonce):
            lease.kept_ms = now_ms
            return True
        return lease.kept_ms is not None and now_ms - lease.kept_ms < GRACE_MS

    def _interrupt(self, lease: _Lease) -> bool:
        """Raise SoftTimeLimitExceeded in the function, by a signal to its thread."""
        with self._lock:
            if not self._can_kill or not self._is_timed(lease):
                return self._can_kill
            self._interrupted = lease.held.nonce
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            return True

    def _listen(self) -> None:
        """Handle the signal of billiard's children, whose own handler cannot tell its purpose."""
        if self._can_kill:
            self._previous = signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Raise in the function's thread, which may hold the lock; pass on Celery's own limits.

        The function may have ended since the signal was sent; its report must not be interrupted.
        """
        nonce, self._interrupted = self._interrupted, ""
        if not nonce:
            self._previous(number, frame)
        elif (lease := self._leases.get(nonce)) is not None and not lease.has_ended:
            raise SoftTimeLimitExceeded


def _stands_at(holder: Holder) -> str:
    ident = getattr(holder, "ident", None)
    return "" if ident is None else standing_at(frames().get(ident))


def _of(held: Assignment) -> dict[str, Any]:
    """The fields of a step's log line; this thread is not the step's own."""
    return {
        "saga": held.saga_id,
        "workflow": held.workflow,
        "step": held.step,
        "attempt": held.attempt,
    }
