"""Which values does CEL have, and which are equal?

JSON's values are Python's: None, bool, int, float, str, list, dict.  An int may have any size: it
comes from JSON, where it is exact, and is compared exactly; only arithmetic is limited to 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

INT_MAX = 2**63 - 1
UINT_MAX = 2**64 - 1


class Uint(int):
    """A whole number written as ``1u`` or made by ``uint(…)``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """A point in time: nanoseconds since 1970 in UTC, and its original offset."""

    ns: int
    offset_s: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time, in nanoseconds."""

    ns: int


@dataclass(frozen=True, slots=True)
class CelType:
    """The value of ``type(…)`` and of a type's name."""

    name: str


class BoolKey:
    """A bool as the key of a map; in Python, True would equal the key 1."""


TRUE_KEY, FALSE_KEY = BoolKey(), BoolKey()

KINDS: dict[type, str] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    Uint: "uint",
    float: "double",
    str: "string",
    bytes: "bytes",
    list: "list",
    dict: "map",
    Timestamp: "timestamp",
    Duration: "duration",
    CelType: "type",
}
TYPE_NAMES = {
    "null": "null_type",
    "timestamp": "google.protobuf.Timestamp",
    "duration": "google.protobuf.Duration",
}
"""Types with another name in expressions than in messages."""
NUMBERS = frozenset({"int", "uint", "double"})
ORDERED = frozenset({"bool", "string", "bytes", "timestamp", "duration"})
"""Kinds that are compared only with the same kind; numbers are compared with each other."""

Spend = Callable[[int], None]
"""Counts operations; raises TooCostly above the limit."""


def kind_of(value: Any) -> str:
    """The name of a value's type in messages."""
    found = KINDS.get(type(value))
    if found is not None:
        return found
    if isinstance(value, Mapping):
        return "map"
    return next((name for cls, name in KINDS.items() if isinstance(value, cls)), "unknown")


def article(kind: str) -> str:
    """A kind with its article: ``an int``, ``null``."""
    if kind in {"null", "bytes"}:
        return kind
    return f"{'an' if kind.startswith('i') else 'a'} {kind}"


def equal(one: Any, other: Any, spend: Spend) -> bool:
    """CEL's ``==``: values of different kinds are different, numbers are compared as numbers."""
    first, second = kind_of(one), kind_of(other)
    if first != second:
        return first in NUMBERS and second in NUMBERS and bool(one == other)
    if first in {"string", "bytes"}:
        spend(min(len(one), len(other)) // 512)
    if first == "list":
        spend(len(one))
        return len(one) == len(other) and all(
            equal(a, b, spend) for a, b in zip(one, other, strict=True)
        )
    if first == "map":
        spend(len(one))
        return len(one) == len(other) and all(
            key in other and equal(item, other[key], spend) for key, item in one.items()
        )
    return bool(one == other)


def quotient(one: int, other: int) -> int:
    """The whole part of a quotient, rounded towards zero as in CEL."""
    whole = abs(one) // abs(other)
    return whole if (one < 0) == (other < 0) else -whole


def map_key(value: Any) -> Any:
    """A value as the key of a map; None if it cannot be a key."""
    if isinstance(value, bool):
        return TRUE_KEY if value else FALSE_KEY
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int | str) else None


def from_key(key: Any) -> Any:
    """The value behind the key of a map."""
    return key is TRUE_KEY if isinstance(key, BoolKey) else key
