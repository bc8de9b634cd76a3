"""With which words does a server say that it takes no writes for now?"""

from __future__ import annotations

import re

from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

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


def word_of(error: ResponseError) -> str | None:
    """The word of `REFUSALS` with which the server refused; None if it is another error."""
    word = _CLASSES.get(type(error))
    if word is None and (found := _REFUSAL.search(str(error))):
        word = found[1]
    return word
