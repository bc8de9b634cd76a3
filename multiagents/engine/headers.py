"""Which message headers travel with a saga?

The headers of its start, such as a tenant or a trace context.  They are stored with the saga and
travel in the messages of all its steps.  A process caches them only to save reads.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import structlog

from multiagents.core.exceptions import InvalidInput
from multiagents.core.json_text import dumps
from multiagents.core.message_headers import OWN, custom
from multiagents.storage import sagas as store
from multiagents.storage.keys import SagaKeys

MOST_BYTES = 4096
"""Limit of their JSON: they travel in every message of the saga, and each step reads them."""
CAPACITY = 10_000
"""Sagas whose headers a process caches, more than it moves at once; the oldest item goes first.
Most sagas have no headers and cost little."""
META = "headers"
"""Their name in the saga's stored meta data."""

log = structlog.get_logger(__name__)

Headers = Mapping[str, Any]
NONE: Headers = MappingProxyType({})


def checked(given: Any) -> dict[str, Any]:
    """The headers of a start, as they are stored.

    Raises InvalidInput if they are not JSON, too large, or named like Celery's own headers.
    """
    if not given:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InvalidInput(f"headers are {type(given).__name__}: expected a dict with str keys")
    headers = dict(given)
    own = sorted(headers.keys() & OWN)
    if own:
        raise InvalidInput(f"headers {', '.join(own)} belong to Celery: give them other names")
    try:
        text = json.dumps(headers, allow_nan=False)
        dumps(headers)  # refuses what UTF-8 cannot hold
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"headers are not JSON: {error}") from error
    if len(text) > MOST_BYTES:
        raise InvalidInput(f"headers are {len(text):,} bytes of JSON; the limit is {MOST_BYTES:,}")
    return headers


def found_in(request: Mapping[str, Any]) -> dict[str, Any]:
    """The headers of a start's message; none if a saga cannot keep them.

    No error: a library may have added them.
    """
    headers = custom(request)
    try:
        return checked(headers)
    except InvalidInput as error:
        log.warning("a start's headers do not travel with its steps", why=str(error))
        return {}


def headers_of(meta: str | None) -> Headers:
    """The headers in a saga's stored meta data (JSON)."""
    if not meta or f'"{META}"' not in meta:
        return NONE
    found: Headers = json.loads(meta).get(META, NONE)
    return found


class SagaHeaders:
    """The cached headers of sagas.  Thread-safe: a loss only costs a read."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Headers] = OrderedDict()

    def __contains__(self, saga_id: str) -> bool:
        return saga_id in self._known

    def __getitem__(self, saga_id: str) -> Headers:
        """The headers of a saga; none if they are not cached."""
        return self._known.get(saga_id, NONE)

    def note(self, saga_id: str, meta: str | None) -> None:
        """Cache the headers in a saga's meta data, unless they are cached."""
        if saga_id not in self._known:
            self.start(saga_id, meta)

    def forget(self, saga_id: str) -> None:
        """Drop the headers of a start that has only joined its saga."""
        self._known.pop(saga_id, None)

    def start(self, saga_id: str, meta: str | None) -> None:
        """Cache the headers of a new saga."""
        self._known[saga_id] = headers_of(meta)
        if len(self._known) > CAPACITY:
            try:
                self._known.popitem(last=False)
            except KeyError:  # other threads have
                return

    async def learn(self, keys: SagaKeys) -> None:
        """Read and cache them, unless they are cached."""
        if keys.id not in self._known:
            self.note(keys.id, await store.meta(keys))
