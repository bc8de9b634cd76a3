"""In which format are the sagas on a server stored, and may this engine touch them?

`FORMAT` numbers all that is written: keys, rows, entries, messages.  It is raised when an engine
of the number before could not work with what the new one writes; docs/how-to/upgrading.md says
which changes those are.  Each shard notes the newest format that a worker has written to it.

Rules: an engine reads every format up to its own; one that meets a newer one refuses, before it
has changed anything.  That is asked when a process connects, and by workers every few seconds;
never for a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from multiagents.core.exceptions import NewerFormat
from multiagents.storage.calls import Call
from multiagents.storage.keys import Shard

FORMAT = 2
"""The format that this engine writes."""


def check(found: Iterable[bytes | str | int | None]) -> None:
    """Raise NewerFormat unless this engine knows all of these formats; None: nothing noted yet."""
    newest = max((int(number) for number in found if number is not None), default=0)
    if newest > FORMAT:
        raise NewerFormat(newest, FORMAT)


async def note(shards: Sequence[Shard]) -> None:
    """Note that a worker of this format writes to these shards of one server.

    Raises NewerFormat, and notes nothing, if it must not.
    """
    keys = tuple(shard.format for shard in shards)
    check([await Call("format", keys, (FORMAT,), int)])
