"""What are the bus's keys in Redis called?

Only this module builds them.  Each key is a stream with a capped length:

- ``ma:bus:<event type>``: fields ``event`` (JSON, `core.events`)
- ``ma:bus:dead``: events that a group gave up on; fields as in `dead_letters`
"""

from __future__ import annotations

PREFIX = "ma:bus:"
DEAD_LETTERS = f"{PREFIX}dead"


def stream(name: str) -> str:
    """The key of the stream that `BaseEvent.stream` names."""
    return f"{PREFIX}{name}"
