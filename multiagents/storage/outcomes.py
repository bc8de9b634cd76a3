"""Which operations are there on a saga that has ended?

Its waiters are owed the outcome until that is settled.  Later its retention ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import ResponseError

from multiagents.core.fields import OUTBOX_END
from multiagents.core.json_text import dumps, loads
from multiagents.storage import keys as k
from multiagents.storage import sagas as store
from multiagents.storage.calls import Arg, Call, Plain
from multiagents.storage.commit import RefusedWrite, StoredResult
from multiagents.storage.keys import SagaKeys
from multiagents.storage.refusals import word_of
from multiagents.storage.replies import End, log_of, packed, refused_of, text_of

MOST_PACKED = 5000
"""Entries of the longest log that is compressed at the end."""
LOG_PAGE = 1000
"""Entries of a log that are read at once."""
WAITING = ("alias:", "told:", "part:")
"""The prefixes of the data fields of waiters and their deliveries; in lib.lua as well."""


async def read_data(saga: SagaKeys, outcome: Sequence[str]) -> dict[str, str]:
    """The data fields of an outcome and of the waiters.

    The waiters are read last: a saga that is just being removed has none.
    """
    names = await Plain(("HKEYS", saga.data), lambda reply: list(map(text_of, reply)))
    fields = [*outcome, *(name for name in names if name.startswith(WAITING))]
    found: dict[str, str] = {}
    for at in range(0, len(fields), LOG_PAGE):
        some = fields[at : at + LOG_PAGE]
        values = await store.some_data(saga, some)
        found.update(
            (name, text) for name, text in zip(some, values, strict=True) if text is not None
        )
    return found


async def read_log(saga: SagaKeys) -> tuple[str, ...]:
    """The whole log, oldest first, in pages; starts over if it is compressed meanwhile."""
    while True:
        items: list[Any] = []
        page = await _page(saga, 0)
        while page:
            items += page
            page = await _page(saga, len(items)) if len(page) == LOG_PAGE else []
        if len(items) < LOG_PAGE or await _page(saga, 0, 1) == items[:1]:
            return log_of(items)


def _page(saga: SagaKeys, start: int, size: int = LOG_PAGE) -> Plain[list[Any]]:
    return Plain(("LRANGE", saga.log, start, start + size - 1), list)


def owe(saga: SagaKeys, version: str, due_ms: int, *, nonce: str) -> Call[bool]:
    """Have a sweep deliver the outcome of a saga that ended at this version.

    ``nonce``: the caller's, 16 hex digits.  False if the saga has another version now, or is gone.
    """
    member = k.due_outbox(saga.id, OUTBOX_END)
    token = int(nonce[:10], 16)  # 40 bits: a number to Lua as well
    return Call("owe", saga.all, (OUTBOX_END, member, due_ms, version, token), bool)


Parts = dict[str, frozenset[str]]
"""By task id, the targets of its canvas that have the outcome."""


def take(
    saga: SagaKeys, task_ids: Sequence[str], *, teller: str, now_ms: int, until_ms: int
) -> Call[Parts]:
    """Reserve canvases for one process until ``until_ms``; returns those that it got.

    ``teller``: that process's nonce.  Each comes with the targets that have the outcome already.
    """
    return Call("telling", saga.all, (teller, now_ms, until_ms, *task_ids), _parts)


def give_back(saga: SagaKeys, parts: Parts, *, teller: str) -> Call[Parts]:
    """Return canvases with the targets that have the outcome; another process may do the rest."""
    rows = [(task_id, dumps(sorted(names)) if names else "") for task_id, names in parts.items()]
    return Call(
        "telling", saga.all, (teller, 0, "", *(item for row in rows for item in row)), _parts
    )


def _parts(reply: Any) -> Parts:
    texts = [text_of(each) for each in reply]
    pairs = zip(texts[::2], texts[1::2], strict=True)
    return {task_id: frozenset(loads(told or "[]")) for task_id, told in pairs}


def settle(
    saga: SagaKeys, end: End, answers: Sequence[StoredResult] = (), *, told: Sequence[str] = ()
) -> Call[int | tuple[RefusedWrite, ...]]:
    """Record that an outcome is delivered, by these answers or before; compress the log.

    ``told``: the task ids with a canvas, which must not start again.  A waiter that joined since
    ``end`` was read is still owed the outcome: then the outbox keeps its value.

    Returns 1; 0 if the outcome is still owed, or settled already; or the answers that were refused:
    then it is still owed.
    """
    entries = end.log or ()
    text = packed(entries) if len(entries) <= MOST_PACKED else ""
    member = k.due_outbox(saga.id, OUTBOX_END)
    args: tuple[Arg, ...] = (OUTBOX_END, member, end.version, len(entries), text, end.owed)
    args = (*args, len(told), *told, *(item for answer in answers for item in answer))
    return Call("settle", saga.all, args, _settled)


def _settled(reply: Any) -> int | tuple[RefusedWrite, ...]:
    if not isinstance(reply, list):
        return int(reply)
    refused = refused_of(reply)
    for each in refused:
        error = ResponseError(each.reason)
        if word_of(error):  # the server takes no writes at all: the edge names the reason
            raise error
    return refused


def purge(saga: SagaKeys, version: str, indexes: Sequence[str], *, later_ms: int) -> Call[int]:
    """Remove an ended saga that still has this version.

    ``later_ms``: when to retry if its outcome is not delivered yet; else, when to check whether
    another saga uses its definition.  Unix ms.
    """
    shard = saga.shard
    unused = k.due_definitions(shard)
    args = (saga.id, version, k.due_purge(saga.id), later_ms, unused)
    return Call("purge", (*saga.all, shard.aliases, shard.unused, *indexes), args, int)
