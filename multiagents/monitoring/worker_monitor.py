"""How well does each worker do?

Totals count from the making of the monitor; durations, errors and health cover the newest
attempts.  The caller measures durations.  The monitor sees its own process only.  Thread-safe.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from enum import StrEnum
from typing import Any, TypedDict

from multiagents.core.clock import Clock, SystemClock
from multiagents.event_bus.logger import structured
from multiagents.monitoring.samples import Samples, Summary

RECENT = 50
"""Health is judged by this many of the newest attempts ..."""
RECENT_S = 900.0
"""... that are not older than this, so that an outage of yesterday does not count."""
DEGRADED_RATE = 0.1
UNHEALTHY_RATE = 0.5
UNHEALTHY_MIN = 3
"""One failure alone does not condemn a worker."""
HEALTH_CHECK_INTERVAL_S = 30.0
MAX_ERROR_TYPES = 50
OTHER = "other"


class Health(StrEnum):
    """How a worker's newest attempts went."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    """No attempt ended lately."""


class WorkerStats(TypedDict):
    """One worker's numbers; rates are 0 to 1 and None before the first attempt has ended."""

    worker_name: str
    started: int
    in_progress: int
    succeeded: int
    failed: int
    success_rate: float | None
    failure_rate: float | None
    recent_failure_rate: float | None
    duration_s: Summary
    health: str
    errors: dict[str, int]
    last_error: str | None


class _Record:
    """What is known of one worker."""

    def __init__(self) -> None:
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.in_progress = 0
        self.durations_s = Samples()
        self.recent: deque[tuple[int, bool]] = deque(maxlen=RECENT)
        self.errors: Counter[str] = Counter()
        self.last_error: str | None = None
        self.health = Health.UNKNOWN
        self.checked_ms: int | None = None

    def end(self, now_ms: int, duration_s: float, *, ok: bool) -> None:
        self.in_progress = max(0, self.in_progress - 1)  # an end may be reported without its start
        self.durations_s.add(duration_s)
        self.recent.append((now_ms, ok))
        if ok:
            self.succeeded += 1
        else:
            self.failed += 1

    def count_error(self, name: str) -> None:
        self.last_error = name
        known = name in self.errors or len(self.errors) < MAX_ERROR_TYPES
        self.errors[name if known else OTHER] += 1

    def lately(self, now_ms: int) -> list[bool]:
        return [ok for at_ms, ok in self.recent if now_ms - at_ms <= RECENT_S * 1000]

    def stats(self, name: str, now_ms: int) -> WorkerStats:
        ended, lately = self.succeeded + self.failed, self.lately(now_ms)
        return {
            "worker_name": name,
            "started": self.started,
            "in_progress": self.in_progress,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "success_rate": self.succeeded / ended if ended else None,
            "failure_rate": self.failed / ended if ended else None,
            "recent_failure_rate": lately.count(False) / len(lately) if lately else None,
            "duration_s": self.durations_s.summary(),
            "health": judge(lately).value,
            "errors": dict(self.errors.most_common()),
            "last_error": self.last_error,
        }


class WorkerMonitor:
    """Counts the attempts of workers; give it to a `WorkerManager` as ``worker_monitor``.

    A change of a worker's health is logged, checked at most every ``health_check_interval_s``.
    """

    def __init__(
        self,
        logger: Any = None,
        *,
        health_check_interval_s: float = HEALTH_CHECK_INTERVAL_S,
        clock: Clock | None = None,
    ) -> None:
        self._logger = structured(logger, "multiagents.monitoring")
        self._interval_ms = health_check_interval_s * 1000
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}

    def record_start(self, worker_name: str, **fields: Any) -> None:
        """An attempt begins; ``fields`` (ids, never contexts) go to the log line only."""
        with self._lock:
            record = self._record(worker_name)
            record.started += 1
            record.in_progress += 1
        self._logger.debug("worker started", worker_name=worker_name, **fields)

    def record_success(self, worker_name: str, duration_s: float, **fields: Any) -> None:
        """An attempt returned after ``duration_s``."""
        now_ms = self._clock.now_ms()
        with self._lock:
            record = self._record(worker_name)
            record.end(now_ms, duration_s, ok=True)
            change = self._check(record, now_ms)
        self._logger.debug(
            "worker succeeded", worker_name=worker_name, duration_s=duration_s, **fields
        )
        self._tell(worker_name, change)

    def record_failure(
        self, worker_name: str, error: BaseException | str, duration_s: float, **fields: Any
    ) -> None:
        """An attempt failed after ``duration_s``.

        Of the error only the type is kept and logged: messages hold data.  A string counts as
        its leading name (``"KeyError: 'x'"``), else as ``Error``.
        """
        now_ms, name = self._clock.now_ms(), _error_name(error)
        with self._lock:
            record = self._record(worker_name)
            record.end(now_ms, duration_s, ok=False)
            record.count_error(name)
            change = self._check(record, now_ms)
        self._logger.warning(
            "worker failed", worker_name=worker_name, error=name, duration_s=duration_s, **fields
        )
        self._tell(worker_name, change)

    def get_worker_stats(self, worker_name: str) -> WorkerStats:
        """The worker's numbers; zeros and ``unknown`` for one that has not been seen."""
        with self._lock:
            record = self._records.get(worker_name) or _Record()
            return record.stats(worker_name, self._clock.now_ms())

    def get_all_stats(self) -> dict[str, WorkerStats]:
        """The numbers of every worker that has been seen, by name."""
        now_ms = self._clock.now_ms()
        with self._lock:
            return {name: record.stats(name, now_ms) for name, record in self._records.items()}

    def _record(self, worker_name: str) -> _Record:
        return self._records.setdefault(worker_name, _Record())

    def _check(self, record: _Record, now_ms: int) -> tuple[Health, Health] | None:
        """The change of health that is to be logged, if it is time to look and there is one."""
        if record.checked_ms is not None and now_ms - record.checked_ms < self._interval_ms:
            return None
        record.checked_ms = now_ms
        before, record.health = record.health, judge(record.lately(now_ms))
        return None if before is record.health else (before, record.health)

    def _tell(self, worker_name: str, change: tuple[Health, Health] | None) -> None:
        if change is None:
            return
        before, after = change
        say = self._logger.info if after is Health.HEALTHY else self._logger.warning
        say("worker health", worker_name=worker_name, health=after.value, before=before.value)


def judge(lately: list[bool]) -> Health:
    """The health that these attempts (True: succeeded) show."""
    if not lately:
        return Health.UNKNOWN
    failed = lately.count(False)
    rate = failed / len(lately)
    if rate >= UNHEALTHY_RATE and failed >= UNHEALTHY_MIN:
        return Health.UNHEALTHY
    return Health.DEGRADED if rate >= DEGRADED_RATE else Health.HEALTHY


def _error_name(error: BaseException | str) -> str:
    if isinstance(error, BaseException):
        return type(error).__name__
    name = re.match(r"([A-Za-z_][\w.]*)\s*(?::|\(|$)", error)
    return name[1] if name else "Error"
