"""Which saga belongs to a start with another Celery id than the saga's?

The start writes the alias, and the purge of the saga removes it: see ``start.lua`` and
``purge.lua``.
"""

from __future__ import annotations

from multiagents.storage.calls import Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import text_or_none


def owner(shard: Shard, task_id: str) -> Plain[str | None]:
    """The saga's id; None if that shard has none."""
    return Plain(("HGET", shard.aliases, task_id), text_or_none)
