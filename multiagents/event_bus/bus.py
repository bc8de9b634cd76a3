"""What does every event bus promise?

- Delivery is at least once to each *group*, whose subscribers share its events.  An event that its
  handler refused is delivered again, a limited number of times, then becomes a dead letter.  A
  group begins with its first subscription and then misses nothing, even while none of its
  subscribers runs.  Handlers must therefore tolerate repeats (`event_id`).
- A subscription *without* a group gets a private copy of all events from then on; its handler
  gets each event once, and a failure is logged.
- Events of one type arrive in the order of publishing, redelivered ones apart.
- A subscription handles one event at a time.  Plain functions run in a thread.

No Redis here: the buses and their users meet in these types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from multiagents.core.events import EVENT_TYPES, Event
from multiagents.core.exceptions import InvalidInput
from multiagents.core.ids import nonce

Handler = Callable[[Any], Any]
"""Takes one event; plain or ``async def``.  Raising refuses the event."""

EVERY_TYPE = "*"

REDELIVER_AFTER_S = 30.0
"""The time after which a refused or orphaned event comes again; a running handler renews it."""
MAX_DELIVERIES = 5
MAX_STREAM_LENGTH = 100_000
"""How many events of a type are kept.  A group that is further behind loses the oldest."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """What `subscribe` returns and `unsubscribe` takes."""

    event_types: tuple[str, ...]
    group: str | None
    id: str = field(default_factory=nonce)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a group gave up on."""

    group: str
    event_type: str
    event: str
    """The event as it was published (JSON; if it is not readable, that is the error)."""
    deliveries: int
    error: str
    """The type of the last error, or another cause; no message, which may hold secrets."""


class Monitor(Protocol):
    """Gets every stage of every event; its method may be plain or ``async def``."""

    def track_event_lifecycle(self, event: Any, stage: str) -> Any:
        """Stages: dispatched, published, picked_up, processing, completed, failed."""


class EventBus(Protocol):
    """The interface of `RedisEventBus` and `MemoryEventBus`."""

    async def start(self) -> None:
        """Make the bus usable; a second call does nothing."""

    async def stop(self) -> None:
        """End every subscription and close the connections; a second call does nothing."""

    async def publish(self, event: Event) -> None:
        """Return once the event is stored for every group."""

    async def subscribe(
        self, event_type: str, handler: Handler, *, group: str | None = None
    ) -> Subscription:
        """Return once the subscription misses no later event.  ``"*"``: every type."""

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Return once the handler gets no more calls; a second call does nothing."""

    async def track(self, event: Event, stage: str) -> None:
        """Report a stage that was reached outside the bus to the monitor; never raises."""

    async def dead_letters(self, *, count: int = 100) -> list[DeadLetter]:
        """The newest ``count`` dead letters, newest first."""


def event_types(event_type: str) -> tuple[str, ...]:
    """The types that ``event_type`` (one of them, or ``"*"``) stands for."""
    if event_type == EVERY_TYPE:
        return EVENT_TYPES
    if event_type not in EVENT_TYPES:
        raise InvalidInput(
            f"cannot subscribe to event type {event_type!r};"
            f" known: {', '.join(EVENT_TYPES)}, or '*' for all"
        )
    return (event_type,)


def not_started(action: str) -> InvalidInput:
    """The error for the use of a bus that does not run."""
    return InvalidInput(f"cannot {action}: the event bus is not started; await bus.start() first")
