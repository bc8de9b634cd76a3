"""Which sagas were started last, in one index of each shard, page by page?

A page begins at the end of the page before it: at a time, and after a number of sagas of that time.
So new sagas shift no page, and the millionth page costs no more than the first.
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
    """Sagas that started earlier are left out."""
    place: str
    """The score at which the next read begins: the time of the last saga read."""
    passed: int = 0
    """The number of sagas with exactly that time that were read."""
    read: Ages = field(default_factory=list)
    """Read and not yet returned, newest first."""
    ended: bool = False

    async def fill(self, count: int) -> None:
        """Read the next page if all that was read has been returned."""
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
        """The next ids, ``count`` at most; an empty list is the end."""
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
        """The newest ids, until an index needs another read."""
        for _ in range(count):
            unread = [index for index in self._indexes if not index.read]
            full = [index for index in self._indexes if index.read]
            if not full or any(not index.ended for index in unread):
                return
            index = max(full, key=lambda each: each.read[0][1])
            yield index.read.pop(0)[0]


def inputs(sagas: Sequence[SagaKeys]) -> Call[list[str | None]]:
    """The inputs of these sagas of one shard, JSON; None for a missing one."""
    return _fields([saga.data for saga in sagas], "input")


def states(sagas: Sequence[SagaKeys]) -> Call[list[str | None]]:
    """All values in the hashes of these sagas of one shard; None for a missing one."""
    return _fields([saga.saga for saga in sagas], "")


def _fields(keys: Sequence[str], field_: str) -> Call[list[str | None]]:
    return Call(
        "fields", tuple(keys), (field_,), lambda reply: [text_or_none(each) for each in reply]
    )
