"""Which operations send commands, or note that they were sent?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from multiagents.storage import keys as k
from multiagents.storage.calls import Arg, Call
from multiagents.storage.keys import SagaKeys
from multiagents.storage.plan import Letter
from multiagents.storage.sagas import Attempt


def plain_sent(saga: SagaKeys, held: Attempt, value: str, letter: Letter) -> Call[int]:
    """Send a plain task, once, and let its claim say so: ``value`` is the claim's new one."""
    args = (k.claim_field(held.kind, held.step), value, "", "", *letter)
    return Call("publish", (saga.work, saga.due), args, int)


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
) -> Call[int]:
    """Note that commands were sent: outbox field -> (value, when to look again).

    Those with a letter are sent by this very call.
    """
    args: list[Arg] = []
    for name, (value, due_ms) in sent.items():
        args += [name, value, k.due_outbox(saga.id, name), due_ms, *letters.get(name, ("", ""))]
    return Call("publish", (saga.work, saga.due), tuple(args), int)
