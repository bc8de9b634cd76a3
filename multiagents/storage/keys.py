"""What are all keys in Redis called?

Every key of a saga has its shard's tag.  So a saga, its shard's due set and its indexes are always
in one slot, and can move to another server together.

    ma:{s00}:saga:<id>     hash    v version nonce, c cursor, w definition, q reads values?,
                                   h head row, s:<step> step rows, p last versions (wide sagas),
                                   b entries in the log's first item, if it is compressed
    ma:{s00}:work:<id>     hash    o:<kind>:<step>:<attempt> outbox, c:<kind>:<step> claims
    ma:{s00}:data:<id>     hash    input, meta, r:<step> results, u:<step> undo results,
                                   l:<nonce> late results, by claim,
                                   f:<step> refused results, k:<step> checkpoints,
                                   p:<step> progress, alias:<task id> canvas of a waiter,
                                   told:<task id> if it was started,
                                   part:<task id> its targets that have the outcome, JSON, if
                                   others have not,
                                   telling:<task id> the process that starts it and until when,
                                   digest of the input, if a key was given
    ma:{s00}:log:<id>      list    entries, oldest first; of an ended saga as one compressed item
    ma:{s00}:ids:<id>      set     hashes of the ids of the entries in the log
    ma:{s00}:due           zset    member by due time, Unix ms; see `due_…`
    ma:{s00}:stuck         hash    due member -> how often its handling has failed|when|why; expires
    ma:{s00}:tick          hash    at last sweep, grace leases stand until, Unix ms
    ma:{s00}:sagas         zset    saga id by creation, Unix ms
    ma:{s00}:state:<s>     zset    likewise, of one state; also workflow:<w> and tag:<t>
    ma:{s00}:aliases       hash    Celery id of a start -> its saga's, if that differs
    ma:{s00}:attention     zset    id of a saga that asks for attention, by when it began, Unix ms
    ma:{s00}:dead-letters  zset    `dead_letter` by when it was parked, Unix ms
    ma:{s00}:wanted        zset    `wanted`, a command that no worker can run, by its sending
    ma:{s00}:definitions   hash    version -> canonical JSON
    ma:{s00}:unused        hash    version that may be unused -> id of the saga removed last
    ma:{s00}:format        string  number of the newest format that was written; see `formats`
    ma:{s00}:catalog:…     data that running workers publish: workflows, examples, fleet, …
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import NamedTuple

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.states import SagaState

PREFIX = "ma"


@dataclass(frozen=True)
class Shard:
    """The keys that one shard's sagas share."""

    number: int = 0

    @cached_property
    def tag(self) -> str:
        return f"{PREFIX}:{{s{self.number:02d}}}"

    @cached_property
    def due(self) -> str:
        return f"{self.tag}:due"

    @cached_property
    def tick(self) -> str:
        return f"{self.tag}:tick"

    @cached_property
    def stuck(self) -> str:
        return f"{self.tag}:stuck"

    @cached_property
    def sagas(self) -> str:
        return f"{self.tag}:sagas"

    @cached_property
    def definitions(self) -> str:
        return f"{self.tag}:definitions"

    @cached_property
    def unused(self) -> str:
        return f"{self.tag}:unused"

    @cached_property
    def format(self) -> str:
        return f"{self.tag}:format"

    def state(self, state: SagaState | str) -> str:
        return f"{self.tag}:state:{state}"

    @cached_property
    def aliases(self) -> str:
        return f"{self.tag}:aliases"

    @cached_property
    def attention(self) -> str:
        return f"{self.tag}:attention"

    @cached_property
    def dead_letters(self) -> str:
        return f"{self.tag}:dead-letters"

    @cached_property
    def wanted(self) -> str:
        return f"{self.tag}:wanted"

    def workflow(self, name: str) -> str:
        return f"{self.tag}:workflow:{name}"

    def labelled(self, label: str) -> str:
        return f"{self.tag}:tag:{label}"

    def catalog(self, what: str) -> str:
        return f"{self.tag}:catalog:{what}"


@cache
def _shard(number: int) -> Shard:
    """The same object each time: it keeps the names of its keys."""
    return Shard(number)


def all_shards(count: int) -> list[Shard]:
    """The shards of so many."""
    return [_shard(number) for number in range(count)]


class SagaKeys:
    """The keys of one saga."""

    __slots__ = ("all", "data", "due", "id", "ids", "log", "saga", "shard", "work")

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
        self.all: tuple[str, ...] = (self.saga, self.work, self.data, self.log, self.ids, self.due)
        """In the order in which every script takes them."""


def shard_of(saga_id: str, shards: int) -> Shard:
    """The shard of a saga: a fixed hash of its id."""
    return _shard(zlib.crc32(saga_id.encode()) % shards if shards > 1 else 0)


class DueKind(Enum):
    """The kinds of due members: letter in Redis, number of parts after the owner, type of owner.

    `engine.sweeper` has the handler of each kind.
    """

    DIRTY = "d", 0, "saga"
    """A log holds entries that no commit has covered."""
    OUTBOX = "o", 1, "saga"
    """A command is to be published, or published again: its outbox field."""
    LEASE = "l", 4, "saga"
    """A lease ends: kind, step, attempt and nonce of the claim."""
    TIMER = "t", 1, "saga"
    """A timer that a decision set: its name."""
    PURGE = "x", 0, "saga"
    """A finished saga's retention ends."""
    DEFINITIONS = "g", 0, "shard"
    """Some definitions of a shard, whose number is the owner, may be unused."""

    def __init__(self, letter: str, parts: int, owner: str) -> None:
        self.letter = letter
        self.parts = parts
        self.is_of_a_saga = owner == "saga"
        """Whether the owner is a saga, by its id; else a shard, by its number."""

    def member(self, owner: object, *parts: object) -> str:
        """The due member, as Redis holds it."""
        return "|".join((self.letter, *map(str, (owner, *parts))))


class Due(NamedTuple):
    """A due member's kind, its owner (a saga's id or a shard's number), and the parts after it."""

    kind: DueKind
    owner: str
    parts: tuple[str, ...] = ()


_BY_LETTER = {kind.letter: kind for kind in DueKind}


def due_dirty(saga_id: str) -> str:
    """Its log holds entries that no commit has covered."""
    return DueKind.DIRTY.member(saga_id)


def due_outbox(saga_id: str, field: str) -> str:
    """A command to publish, or to publish again."""
    return DueKind.OUTBOX.member(saga_id, field)


def wanted(queue: str, function: str, due: str) -> str:
    """The member for a due command whose function no consumer of its queue has."""
    return f"{queue}\n{function}\n{due}"


def due_lease(saga_id: str, ref: AttemptRef, nonce: str) -> str:
    """The end of a lease."""
    return DueKind.LEASE.member(saga_id, *ref, nonce)


def due_timer(saga_id: str, timer: str) -> str:
    """A timer that a decision set."""
    return DueKind.TIMER.member(saga_id, timer)


def due_purge(saga_id: str) -> str:
    """The end of a finished saga's retention."""
    return DueKind.PURGE.member(saga_id)


def due_definitions(shard: Shard) -> str:
    """Some definitions of a shard may be unused; the owner is the shard."""
    return DueKind.DEFINITIONS.member(shard.number)


def parse_due(member: str) -> Due | None:
    """The parts of a due member; None for a foreign one.

    It is parsed from its end: only the owner may contain the separator.
    """
    letter, _, rest = member.partition("|")
    kind = _BY_LETTER.get(letter)
    if kind is None:
        return None
    owner, *parts = rest.rsplit("|", kind.parts) if kind.parts else [rest]
    is_sound = owner and len(parts) == kind.parts
    return Due(kind, owner, tuple(parts)) if is_sound else None
