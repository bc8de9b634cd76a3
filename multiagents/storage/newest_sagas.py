"""Which sagas were started last, of one index of each shard, page by page?

A page begins where the one before it ended: at a time, and after so many of that time.  Sagas that
are started meanwhile move nothing, and the millionth page costs what the first did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from multiagents.storage.calls import Call, Plain
from multiagents.storage.dead_letter_index import Ages
from multiagents.storage.keys import SagaKeys
from multiagents.storage.replies import text_or_none
from multiagents.storage.sagas import pairs_of


@dataclass
class _Index:
    """One index, and how far it has been read."""

    name: str
    first_ms: int | None
    """Sagas started before it are not meant."""
    place: str
    """Where to read on: the time of the last that was read."""
    passed: int = 0
    """How many of just that time were read."""
    read: Ages = field(default_factory=list)
    """Read and not yet given, newest first."""
    ended: bool = False

    async def fill(self, count: int) -> None:
        """Read on if nothing that was read is left."""
        if self.read or self.ended:
            return
        first = "-inf" if self.first_ms is None else str(self.first_ms)
        page = (self.name, self.place, first, "WITHSCORES", "LIMIT", self.passed, count)
        self.read = await Plain(("ZREVRANGEBYSCORE", *page), pairs_of)
        self.ended = len(self.read) < count
        if self.read:
            last = self.read[-1][1]
            same = sum(at == last for _, at in self.read)
            again = self.place != "+inf" and float(self.place) == last
            self.passed = same + (self.passed if again else 0)
            self.place = str(round(last))


class Newest:
    """The sagas of some indexes together, newest first, from ``until_ms`` back to ``since_ms``."""

    def __init__(
        self,
        indexes: Sequence[str],
        *,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        place = "+inf" if until_ms is None else str(until_ms)
        self._indexes = [_Index(name, since_ms, place) for name in indexes]

    async def page(self, count: int) -> list[str]:
        """The next ``count`` ids at the most; none is the end."""
        found: list[str] = []
        while len(found) < count:
            for index in self._indexes:
                await index.fill(count)
            more = list(self._take(count - len(found)))
            if not more:
                break
            found += more
        return found

    def _take(self, count: int) -> Iterator[str]:
        """What is known to be newest, until an index must be read on."""
        for _ in range(count):
            unread = [index for index in self._indexes if not index.read]
            full = [index for index in self._indexes if index.read]
            if not full or any(not index.ended for index in unread):
                return
            index = max(full, key=lambda each: each.read[0][1])
            yield index.read.pop(0)[0]


def inputs(sagas: Sequence[SagaKeys]) -> Call[list[str | None]]:
    """What each of these sagas of one shard was started with, JSON; None where nothing is."""
    return _fields([saga.data for saga in sagas], "input")


def states(sagas: Sequence[SagaKeys]) -> Call[list[str | None]]:
    """All that the hash of each of these sagas of one shard holds; None where it is none."""
    return _fields([saga.saga for saga in sagas], "")


def _fields(keys: Sequence[str], field_: str) -> Call[list[str | None]]:
    return Call(
        "fields", tuple(keys), (field_,), lambda reply: [text_or_none(each) for each in reply]
    )
