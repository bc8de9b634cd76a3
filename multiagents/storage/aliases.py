"""To which saga did a start lead whose Celery id is not the saga's?

Written by the start, and removed with the saga: see ``start.lua`` and ``purge.lua``.
"""

from __future__ import annotations

from multiagents.storage.calls import Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import text_or_none


def owner(shard: Shard, task_id: str) -> Plain[str | None]:
    """The saga's id; None if that shard has none."""
    return Plain(("HGET", shard.aliases, task_id), text_or_none)
