"""Where do identifiers come from?

Random ones from `fresh_id` and `nonce`; derived ones (the same input gives the same id, in every
process) from `derived_id` and `step_id`; a caller's own from `checked_id`.  Decisions never call
the random ones: ids are handed to them.
"""

from __future__ import annotations

import secrets
import uuid
from hashlib import sha1

from multiagents.core.exceptions import InvalidInput

_NAMESPACE = uuid.UUID("6f1d1f0e-6b0f-5a0e-9d57-6d756c746961").bytes
MAX_KEY = 128
"""Characters in an idempotency key."""
MAX_ID = 200
"""Bytes in an id that a caller chooses, so that the ids made of it fit `MOST_BYTES`."""
MOST_BYTES = 255
"""What AMQP takes for a message's correlation id, in which Celery repeats a task's id."""


def fresh_id() -> str:
    """A new random id, in the form Celery uses for tasks."""
    return str(uuid.uuid4())


def nonce() -> str:
    """Eight random bytes as 16 hex digits: names one claim or one commit."""
    return secrets.token_hex(8)


def derived_id(*parts: str | int) -> str:
    """The id that these parts always give: `derived_id("order", "key-1")`."""
    digest = sha1(_NAMESPACE + "\x1f".join(map(str, parts)).encode(), usedforsecurity=False)
    text = digest.hexdigest()  # what `uuid.uuid5` does, without making a UUID of it
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def idempotency_key(saga_id: str, step: str, generation: int = 0, undo: bool = False) -> str:
    """The key that a step's worker hands to other systems; stable over attempts (E8)."""
    tail = f":undo:{generation}" if undo else ""
    return f"{saga_id}:{step}{tail}"


def as_text(value: object) -> str | None:
    """An id as Celery's users write it: text, a UUID or an int; None for anything else."""
    known = isinstance(value, str | uuid.UUID | int) and not isinstance(value, bool)
    return str(value) if known else None


def checked_id(value: object) -> str:
    """An id that a caller has chosen, as text.  Raises InvalidInput for one that cannot be used."""
    text = as_text(value)
    if text is None:
        kind = type(value).__name__
        raise InvalidInput(f"a task id is {value!r} ({kind}): expected text, a UUID or an int")
    if not text.isprintable() or not 0 < len(text.encode()) <= MAX_ID:
        shown = ascii(text if len(text) <= MAX_ID else f"{text[:MAX_ID]}...")
        raise InvalidInput(
            f"a task id is {shown}: expected 1 to {MAX_ID} bytes of printable text, without"
            " line breaks and control characters"
        )
    return text
