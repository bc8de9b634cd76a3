"""Which sagas of a shard have an id with this prefix?

There is no index by prefix: every start would have to write it.  The search reads the index of all
sagas page by page, so the server does other work between two pages.
"""

from __future__ import annotations

from multiagents.storage.damage import escaped
from multiagents.storage.dead_letter_index import scan
from multiagents.storage.keys import Shard

SCANNED = 1000
"""Ids that the server compares at once: that took 3 ms on a busy machine."""


async def beginning(shard: Shard, text: str, *, most: int) -> list[str]:
    """Ids that begin with a text; the search ends once it has more than ``most``."""
    cursor, found = "0", set[str]()
    while True:
        page = scan(shard.sagas, cursor, f"{escaped(text)}*", count=SCANNED)
        cursor, members = await page
        found.update(member for member, _ in members)
        if cursor == "0" or len(found) > most:
            return sorted(found)
