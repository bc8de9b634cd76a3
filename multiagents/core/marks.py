"""Which attempt is a message for?

A message's header `HEADER` names it.  A program with access to the broker can write any header.  So
only this module reads it, and no header raises: a header of another shape is logged once, and its
message counts as one of another program.
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
"""Items that this version reads; a newer engine may add more."""


class Mark(NamedTuple):
    """The content of a header."""

    saga_id: str
    kind: Kind
    step: str
    attempt: int
    version: str
    sent_ms: int
    timeout_s: float | None = None
    """The timeout of a plain task; None: the message is for a worker function."""

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
            pass  # logged below
    _tell(repr(found)[:SHOWN])
    return None


@lru_cache(maxsize=64)
def _mark_of(found: tuple[Any, ...]) -> Mark:
    """The mark in a header's items.  Raises ValueError or TypeError for other items.

    Cached, because a plain task's message is read three times.
    """
    saga_id, kind, step, attempt, version, sent_ms, *rest = found
    texts = all(map(is_text, (saga_id, kind, step, version)))
    numbers = all(map(_is_number, (sent_ms, *rest)))
    if not (texts and numbers and type(attempt) is int):
        raise ValueError(found)
    return Mark(saga_id, Kind(kind), step, attempt, version, sent_ms, rest[0] if rest else None)


def is_text(found: Any) -> TypeGuard[str]:
    """Whether the server accepts this as a name: JSON may have half of a surrogate pair."""
    return isinstance(found, str) and (found.isascii() or not _HALVES.search(found))


def _is_number(found: Any) -> bool:
    """Whether it is a number of limited size: Python's JSON has unlimited numbers, and ``NaN``."""
    return type(found) in (int, float) and -_MOST < found < _MOST


@lru_cache(maxsize=1000)
def _tell(shown: str) -> None:
    """Log a header once, although several places read a message."""
    log.warning("ignored a message header that is not the engine's", header=shown)
