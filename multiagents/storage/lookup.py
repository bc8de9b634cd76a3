"""Which sagas of a shard have an id that begins so?

There is no index of ids by their letters: a start would have to write it.  The index of all sagas
is searched, page by page, so that the server does other work between two pages.
"""

from __future__ import annotations

from multiagents.storage.damage import escaped
from multiagents.storage.dead_letter_index import scan
from multiagents.storage.keys import Shard

SCANNED = 1000
"""Ids that the server compares at once: it took 3 ms for them on a busy machine."""


async def beginning(shard: Shard, text: str, *, most: int) -> list[str]:
    """Ids that begin with a text; the search ends where there are more than ``most``."""
    cursor, found = "0", set[str]()
    while True:
        page = scan(shard.sagas, cursor, f"{escaped(text)}*", count=SCANNED)
        cursor, members = await page
        found.update(member for member, _ in members)
        if cursor == "0" or len(found) > most:
            return sorted(found)
