"""How does a flow look into a queue?

By effects and their replies: the edge queries the broker, so that flows need none.
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
    """Effect: count the messages of a queue; a `Backlog` of unknown length if no broker answers."""

    any_priority: bool = False
    """In the lists of all priorities, not only in that of ``priority``."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The contents of a queue.  ``head_sent_ms``: of its oldest message; None: not known."""

    length: int | None
    """None: this broker gives no length."""
    head_sent_ms: int | None = None
    is_whole: bool = False
    """It counts all priorities: this broker has one queue for them."""
