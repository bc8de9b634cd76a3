"""How often has a due member failed, and when is it tried again?

The counts are beside the due set, so all sweepers share them.  They expire some minutes after the
last failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from multiagents.storage.calls import Arg, Call, Plain
from multiagents.storage.keys import Shard
from multiagents.storage.replies import hash_of, text_or_none
from multiagents.storage.sagas import PUT_OFF_MS, Guard

MOST_PUT_OFF_MS = 60_000
"""The longest delay of a member that keeps failing; the first is `PUT_OFF_MS`."""
FAILURES_KEPT_MS = 600_000
"""How long the counts are kept after the last failure of any due member."""
MOST_FAILURES = 1000
"""The most members of a shard whose failures are counted."""
NOT_COUNTED = -1
"""The reply of `put_off` for a member beyond these."""
REASON_LENGTH = 300
"""Characters of the reason that are kept."""


def put_off(shard: Shard, item: Guard, *, now_ms: int, why: str) -> Call[int]:
    """Delay a due member whose handling failed, longer each time.

    Returns how often it has failed, or NOT_COUNTED; 0: it was handled meanwhile, or is due anew.
    """
    times = (PUT_OFF_MS, MOST_PUT_OFF_MS, FAILURES_KEPT_MS, MOST_FAILURES)
    args: tuple[Arg, ...] = (item.member, item.token, now_ms, why[:REASON_LENGTH], *times)
    return Call("putoff", (shard.due, shard.stuck), args, int)


class Failing(NamedTuple):
    """How often, when last and why the handling of a due member failed."""

    times: int
    last_ms: int
    why: str


def stuck(shard: Shard) -> Plain[dict[str, Failing]]:
    """The due members whose handling failed."""
    return Plain(("HGETALL", shard.stuck), lambda reply: _failing(hash_of(reply)))


def stuck_among(shard: Shard, members: Sequence[str]) -> Plain[dict[str, Failing]]:
    """Those of these due members whose handling failed."""

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
