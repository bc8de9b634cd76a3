"""Which stages has each event passed, and how long did it take?

Counts cover all calls since the monitor was made.  Traces are dropped after the retention or if
there are too many.  The monitor sees its own process only.  Thread-safe.

One latency is from dispatch to the first pick-up (from the timestamp, for an event from another
process), the other from a pick-up to its end.  If several groups handle one event at once, ends
are matched to pick-ups in order, which leaves the mean exact.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from multiagents.core.clock import Clock, SystemClock
from multiagents.core.events import BaseEvent
from multiagents.core.exceptions import InvalidInput
from multiagents.event_bus.logger import structured
from multiagents.monitoring.samples import Samples

RETENTION_HOURS = 24.0
MAX_TRACES = 10_000
MAX_TRACE_ENTRIES = 500
"""How many of the newest stages of a saga are kept; the log has the whole history."""


class Stage(StrEnum):
    """The stages of an event."""

    DISPATCHED = "dispatched"
    PUBLISHED = "published"
    PICKED_UP = "picked_up"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


class Observer(Protocol):
    """Gets every stage, in the thread where it happens."""

    def on_event_stage(self, event: Any, stage: str) -> Any:
        """Called after the stage was counted; its errors are logged."""


class NothingToAwait:
    """An empty awaitable, because callers may be async."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


@dataclass(slots=True)
class _Times:
    dispatched_ms: int | None = None
    was_picked_up: bool = False
    picked_up_ms: deque[int] = field(default_factory=deque)


@dataclass(slots=True)
class _Trace:
    touched_ms: int = 0
    entries: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_TRACE_ENTRIES))
    times: OrderedDict[str, _Times] = field(default_factory=OrderedDict)

    def times_of(self, event_id: str) -> _Times:
        times = self.times.setdefault(event_id, _Times())
        if len(self.times) > MAX_TRACE_ENTRIES:
            self.times.popitem(last=False)
        return times


class _Measures:
    """The numbers of one event type."""

    def __init__(self) -> None:
        self.stages: Counter[str] = Counter()
        self.pickup_ms = Samples()
        self.handling_ms = Samples()

    def to_dict(self) -> dict[str, Any]:
        return {
            "stages": {stage.value: self.stages[stage] for stage in Stage},
            "pickup_ms": self.pickup_ms.summary(),
            "handling_ms": self.handling_ms.summary(),
        }


class EventMonitor:
    """Counts and times events; give it to a bus as ``event_monitor``.

    ``observers`` is a list to append to: each gets ``on_event_stage(event, stage)``.
    """

    def __init__(
        self,
        logger: Any = None,
        *,
        retention_hours: float = RETENTION_HOURS,
        max_traces: int = MAX_TRACES,
        clock: Clock | None = None,
    ) -> None:
        self.observers: list[Observer] = []
        self._logger = structured(logger, "multiagents.monitoring")
        self._retention_ms = retention_hours * 3_600_000
        self._max_traces = max_traces
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._traces: OrderedDict[str, _Trace] = OrderedDict()
        self._measures: defaultdict[str, _Measures] = defaultdict(_Measures)
        self._all = _Measures()

    def track_event_lifecycle(self, event: BaseEvent, stage: str) -> NothingToAwait:
        """Count the stage and call the observers; awaiting the result is optional.

        Raises InvalidInput for a stage that is not in `Stage`.
        """
        known = _stage(stage)
        now_ms = self._clock.now_ms()
        with self._lock:
            self._count(event, known, now_ms)
        say = self._logger.warning if known is Stage.FAILED else self._logger.debug
        say("event stage", stage=known.value, **_ids(event))
        for observer in tuple(self.observers):
            self._tell(observer, event, known)
        return NothingToAwait()

    def get_trace(self, transaction_id: str) -> list[dict[str, Any]]:
        """The stages of the saga's events, oldest first; empty when unknown or forgotten.

        Each: ``at`` (ISO 8601, UTC), ``stage``, ``event_type``, ``event_id``,
        ``transaction_id``, ``correlation_id``, ``worker_name``, ``step_name``.
        """
        with self._lock:
            self._forget(self._clock.now_ms())
            trace = self._traces.get(transaction_id)
            return [dict(entry) for entry in trace.entries] if trace else []

    def get_metrics(self) -> dict[str, Any]:
        """The numbers of this process: those of all events, by type, and the traces kept.

        ``stages`` counts calls since the start; ``pickup_ms`` and ``handling_ms`` are summaries
        (`samples.Summary`) over the newest 1000.
        """
        with self._lock:
            self._forget(self._clock.now_ms())
            return {
                **self._all.to_dict(),
                "by_type": {name: known.to_dict() for name, known in self._measures.items()},
                "traces": len(self._traces),
            }

    def _tell(self, observer: Observer, event: BaseEvent, stage: Stage) -> None:
        try:
            observer.on_event_stage(event, stage.value)
        except Exception:
            self._logger.exception(
                "event observer failed",
                observer=type(observer).__qualname__,
                stage=stage.value,
                **_ids(event),
            )

    def _count(self, event: BaseEvent, stage: Stage, now_ms: int) -> None:
        trace = self._traces.setdefault(event.transaction_id, _Trace())
        self._traces.move_to_end(event.transaction_id)
        trace.touched_ms = now_ms
        trace.entries.append({"at": _iso(now_ms), "stage": stage.value, **_ids(event)})
        measures = (self._measures[event.event_type], self._all)
        for each in measures:
            each.stages[stage] += 1
        self._time(event, stage, now_ms, trace.times_of(event.event_id), measures)
        self._forget(now_ms)

    def _time(
        self,
        event: BaseEvent,
        stage: Stage,
        now_ms: int,
        times: _Times,
        measures: tuple[_Measures, ...],
    ) -> None:
        if stage in {Stage.DISPATCHED, Stage.PUBLISHED}:
            times.dispatched_ms = times.dispatched_ms or now_ms
        elif stage is Stage.PICKED_UP:
            times.picked_up_ms.append(now_ms)
            if not times.was_picked_up:
                times.was_picked_up = True
                for each in measures:
                    each.pickup_ms.add(now_ms - _dispatched_ms(event, times))
        elif stage in {Stage.COMPLETED, Stage.FAILED} and times.picked_up_ms:
            begun_ms = times.picked_up_ms.popleft()
            for each in measures:
                each.handling_ms.add(now_ms - begun_ms)

    def _forget(self, now_ms: int) -> None:
        """Drop traces that are too old or too many, the longest unchanged first."""
        while self._traces:
            oldest = next(iter(self._traces))
            is_old = now_ms - self._traces[oldest].touched_ms > self._retention_ms
            if not is_old and len(self._traces) <= self._max_traces:
                return
            del self._traces[oldest]


def _stage(stage: str) -> Stage:
    try:
        return Stage(stage)
    except ValueError:
        raise InvalidInput(f"unknown event stage {stage!r}; known: {', '.join(Stage)}") from None


def _dispatched_ms(event: BaseEvent, times: _Times) -> int:
    if times.dispatched_ms is not None:
        return times.dispatched_ms
    return round(event.occurred_at.timestamp() * 1000)


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _ids(event: BaseEvent) -> dict[str, Any]:
    return {
        "event_type": event.event_type,
        "event_id": event.event_id,
        "transaction_id": event.transaction_id,
        "correlation_id": event.correlation_id,
        "worker_name": getattr(event, "worker_name", None),
        "step_name": getattr(event, "step_name", None),
    }
