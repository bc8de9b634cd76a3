"""Which operations send commands, record that they were sent, or take them back?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from multiagents.core.fields import claim_field
from multiagents.storage import keys as k
from multiagents.storage.calls import Arg, Call
from multiagents.storage.commit import Letter, RefusedWrite
from multiagents.storage.keys import SagaKeys, Shard
from multiagents.storage.replies import refused_of
from multiagents.storage.sagas import Attempt

WANTED_MS = 3_600_000
"""A waiting command is given back again within minutes, so older marks are stale."""
GIVEN_BACK, UNCONFIRMED = 1, 2
"""The replies of `hand_back` if the command still stands."""
WAKE_SPACE_MS = 2
"""The time between two commands that a new worker wakes: it spreads their messages."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The number of commands that still stood, and those that their queues refused."""

    standing: int
    refused: tuple[RefusedWrite, ...] = ()


def _sent(reply: Any) -> Sent:
    if isinstance(reply, list):
        return Sent(int(reply[0]), refused_of(reply[1:]))
    return Sent(int(reply))


def plain_sent(
    saga: SagaKeys,
    held: Attempt,
    value: str,
    letter: Letter,
    *,
    ends_ms: int | None = None,
    again_ms: int | None = None,
) -> Call[Sent]:
    """Send a plain task once, and record that in its claim: ``value`` is the claim's new one.

    ``ends_ms``: the new end of its lease.  ``again_ms``: when the claim is due again if its queue
    refuses the message.  None: unchanged.
    """
    member = k.due_lease(saga.id, held.ref, held.nonce)
    times = ["" if each is None else each for each in (again_ms, ends_ms)]
    row = (claim_field(held.kind, held.step), value, member, times[1], *letter)
    return Call("publish", (saga.work, saga.due), (times[0], *row), _sent)


def hand_on(
    saga: SagaKeys, waiting: Sequence[tuple[str, tuple[str, int], Letter | None]]
) -> Call[int]:
    """Send the first of these commands that is withheld; replies which, from 1 (0 = none).

    ``waiting``: outbox field, its value once sent and its next due time, and the message if this
    call can send it.
    """
    args: list[Arg] = []
    for name, (value, due_ms), letter in waiting:
        args += [name, value, k.due_outbox(saga.id, name), due_ms, *(letter or ("", ""))]
    return Call("handover", (saga.work, saga.due), tuple(args), int)


def published(
    saga: SagaKeys,
    sent: dict[str, tuple[str, int]],
    letters: Mapping[str, Letter] = MappingProxyType({}),
) -> Call[Sent]:
    """Record that commands were sent: outbox field -> (value, next due time).

    This call itself sends those with a letter.  A command that its queue refuses stays unchanged.
    """
    args: list[Arg] = [""]
    for name, (value, due_ms) in sent.items():
        args += [name, value, k.due_outbox(saga.id, name), due_ms, *letters.get(name, ("", ""))]
    return Call("publish", (saga.work, saga.due), tuple(args), _sent)


def hand_back(
    saga: SagaKeys,
    field: str,
    *,
    sent_ms: int,
    due_ms: int,
    wanted: str,
    has_home: bool,
    now_ms: int,
) -> Call[int]:
    """Give back a command whose message came to a worker without its function.

    ``sent_ms``: when that message was sent.  ``due_ms``: when it is sent again.  ``has_home``:
    whether a worker has the function.  ``wanted``: without one, the mark by which `wake` finds it.
    """
    member = k.due_outbox(saga.id, field)
    flag = "1" if has_home else ""
    about: tuple[Arg, ...] = (field, member, sent_ms, due_ms, flag, wanted)
    args = (*about, now_ms, WANTED_MS)
    return Call("handback", (saga.work, saga.due, saga.shard.wanted), args, int)


def wake(
    shard: Shard, queues: Iterable[str], functions: Iterable[str], *, now_ms: int
) -> Call[int]:
    """Make the commands due that wait on these queues for these functions; replies how many."""
    named = tuple(queues)
    args: tuple[Arg, ...] = (now_ms, WAKE_SPACE_MS, len(named), *named, *functions)
    return Call("wake", (shard.wanted, shard.due), args, int)
