"""Which sagas does a list ask for?  Pure.

State, workflow, tag and time of the start have indexes; the other filters are compared with each
saga's input or state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from multiagents.core.exceptions import InvalidInput
from multiagents.core.states import SagaState
from multiagents.operations.projection import DAMAGED

STATES = (*map(str, SagaState), DAMAGED)
"""The states that a list can filter by."""
_MISSING = object()
_PLAIN = re.compile(r"[a-z0-9 _.,'()-]+")
"""Text that is stored as it is shown, apart from its case."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of a list; None and empty: no filter.  Times are Unix milliseconds."""

    state: str | None = None
    workflow: str | None = None
    tag: str | None = None
    idempotency_key: str | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    """By key of the input; a dotted one leads into objects and lists."""
    error: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def __post_init__(self) -> None:
        if self.state and self.state not in STATES:
            raise InvalidInput(f"state is {self.state!r}; expected one of {', '.join(STATES)}")

    @property
    def is_indexed(self) -> bool:
        """Whether one index alone gives the sagas."""
        indexed = sum(map(bool, (self.state, self.workflow, self.tag)))
        return indexed <= 1 and not self.input and not self.error and self.state != DAMAGED

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a saga, as a list shows it, fits; its input is compared before."""
        if self.state and row["state"] != self.state:
            return False
        if row["state"] == DAMAGED:  # all else is unknown; it was in the index
            return not self.error
        return (
            (not self.workflow or row["workflow"] == self.workflow)
            and (not self.tag or self.tag in row["tags"])
            and (not self.error or self._has_error(row, self.error))
        )

    def is_in_time(self, row: Mapping[str, Any]) -> bool:
        """Whether a saga was started between the limits; true if the start is unknown."""
        if row["created_at"] is None:
            return True
        at_ms = round(datetime.fromisoformat(row["created_at"]).timestamp() * 1000)
        late_enough = self.since_ms is None or at_ms >= self.since_ms
        return late_enough and (self.until_ms is None or at_ms <= self.until_ms)

    def fits_input(self, text: str | None) -> bool:
        """Whether a saga's input, as JSON, has all the values of the filter."""
        if not self.input:
            return True
        if text is None:
            return False
        given = json.loads(text)
        return all(_same(_at(given, key), value) for key, value in self.input.items())

    def may_err(self, text: str | None) -> bool:
        """Whether a saga with this stored state, as JSON, may have the error.

        Characters that JSON escapes, and those between type and message, are not compared.
        """
        stored = (text or "").lower()
        parts = _PLAIN.findall((self.error or "").lower())
        return bool(stored) and all(part.strip() in stored for part in parts)

    def _has_error(self, row: Mapping[str, Any], text: str) -> bool:
        return matching_error(row, text) is not None


def matching_error(row: Mapping[str, Any], text: str) -> Mapping[str, Any] | None:
    """The first error of the saga, its steps or their undos that has the text, in any case."""
    for error in _errors(row):
        if has_text(error, text):
            return error
    return None


def has_text(error: Mapping[str, Any], text: str) -> bool:
    """Whether an error's ``Type: message`` has the text, in any case."""
    return text.lower() in f"{error['type']}: {error['message']}".lower()


def _errors(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The errors of a saga, its steps and their undos; ``step`` names the step or undo."""
    if row["error"]:
        yield row["error"]
    steps = row["steps"].items()
    undos = [(f"undo of {name}", step["compensation"]) for name, step in steps]
    for place, work in (*steps, *undos):
        if work and work["error"]:
            yield {"step": place, **work["error"]}


def value_at(value: Any, key: str) -> Any:
    """The value under a key or a dotted key; None without one."""
    found = _at(value, key)
    return None if found is _MISSING else found


def _at(value: Any, key: str) -> Any:
    """The value under a key or a dotted key, such as ``customer.id`` or ``items.0.sku``."""
    if isinstance(value, dict) and key in value:
        return value[key]
    first, dot, rest = key.partition(".")
    if not dot:
        return _member(value, key)
    inner = _member(value, first)
    return _MISSING if inner is _MISSING else _at(inner, rest)


def _member(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key, _MISSING)
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    return _MISSING


def _same(found: Any, wanted: Any) -> bool:
    """Whether two values are equal; a text also fits a number, boolean or null of that form."""
    if found is _MISSING or isinstance(found, bool) != isinstance(wanted, bool):
        return isinstance(found, bool) and isinstance(wanted, str) and _written(found) == wanted
    if isinstance(wanted, str) and not isinstance(found, str):
        return _written(found) == wanted
    return bool(found == wanted)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
