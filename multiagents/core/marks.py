"""Which attempt is a message for?

A message's header `HEADER` says it.  Whoever can write to the broker can write anything there, so
it is read here alone, and nothing in it raises: a header of another shape is logged once, and its
message is treated as one that is not the engine's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard, cast

import structlog

from multiagents.core.names import HEADER
from multiagents.core.states import Kind

log = structlog.get_logger(__name__)

SHOWN = 200
"""Characters of a header that are logged."""
_KINDS = frozenset(Kind)
_HALVES = re.compile("[\ud800-\udfff]")
"""Lone surrogates, which UTF-8 does not have."""
_MOST = 2**63


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
    texts = all(map(is_text, (saga_id, kind, step, version)))
    numbers = all(map(_is_number, (sent_ms, *rest[:1])))
    return texts and numbers and kind in _KINDS and type(attempt) is int


def is_text(found: Any) -> TypeGuard[str]:
    """Whether the server can be sent this as a name: JSON may hold half of a character."""
    return isinstance(found, str) and not _HALVES.search(found)


def _is_number(found: Any) -> bool:
    """Whether it can be made whole: Python's JSON has numbers without end, and ``NaN``."""
    return type(found) in (int, float) and -_MOST < found < _MOST


@lru_cache(maxsize=1000)
def _tell(shown: str) -> None:
    """Once for each of them: a message is looked at in several places."""
    log.warning("a message's header is not one of the engine's, it is ignored", header=shown)
