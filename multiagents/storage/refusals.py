"""Which error words does a server use when it executes nothing?

Some refuse writes, some refuse any command.  They pass with time or after an operator acts.  Each
comes before a command or script has changed anything, so a retry is safe.  Others refuse commands
on one key.
"""

from __future__ import annotations

import re

from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

REFUSALS = {
    "OOM": "it is full (its maxmemory is used up)",
    "READONLY": "it is a replica",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "too few of its replicas are connected",
}
"""The meaning of each word that refuses writes."""
PAUSES = {
    "BUSY": "a script has been running on it for long, see SCRIPT KILL",
    "LOADING": "it is still reading its data",
    "MASTERDOWN": "it is a replica without its primary",
    "CLUSTERDOWN": "its cluster is down",
    "TRYAGAIN": "its cluster is moving these keys",
    "UNBLOCKED": "it has just become a replica",
    "KILLED": "an operator has ended the script with SCRIPT KILL",
}
"""The meaning of each word that refuses any command."""
CLASSES: dict[type[Exception], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
    ClusterDownError: "CLUSTERDOWN",
    TryAgainError: "TRYAGAIN",
}
"""redis-py removes these words from the message; it has no class for the others."""
_WORDS = "|".join(word for word in (*REFUSALS, *PAUSES) if word != "KILLED")
_FIRST = re.compile(rf"(?:^|-|because of: )({_WORDS})\b")
"""The first word, or the one after those of a script (Redis 6.2) or of a transaction."""
_KILLED = "Script killed by user with SCRIPT KILL"
"""A server kills only a script that has not written yet."""

_WRONGTYPE = re.compile(r"(?:^|[\s'-])WRONGTYPE\b")


def word_of(error: Exception) -> str | None:
    """The word of `REFUSALS` or `PAUSES` in an error; None for any other error."""
    if not isinstance(error, ResponseError):
        return None
    word = CLASSES.get(type(error))
    if word is None and (found := _FIRST.search(str(error))):
        word = found[1]
    return "KILLED" if word is None and _KILLED in str(error) else word


def is_of_another_type(error: Exception) -> bool:
    """Whether a command met a key of another type than its own, alone or in a script."""
    return isinstance(error, RedisError) and bool(_WRONGTYPE.search(str(error)))


def concerns_a_key(error: Exception) -> bool:
    """Whether the server refuses a command for its key or the user's rights: others may work.

    Also if a library wrapped the refusal, as kombu does.
    """
    found = (error, error.__cause__)
    return any(isinstance(each, NoPermissionError) for each in found) or any(
        isinstance(each, Exception) and is_of_another_type(each) for each in found
    )
