"""What does a look at a queue ask, and what does it see?

Effects and replies: the edge asks the broker, so that flows need none.
"""

from __future__ import annotations

from dataclasses import dataclass

from multiagents.core.effects import Effect


@dataclass(frozen=True, slots=True)
class QueueHead(Effect["Backlog"]):
    """Effect: look at a queue; the reply is a `Backlog`."""

    queue: str
    priority: int | None
    broker: str = ""
    """The kind of broker that its workers say they have, such as "redis"; empty: not known."""


@dataclass(frozen=True, slots=True)
class QueueDepth(QueueHead):
    """Effect: count what waits in a queue; a `Backlog` of no known length if no broker answers."""

    any_priority: bool = False
    """In the lists of all priorities, not only in that of ``priority``."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a queue holds.  ``head_sent_ms``: of the oldest message; None if it does not say."""

    length: int | None
    """None: this broker cannot be looked into."""
    head_sent_ms: int | None = None
    is_whole: bool = False
    """It is of all priorities together: this broker has one queue for them."""
