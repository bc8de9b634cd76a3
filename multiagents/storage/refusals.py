"""With which words does a server say that it takes no writes for now, or not to one key?"""

from __future__ import annotations

import re

from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

REFUSALS = {
    "OOM": "it is full (its maxmemory is used up)",
    "READONLY": "it is a replica",
    "MISCONF": "it cannot write to its disk",
    "NOREPLICAS": "too few of its replicas are connected",
}
"""What each word means."""
_CLASSES = {OutOfMemoryError: "OOM", ReadOnlyError: "READONLY"}
"""redis-py takes the word of these away; it has no class for the others."""
_REFUSAL = re.compile(rf"(?:^|-|because of: )({'|'.join(REFUSALS)})\b")
"""The first word, or the one after those of a script (Redis 6.2) or of a transaction."""

_WRONGTYPE = re.compile(r"(?:^|[\s-])WRONGTYPE\b")


def word_of(error: ResponseError) -> str | None:
    """The word of `REFUSALS` with which the server refused; None if it is another error."""
    word = _CLASSES.get(type(error))
    if word is None and (found := _REFUSAL.search(str(error))):
        word = found[1]
    return word


def is_of_another_type(error: Exception) -> bool:
    """Whether a command met a key of another type than its own, alone or in a script."""
    return isinstance(error, RedisError) and bool(_WRONGTYPE.search(str(error)))


def concerns_a_key(error: Exception) -> bool:
    """Whether the server refuses a command for its key or the user's rights: others may go."""
    return isinstance(error, NoPermissionError) or is_of_another_type(error)
