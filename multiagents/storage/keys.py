"""What are all keys in Redis called?

Every key of a saga carries its shard's tag, so that a saga, its shard's due set and its indexes
always lie in one slot and can move to a server of their own.

    ma:{s00}:saga:<id>     hash    v version nonce, c cursor, w definition, q reads values?,
                                   h head row, s:<step> step rows, p last versions (wide sagas),
                                   b entries in the log's first item, if it is compressed
    ma:{s00}:work:<id>     hash    o:<kind>:<step>:<attempt> outbox, c:<kind>:<step> claims
    ma:{s00}:data:<id>     hash    input, meta, r:<step> results, u:<step> undo results,
                                   l:<nonce> late results, by claim,
                                   f:<step> refused results, k:<step> checkpoints,
                                   p:<step> progress, alias:<task id> canvas of who waits,
                                   told:<task id> if it was started,
                                   part:<task id> the names of its targets that were told, JSON,
                                   where others could not be,
                                   telling:<task id> who starts it and until when,
                                   digest of the input, where a key was given
    ma:{s00}:log:<id>      list    entries, oldest first; of an ended saga as one compressed item
    ma:{s00}:ids:<id>      set     hashes of the ids of the entries in the log
    ma:{s00}:due           zset    member by due time, Unix ms; see `due_…`
    ma:{s00}:stuck         hash    due member -> how often its handling has failed|when|why; expires
    ma:{s00}:tick          hash    at last sweep, grace leases stand until, Unix ms
    ma:{s00}:sagas         zset    saga id by creation, Unix ms
    ma:{s00}:state:<s>     zset    likewise, of one state; also workflow:<w> and tag:<t>
    ma:{s00}:aliases       hash    Celery id of a start -> its saga's, where that is another
    ma:{s00}:attention     zset    id of a saga that asks for attention by since when, Unix ms
    ma:{s00}:dead-letters  zset    `dead_letter` by since when it is parked, Unix ms
    ma:{s00}:wanted        zset    `wanted`, a command that no worker can do, by its sending
    ma:{s00}:definitions   hash    version -> canonical JSON
    ma:{s00}:unused        hash    version that may be unused -> id of the saga removed last
    ma:{s00}:format        string  number of the newest format that was written; see `formats`
    ma:{s00}:catalog:…     what running workers publish: workflows, examples, fleet, …
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from multiagents.core.states import Kind, SagaState

PREFIX = "ma"


@dataclass(frozen=True, slots=True)
class Shard:
    """The keys that one shard's sagas share."""

    number: int = 0

    @property
    def tag(self) -> str:
        return f"{PREFIX}:{{s{self.number:02d}}}"

    @property
    def due(self) -> str:
        return f"{self.tag}:due"

    @property
    def tick(self) -> str:
        return f"{self.tag}:tick"

    @property
    def stuck(self) -> str:
        return f"{self.tag}:stuck"

    @property
    def sagas(self) -> str:
        return f"{self.tag}:sagas"

    @property
    def definitions(self) -> str:
        return f"{self.tag}:definitions"

    @property
    def unused(self) -> str:
        return f"{self.tag}:unused"

    @property
    def format(self) -> str:
        return f"{self.tag}:format"

    def state(self, state: SagaState | str) -> str:
        return f"{self.tag}:state:{state}"

    @property
    def aliases(self) -> str:
        return f"{self.tag}:aliases"

    @property
    def attention(self) -> str:
        return f"{self.tag}:attention"

    @property
    def dead_letters(self) -> str:
        return f"{self.tag}:dead-letters"

    @property
    def wanted(self) -> str:
        return f"{self.tag}:wanted"

    def workflow(self, name: str) -> str:
        return f"{self.tag}:workflow:{name}"

    def labelled(self, label: str) -> str:
        return f"{self.tag}:tag:{label}"

    def catalog(self, what: str) -> str:
        return f"{self.tag}:catalog:{what}"


class SagaKeys:
    """The keys of one saga."""

    __slots__ = ("data", "due", "id", "ids", "log", "saga", "shard", "work")

    def __init__(self, saga_id: str, shards: int = 1) -> None:
        self.id = saga_id
        self.shard = shard_of(saga_id, shards)
        tag = self.shard.tag
        self.saga = f"{tag}:saga:{saga_id}"
        self.work = f"{tag}:work:{saga_id}"
        self.data = f"{tag}:data:{saga_id}"
        self.log = f"{tag}:log:{saga_id}"
        self.ids = f"{tag}:ids:{saga_id}"
        self.due = self.shard.due

    @property
    def all(self) -> tuple[str, ...]:
        """In the order in which every script takes them."""
        return (self.saga, self.work, self.data, self.log, self.ids, self.due)


def shard_of(saga_id: str, shards: int) -> Shard:
    """Where a saga lives: a fixed hash of its id."""
    return Shard(zlib.crc32(saga_id.encode()) % shards if shards > 1 else 0)


def due_dirty(saga_id: str) -> str:
    """Its log holds entries that no commit has covered."""
    return f"d|{saga_id}"


def due_outbox(saga_id: str, field: str) -> str:
    """A command to publish, or to publish again."""
    return f"o|{saga_id}|{field}"


def wanted(queue: str, function: str, due: str) -> str:
    """A due command whose function no consumer of its queue has."""
    return f"{queue}\n{function}\n{due}"


def due_lease(saga_id: str, kind: Kind, step: str, attempt: int, nonce: str) -> str:
    """The end of a lease."""
    return f"l|{saga_id}|{kind}|{step}|{attempt}|{nonce}"


def due_timer(saga_id: str, timer: str) -> str:
    """A timer that a decision set."""
    return f"t|{saga_id}|{timer}"


def due_purge(saga_id: str) -> str:
    """The end of a finished saga's retention."""
    return f"x|{saga_id}"


def due_definitions(shard: Shard) -> str:
    """Some definitions of a shard may be unused; it is no saga's."""
    return f"g|{shard.number}"


_PARTS = {"d": 0, "g": 0, "x": 0, "o": 1, "t": 1, "l": 4}
"""How many parts follow the saga's id in a due member."""


def parse_due(member: str) -> tuple[str, str, tuple[str, ...]] | None:
    """A due member's letter, its saga and the parts after it; None for one that is none of ours.

    Read from its end: only the saga's id may hold what stands between the parts.
    """
    letter, _, rest = member.partition("|")
    if letter not in _PARTS:
        return None
    saga_id, *parts = rest.rsplit("|", _PARTS[letter]) if _PARTS[letter] else [rest]
    sound = saga_id and len(parts) == _PARTS[letter]
    return (letter, saga_id, tuple(parts)) if sound else None
