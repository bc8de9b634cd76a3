"""Which operations on a saga are there?

Each function builds one `Call`.  It sends and decides nothing.  Payloads are text that this room
does not parse.  All times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from multiagents.core.attempt_ref import OfAttempt
from multiagents.core.entries import Claimed, Entry, Failed, Lost, Report, Requested, encode
from multiagents.core.fields import (
    claim_field,
    outbox_field,
    refused_field,
    result_field,
    step_field,
)
from multiagents.core.json_text import loads
from multiagents.core.states import Kind
from multiagents.storage import keys as k
from multiagents.storage.calls import Arg, Call, Plain
from multiagents.storage.commit import Commit, RefusedWrite, entry_key, plan_args
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.replies import (
    NOTHING,
    Claim,
    Committed,
    Known,
    View,
    hash_of,
    log_of,
    parse_claim,
    parse_committed,
    parse_view,
    refused_of,
    text_of,
    text_or_none,
)

DIRTY_AFTER_MS = 2000
"""How long an appended entry may stay undecided before a sweep takes it up (E1)."""
PUT_OFF_MS = 2000
"""How long the items that a sweep returned stay hidden from other sweeps."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A due member that must still have the score that a sweep gave it."""

    member: str
    token: str


Reason = tuple[str, str, str]
"""A hash, a field and its value ("" = none): the reason for dropping a due member."""


def load(saga: SagaKeys, *, known: Known = NOTHING) -> Call[View | str]:
    """The saga and its pending entries."""
    return Call("append", saga.all, (saga.id, known[0], 0, *[""] * 10, known[1]), parse_view)


NO_CLAIM: tuple[str, ...] = ("", "", "", "", "")
"""Of an entry that ends no attempt and brings no result."""


def append(
    saga: SagaKeys,
    entry: Entry,
    *,
    known: Known = NOTHING,
    dirty_at: int | None = None,
    guard: Guard | None = None,
    taken: str = "",
) -> Call[View | str]:
    """Append an entry to the log and load.  ``taken``: an outbox field to remove with it."""
    due_ms = entry.at_ms + DIRTY_AFTER_MS if dirty_at is None else dirty_at
    member, token = (guard.member, guard.token) if guard else ("", "")
    claim = NO_CLAIM
    if guard and isinstance(entry, Lost):
        claim = (claim_field(entry.kind, entry.step), entry.nonce, member, "", "")
    head: tuple[Arg, ...] = (saga.id, known[0], due_ms, entry_key(entry), encode(entry))
    args = (*head, member, token, *claim, taken, known[1])
    return Call("append", saga.all, args, parse_view)


def result_field_of(entry: Report) -> str:
    """The data field of a report's result: other steps do not read a refused result."""
    if entry.kind is Kind.RUN and isinstance(entry, Failed):
        return refused_field(entry.step)
    return result_field(entry.kind, entry.step)


def result_of(entry: Report, result: str | None) -> dict[str, str]:
    """The data fields that a report adds."""
    return {} if result is None else {result_field_of(entry): result}


def _claim_args(saga: SagaKeys, entry: Report, result: str | None) -> tuple[str, ...]:
    return (
        claim_field(entry.kind, entry.step),
        entry.nonce,
        k.due_lease(saga.id, entry.ref, entry.nonce),
        result_field_of(entry),
        result or "",
    )


def report(
    saga: SagaKeys,
    entry: Report,
    *,
    result: str | None = None,
    known: Known = NOTHING,
    dirty_at: int | None = None,
) -> Call[View | str]:
    """Append the end of an attempt: removes its claim and lease, keeps its result."""
    due_ms = entry.at_ms + DIRTY_AFTER_MS if dirty_at is None else dirty_at
    head: tuple[Arg, ...] = (saga.id, known[0], due_ms, entry_key(entry), encode(entry), "", "")
    args = (*head, *_claim_args(saga, entry, result), "", known[1])
    return Call("append", saga.all, args, parse_view)


def _index_keys(saga: SagaKeys, plan: Commit) -> tuple[str, ...]:
    shard, now = saga.shard, saga.shard.state(plan.state)
    keys = (shard.state(plan.state_before) if plan.moves and plan.state_before else now, now)
    return (*keys, shard.attention, shard.dead_letters) if plan.waiting else keys


def commit(
    saga: SagaKeys, known: Known, plan: Commit, texts: Sequence[str] = ()
) -> Call[Committed | View | str]:
    """Write a decision over one version of the state and the entries after it in the log.

    ``texts``: those entries as the log has them, which reveals a log that lost some (E5).
    The reply is the fresh view if the version has changed.
    """
    keys = (*saga.all, *_index_keys(saga, plan))
    # Entries that are decided before they are logged may only follow the entries that were read.
    needs_clean_log = int(bool(plan.decided))
    pending = (len(texts), "\n".join(texts))
    args = (*known, *pending, needs_clean_log, *plan_args(saga, plan))
    return Call("commit", keys, args, parse_committed)


def advance(
    saga: SagaKeys,
    plan: Commit,
    *,
    known: Known,
    texts: Sequence[str],
    entry: Report | Requested,
    result: str | None = None,
) -> Call[Committed | View | str]:
    """`report` and, if the saga has not changed since, `commit` in one trip.

    Likewise `append` of an operator's action.

    ``known``: the state under the decision, ``texts``: the entries after it.
    """
    keys = (*saga.all, *_index_keys(saga, plan))
    head: tuple[Arg, ...] = (saga.id, known[0], entry.at_ms + DIRTY_AFTER_MS)
    claim = NO_CLAIM if isinstance(entry, Requested) else _claim_args(saga, entry, result)
    head = (*head, entry_key(entry), encode(entry), *claim, known[1])
    args = (*head, len(texts), "\n".join(texts), *plan_args(saga, plan))
    return Call("advance", keys, args, parse_committed)


CREATED, EXISTED, SEND_DEFINITION, OTHER_INPUT = 1, 2, 3, 4
DIGEST = "digest"
"""Data field: the digest of the input, which compares starts under one idempotency key."""


def start(
    saga: SagaKeys,
    plan: Commit,
    *,
    waiting: tuple[str, str],
    definition: tuple[str, str],
    reads_values: bool,
    wide: bool = False,
    data: dict[str, str],
    indexes: Sequence[str],
    digest: str = "",
) -> Call[int | tuple[RefusedWrite, ...]]:
    """Record a new saga.

    ``waiting``: the task id that gets the outcome, and its canvas as JSON.  ``definition``:
    version and canonical JSON ("" if believed stored).  ``digest``: the digest that an existing
    saga must have ("" = any).

    Returns CREATED, EXISTED (the task id then waits for that saga too), SEND_DEFINITION or
    OTHER_INPUT (another digest, or none; then the task id does not wait).  The letters that their
    queues refused stand for CREATED.
    """
    version, text = definition
    pairs = [item for pair in data.items() for item in pair]
    head: tuple[Arg, ...] = (*waiting, version, text, int(reads_values), int(wide))
    head = (*head, "" if waiting[0] == saga.id else saga.id, digest, len(data), *pairs)
    shard = saga.shard
    keys = (*saga.all, shard.aliases, shard.state(plan.state), shard.definitions, shard.unused)
    return Call("start", (*keys, *indexes), (*head, *plan_args(saga, plan)), _started)


def _started(reply: Any) -> int | tuple[RefusedWrite, ...]:
    return refused_of(reply) if isinstance(reply, list) else int(reply)


def claim_value(attempt: int, nonce: str, deadline_ms: int, delivery: str) -> str:
    """The value of a claim field; ``deadline_ms`` 0 = none."""
    return f"{attempt}|{nonce}|{deadline_ms}|{delivery}"


def claim(
    saga: SagaKeys,
    entry: Claimed,
    *,
    delivery: str,
    lease_ends: int,
    deadline_ms: int,
    fields: Sequence[str],
    known: Known | None = None,
    alone: bool = False,
) -> Call[Claim | None]:
    """Begin the recorded attempt; None if its command is gone.

    ``deadline_ms``: no renewal moves the lease past it (0 = none).  ``fields``: of the data hash.
    ``known``: the state that the caller has, if it wants the present one; None: it does not.
    ``alone``: None, too, if the delivery already holds a claim of this saga.
    """
    outbox = outbox_field(entry.ref)
    args: tuple[Arg, ...] = (
        outbox,
        k.due_outbox(saga.id, outbox),
        claim_field(entry.kind, entry.step),
        entry.nonce,
        claim_value(entry.attempt, entry.nonce, deadline_ms, delivery),
        k.due_lease(saga.id, entry.ref, entry.nonce),
        lease_ends,
        entry_key(entry),
        encode(entry),
        entry.step,
        "" if known is None else 1,
        *(known or NOTHING),
        delivery if alone else "",
        *fields,
    )
    return Call("claim", saga.all, args, parse_claim)


@dataclass(frozen=True, slots=True)
class Attempt(OfAttempt):
    """One claimed attempt."""

    saga_id: str
    kind: Kind
    step: str
    attempt: int
    nonce: str


def renew(saga: SagaKeys, held: Attempt, *, lease_ends: int, notes: dict[str, str]) -> Call[bool]:
    """Extend a lease; False if it is lost.  ``notes`` go into the data hash."""
    member = k.due_lease(saga.id, held.ref, held.nonce)
    pairs = [item for pair in notes.items() for item in pair]
    field_ = claim_field(held.kind, held.step)
    args: tuple[Arg, ...] = (field_, held.nonce, member, lease_ends, len(notes), *pairs)
    return Call("renew", (saga.work, saga.due, saga.data), args, bool)


def _due(reply: Any) -> tuple[Guard, ...]:
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return tuple(Guard(text_of(member), text_of(token)) for member, token in pairs)


def sweep(shard: Shard, now_ms: int, *, limit: int, lease_ms: int) -> Call[tuple[Guard, ...]]:
    """The due members of a shard, each with the token that a later action must present."""
    return Call("sweep", (shard.due, shard.tick), (now_ms, limit, PUT_OFF_MS, lease_ms), _due)


def first_due(shard: Shard) -> Plain[float | None]:
    """When the first member of a shard is due, Unix ms; None if there is none.  One command."""
    return Plain(("ZRANGE", shard.due, 0, 0, "WITHSCORES"), _first_score)


def _first_score(reply: Any) -> float | None:
    pair = reply[0] if reply and isinstance(reply[0], list | tuple) else reply
    return float(pair[1]) if pair else None


def drop(shard: Shard, item: Guard, *, because: Reason, later_ms: int | None = None) -> Call[int]:
    """Remove or delay a due member, unless it has become due anew since it was found."""
    later: Arg = "" if later_ms is None else later_ms
    key, *reason = because
    return Call("drop", (shard.due, key), (item.member, item.token, later, *reason), int)


def version(saga: SagaKeys) -> Plain[str | None]:
    """The version of a saga's state; None if there is no such saga."""
    return Plain(("HGET", saga.saga, "v"), text_or_none)


def pinned(saga: SagaKeys) -> Plain[str | None]:
    """The version of the definition that a saga runs by; None if there is no such saga."""
    return Plain(("HGET", saga.saga, "w"), text_or_none)


def command(saga: SagaKeys, name: str) -> Plain[str | None]:
    """The value of one outbox field."""
    return Plain(("HGET", saga.work, name), text_or_none)


def work(saga: SagaKeys) -> Plain[dict[str, str]]:
    """The outbox and the claims."""
    return Plain(("HGETALL", saga.work), hash_of)


def data(saga: SagaKeys) -> Plain[dict[str, str]]:
    """Input, results, checkpoints, progress and waiters."""
    return Plain(("HGETALL", saga.data), hash_of)


def some_data(saga: SagaKeys, fields: Sequence[str]) -> Plain[list[str | None]]:
    """Some fields of the data hash."""
    return Plain(("HMGET", saga.data, *fields), lambda reply: list(map(text_or_none, reply)))


def rows(saga: SagaKeys, steps: Sequence[str]) -> Plain[list[list[Any]]]:
    """The rows of some steps, parsed; empty for one that the saga does not have."""
    fields = (step_field(step) for step in steps)
    return Plain(
        ("HMGET", saga.saga, *fields), lambda reply: [loads(row or b"[]") for row in reply]
    )


def meta(saga: SagaKeys) -> Plain[str | None]:
    """The notes of the start, JSON."""
    return Plain(("HGET", saga.data, "meta"), text_or_none)


def log(saga: SagaKeys) -> Plain[tuple[str, ...]]:
    """The whole log, oldest first, as texts."""
    return Plain(("LRANGE", saga.log, 0, -1), log_of)


def load_held(
    saga: SagaKeys, delivery: str, *, known: Known = NOTHING
) -> Call[tuple[View | None, dict[str, str] | None, list[Attempt]]]:
    """The attempts that a Celery delivery holds; state and data if they are not large."""

    def parse(reply: Any) -> tuple[View | None, dict[str, str] | None, list[Attempt]]:
        if reply == 0:
            return None, None, []
        state = parse_view(reply[0]) if reply[0] else None
        view = state if isinstance(state, View) else None
        data = hash_of(reply[1]) if reply[1] else None
        return view, data, held_by(saga.id, hash_of(reply[2:]), delivery)

    args: tuple[Arg, ...] = (saga.id, known[0], 0, *[""] * 10, known[1], delivery)
    return Call("append", saga.all, args, parse)


def held_by(saga_id: str, work: dict[str, str], delivery: str) -> list[Attempt]:
    """The claims in a work hash that a Celery delivery holds."""
    return [attempt for holder, attempt in claims(saga_id, work) if holder == delivery]


def claims(saga_id: str, work: dict[str, str]) -> Iterator[tuple[str, Attempt]]:
    """All claims in a work hash: each with the delivery that holds it."""
    for name, value in work.items():
        if name.startswith("c:"):
            attempt, nonce, _, holder = value.split("|", 3)
            _, kind, step = name.split(":")
            yield holder, Attempt(saga_id, Kind(kind), step, int(attempt), nonce)


def definition(shard: Shard, version: str) -> Plain[str | None]:
    """The canonical JSON of a definition."""
    return Plain(("HGET", shard.definitions, version), text_or_none)


def ids(index: str, *, offset: int, limit: int) -> Plain[list[str]]:
    """Saga ids of an index, newest first."""
    command = ("ZREVRANGE", index, offset, offset + limit - 1)
    return Plain(command, lambda reply: [text_of(item) for item in reply])


def pairs_of(reply: Any) -> list[tuple[str, float]]:
    """Members with their scores.

    The client makes pairs of a flat reply, unless it uses another protocol.
    """
    if reply and not isinstance(reply[0], list | tuple):
        reply = zip(reply[::2], reply[1::2], strict=True)
    return [(text_of(item), float(score)) for item, score in reply]
