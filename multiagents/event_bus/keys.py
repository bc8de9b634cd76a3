"""What are the bus's keys in Redis called?

The one place that builds them.  Everything is a stream with a capped length:

- ``ma:bus:<event type>``: fields ``event`` (JSON, `core.events`)
- ``ma:bus:dead``: what no handler of a group could take; fields as in `dead_letters`
"""

from __future__ import annotations

PREFIX = "ma:bus:"
DEAD_LETTERS = f"{PREFIX}dead"


def stream(name: str) -> str:
    """The key of the stream that `BaseEvent.stream` names."""
    return f"{PREFIX}{name}"
