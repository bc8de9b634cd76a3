"""In which format are the sagas on a server stored, and may this engine touch them?

`FORMAT` is the number of all that is written: keys, rows, entries, messages.  It rises if an engine
of the number before could not work with the new data; docs/how-to/upgrading.md lists such changes.
Each shard records the newest format that a worker has written to it.

Rules: an engine reads every format up to its own.  It refuses a newer one before it has changed
anything.  A process checks when it connects, and a worker every few seconds; a step checks never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiagents.core.exceptions import NewerFormat
from multiagents.storage.calls import Call
from multiagents.storage.keys import Shard

FORMAT = 2
"""The format that this engine writes."""


def check(found: Iterable[bytes | str | int | None]) -> None:
    """Raise NewerFormat unless this engine reads all these formats; None: not recorded yet."""
    newest = max((int(number) for number in found if number is not None), default=0)
    if newest > FORMAT:
        raise NewerFormat(newest, FORMAT)


async def note(shards: Sequence[Shard]) -> None:
    """Record that a worker of this format writes to these shards of one server.

    Raises NewerFormat, and records nothing, if a newer engine has written there.
    """
    keys = tuple(shard.format for shard in shards)
    check([await Call("format", keys, (FORMAT,), int)])
