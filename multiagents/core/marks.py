"""Which attempt is a message for?

A message's header `HEADER` says it.  Whoever can write to the broker can write anything there, so
it is read here alone, and nothing in it raises: a header of another shape is logged once, and its
message is treated as one that is not the engine's.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple, TypeGuard

import structlog

from multiagents.core.attempt_ref import AttemptRef
from multiagents.core.names import HEADER
from multiagents.core.states import Kind

log = structlog.get_logger(__name__)

SHOWN = 200
"""Characters of a header that are logged."""
_HALVES = re.compile("[\ud800-\udfff]")
"""Lone surrogates, which UTF-8 does not have."""
_MOST = 2**63


_ITEMS = 7
"""Of what a newer engine puts behind the last item nothing is said."""


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

    @property
    def ref(self) -> AttemptRef:
        """The attempt that the message is for."""
        return AttemptRef(self.kind, self.step, self.attempt)


def read_mark(headers: Any) -> Mark | None:
    """The mark among a message's headers, or in a Celery request; None if it has none.

    ``headers`` may be of any type.
    """
    get = getattr(headers, "get", None)
    found = get(HEADER) if callable(get) else None
    if found is None:
        return None
    if isinstance(found, list | tuple):
        try:
            return _mark_of(tuple(found[:_ITEMS]))
        except (TypeError, ValueError):
            pass  # told below
    _tell(repr(found)[:SHOWN])
    return None


@lru_cache(maxsize=64)
def _mark_of(found: tuple[Any, ...]) -> Mark:
    """Raises ValueError or TypeError for what is no mark.

    Remembered: a plain task's message is looked at three times.
    """
    saga_id, kind, step, attempt, version, sent_ms, *rest = found
    texts = all(map(is_text, (saga_id, kind, step, version)))
    numbers = all(map(_is_number, (sent_ms, *rest)))
    if not (texts and numbers and type(attempt) is int):
        raise ValueError(found)
    return Mark(saga_id, Kind(kind), step, attempt, version, sent_ms, rest[0] if rest else None)


def is_text(found: Any) -> TypeGuard[str]:
    """Whether the server can be sent this as a name: JSON may hold half of a character."""
    return isinstance(found, str) and (found.isascii() or not _HALVES.search(found))


def _is_number(found: Any) -> bool:
    """Whether it can be made whole: Python's JSON has numbers without end, and ``NaN``."""
    return type(found) in (int, float) and -_MOST < found < _MOST


@lru_cache(maxsize=1000)
def _tell(shown: str) -> None:
    """Once for each of them: a message is looked at in several places."""
    log.warning("a message's header is not one of the engine's, it is ignored", header=shown)
