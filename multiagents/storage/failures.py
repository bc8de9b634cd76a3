"""How often has what is due failed, and when is it tried again?

The counts stand beside the due set, so that all sweepers know them.  They outlast the last failure
by some minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from multiagents.storage.calls import Arg, Call, Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import hash_of, text_or_none
from multiagents.storage.sagas import PUT_OFF_MS, Guard

MOST_PUT_OFF_MS = 60_000
"""What fails again and again is tried once in so long; at first, after `PUT_OFF_MS`."""
FAILURES_KEPT_MS = 600_000
"""So long after the last failure of any due member it is forgotten how often each has failed."""
MOST_FAILURES = 1000
"""Members of a shard whose failures are counted."""
NOT_COUNTED = -1
"""What `put_off` answers for one beyond these."""
REASON_LENGTH = 300
"""Characters that are kept of why."""


def put_off(shard: Shard, item: Guard, *, now_ms: int, why: str) -> Call[int]:
    """Look later at a due member whose handling has failed, longer each time.

    Returns how often it has failed, or NOT_COUNTED; 0: it has been dealt with meanwhile, or is due
    anew.
    """
    times = (PUT_OFF_MS, MOST_PUT_OFF_MS, FAILURES_KEPT_MS, MOST_FAILURES)
    args: tuple[Arg, ...] = (item.member, item.token, now_ms, why[:REASON_LENGTH], *times)
    return Call("putoff", (shard.due, shard.stuck), args, int)


class Failing(NamedTuple):
    """What sweeps have tried without success."""

    times: int
    last_ms: int
    why: str


def stuck(shard: Shard) -> Plain[dict[str, Failing]]:
    """Due members whose handling has failed."""
    return Plain(("HGETALL", shard.stuck), lambda reply: _failing(hash_of(reply)))


def stuck_among(shard: Shard, members: Sequence[str]) -> Plain[dict[str, Failing]]:
    """Which of these due members are among them."""

    def parse(reply: Any) -> dict[str, Failing]:
        found = zip(members, map(text_or_none, reply), strict=True)
        return _failing({member: text for member, text in found if text is not None})

    return Plain(("HMGET", shard.stuck, *members), parse)


def _failing(counts: Mapping[str, str]) -> dict[str, Failing]:
    found = {}
    for member, text in counts.items():
        times, last_ms, why = text.split("|", 2)
        found[member] = Failing(int(times), int(last_ms), why)
    return found
