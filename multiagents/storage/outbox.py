"""Which operations send commands, note that they were sent, or take them back?"""

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
"""A command that waits for a worker is given back again within minutes; older marks are stale."""
GIVEN_BACK, UNCONFIRMED = 1, 2
"""What `hand_back` answers where the command still stands."""
WAKE_SPACE_MS = 2
"""Between two commands that a new worker wakes, so that not all of them come at once."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How many commands still stood, and which of them their queues did not take."""

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
    """Send a plain task, once, and let its claim say so: ``value`` is the claim's new one.

    ``ends_ms``: when its lease ends then; ``again_ms``: when the claim is looked at again should
    its queue refuse the message; None: as before.
    """
    member = k.due_lease(saga.id, held.ref, held.nonce)
    times = ["" if each is None else each for each in (again_ms, ends_ms)]
    row = (claim_field(held.kind, held.step), value, member, times[1], *letter)
    return Call("publish", (saga.work, saga.due), (times[0], *row), _sent)


def hand_on(
    saga: SagaKeys, waiting: Sequence[tuple[str, tuple[str, int], Letter | None]]
) -> Call[int]:
    """Send the first of these commands that was held back; answers which, from 1 (0 = none was).

    ``waiting``: outbox field, its value when sent and when to look again, the message if it can
    be sent right here.
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
    """Note that commands were sent: outbox field -> (value, when to look again).

    Those with a letter are sent by this very call; what its queue refuses stays as it was.
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
    """Give a command back whose message came to a worker without its function.

    ``sent_ms``: when that message was sent; ``due_ms``: when it is sent again; ``wanted``: the
    mark by which `wake` finds it, unless it ``has_home``: a worker that has the function.
    """
    member = k.due_outbox(saga.id, field)
    flag = "1" if has_home else ""
    about: tuple[Arg, ...] = (field, member, sent_ms, due_ms, flag, wanted)
    args = (*about, now_ms, WANTED_MS)
    return Call("handback", (saga.work, saga.due, saga.shard.wanted), args, int)


def wake(
    shard: Shard, queues: Iterable[str], functions: Iterable[str], *, now_ms: int
) -> Call[int]:
    """Make due what waits on these queues for these functions; answers how many commands."""
    named = tuple(queues)
    args: tuple[Arg, ...] = (now_ms, WAKE_SPACE_MS, len(named), *named, *functions)
    return Call("wake", (shard.wanted, shard.due), args, int)
