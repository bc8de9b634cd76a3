"""Where do identifiers come from?

`fresh_id` and `nonce` give random ids.  `derived_id` and `step_id` give derived ids: the same input
gives the same id in every process.  `checked_id` checks a caller's own id.  Decisions receive ids
and never make random ones.
"""

from __future__ import annotations

import re
import secrets
import uuid
from hashlib import sha1

from multiagents.core.exceptions import InvalidInput

_ATTEMPT = r"(?:undo)?[1-9][0-9]*"
_NAMESPACE = uuid.UUID("6f1d1f0e-6b0f-5a0e-9d57-6d756c746961").bytes
MAX_KEY = 128
"""Characters in an idempotency key."""
MAX_ID = 200
"""Bytes in an id that a caller chooses, so that the derived ids fit `MOST_BYTES`."""
MOST_BYTES = 255
"""AMQP's limit for a message's correlation id, in which Celery repeats a task's id."""


def fresh_id() -> str:
    """A new random id, in the form of Celery's task ids."""
    return str(uuid.uuid4())


def nonce() -> str:
    """Eight random bytes as 16 hex digits, to identify one claim or one commit."""
    return secrets.token_hex(8)


def derived_id(*parts: str | int) -> str:
    """The id that is derived from these parts: `derived_id("order", "key-1")`."""
    digest = sha1(_NAMESPACE + "\x1f".join(map(str, parts)).encode(), usedforsecurity=False)
    text = digest.hexdigest()  # the same as `uuid.uuid5`, but without a UUID object
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


def idempotency_key(saga_id: str, step: str, generation: int = 0, undo: bool = False) -> str:
    """The key that a step's worker sends to other systems; stable over attempts (E8)."""
    tail = f":undo:{generation}" if undo else ""
    return f"{saga_id}:{step}{tail}"


def step_id(saga_id: str, kind: str, step: str, attempt: int) -> str:
    """The Celery id of an attempt's message: ``SAGA:STEP:2``, of an undo's ``SAGA:STEP:undo2``.

    `saga_of` finds the saga in it.  If a step's name is too long for a message, a hash replaces the
    name.
    """
    tail = attempt if kind == "run" else f"{kind}{attempt}"
    made = f"{saga_id}:{step}:{tail}"
    if len(made.encode()) <= MOST_BYTES:
        return made
    return f"{saga_id}:~{sha1(step.encode(), usedforsecurity=False).hexdigest()[:16]}:{tail}"


def shown_args(saga_id: str, kind: str, step: str, attempt: int) -> str:
    """An attempt as monitors show its task's arguments: ``('SAGA', 'reserve', 1)``.

    Of an undo: ``('SAGA', 'undo', 'reserve', 1)``.
    """
    if kind == "run":
        return repr((str(saga_id), str(step), attempt))
    return repr((str(saga_id), str(kind), str(step), attempt))


def saga_of(step_id: str) -> str | None:
    """The saga's id in the id of a step's message; None for an id of another form."""
    saga_id, *tail = step_id.rsplit(":", 2)
    return saga_id if len(tail) == 2 and saga_id and re.fullmatch(_ATTEMPT, tail[1]) else None


def as_text(value: object) -> str | None:
    """An id of Celery's users (text, a UUID or an int) as text; None for any other value."""
    known = isinstance(value, str | uuid.UUID | int) and not isinstance(value, bool)
    return str(value) if known else None


def is_encodable(text: str) -> bool:
    """Whether UTF-8 has all characters of a text; it lacks halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_id(value: object) -> str:
    """An id that a caller has chosen, as text.  Raises InvalidInput for an unusable id."""
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
