"""Which attempt is a message for?

A message's header `HEADER` says it.  Whoever can write to the broker can write anything there, so
it is read here alone, and nothing in it raises: a header of another shape is logged once, and its
message is treated as one that is not the engine's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, cast

import structlog

from multiagents.core.names import HEADER
from multiagents.core.states import Kind

log = structlog.get_logger(__name__)

SHOWN = 200
"""Characters of a header that are logged."""
_KINDS = frozenset(Kind)


class Mark(NamedTuple):
    """What a header says."""

    saga_id: str
    kind: Kind
    step: str
    attempt: int
    version: str
    sent_ms: int
    timeout_s: float | None = None
    """Of a plain task; None: the message is for a worker function."""


def read_mark(headers: Any) -> Mark | None:
    """The mark among a message's headers, or in a Celery request; None if it has none.

    ``headers`` may be of any type.
    """
    get = getattr(headers, "get", None)
    found = get(HEADER) if callable(get) else None
    if found is None:
        return None
    if not _is_sound(found):
        _tell(repr(found)[:SHOWN])
        return None
    saga_id, kind, step, attempt, version, sent_ms, *rest = found
    return Mark(saga_id, Kind(kind), step, attempt, version, sent_ms, rest[0] if rest else None)


def _is_sound(found: Any) -> bool:
    """Of what a newer engine puts behind the last item nothing is said."""
    if not isinstance(found, list | tuple) or len(found) < 6:
        return False
    saga_id, kind, step, attempt, version, sent_ms, *rest = cast("list[Any]", found)
    texts = all(isinstance(text, str) for text in (saga_id, kind, step, version))
    numbers = all(type(number) in (int, float) for number in (sent_ms, *rest[:1]))
    return texts and numbers and kind in _KINDS and type(attempt) is int


@lru_cache(maxsize=1000)
def _tell(shown: str) -> None:
    """Once for each of them: a message is looked at in several places."""
    log.warning("a message's header is not one of the engine's, it is ignored", header=shown)
