"""Which functions are there, with which arguments and results?

One table checks calls when a workflow is built, runs them, and is printed in
docs/reference/workflow-json.md.  A function's own error describes the mistake in its argument, and
never shows the argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import Any

from multiagents.workflows.cel.patterns import matches
from multiagents.workflows.cel.times import (
    SECOND,
    in_zone,
    read_duration,
    read_timestamp,
    read_zone,
    write_duration,
    write_timestamp,
)
from multiagents.workflows.cel.values import (
    INT_MAX,
    TYPE_NAMES,
    UINT_MAX,
    CelType,
    Duration,
    Spend,
    Timestamp,
    Uint,
    kind_of,
    quotient,
)

ANY = "any"
"""A parameter that takes values of every kind."""

Run = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Overload:
    """One way to call a function; a method's receiver is its first argument."""

    takes: tuple[str, ...]
    gives: str
    run: Run

    def fits(self, kinds: tuple[str, ...]) -> bool:
        """Whether it takes arguments of these kinds; ``dyn`` may be of any kind."""
        return len(kinds) == len(self.takes) and all(
            wanted == ANY or kind in {wanted, "dyn"}
            for wanted, kind in zip(self.takes, kinds, strict=True)
        )


def _length(value: Any, _: Spend) -> int:
    """The length; for text the number of code points, as in Python."""
    return len(value)


def _contains(text: str, part: str, spend: Spend) -> bool:
    spend(len(text) // 128)
    return part in text


def _to_int(value: Any, _: Spend) -> int:
    if isinstance(value, str):
        return _whole(value, -INT_MAX - 1, INT_MAX, sign="[+-]?")
    whole = _truncated(value)
    if isinstance(value, float | Uint) and not -INT_MAX - 1 <= whole <= INT_MAX:
        raise ValueError("does not fit in 64 bits")
    return whole


def _to_uint(value: Any, _: Spend) -> Uint:
    if isinstance(value, str):
        return Uint(_whole(value, 0, UINT_MAX, sign="[+]?"))
    whole = _truncated(value)
    if value < 0 or whole > UINT_MAX:
        raise ValueError("is negative or does not fit in 64 bits")
    return Uint(whole)


def _truncated(value: Any) -> int:
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise ValueError("is not a finite number") from None


def _whole(text: str, least: int, most: int, *, sign: str) -> int:
    if not re.fullmatch(rf"{sign}[0-9]{{1,40}}", text):
        raise ValueError("is not a whole number")
    value = int(text)
    if not least <= value <= most:
        raise ValueError("does not fit in 64 bits")
    return value


def _to_double(value: Any, _: Spend) -> float:
    if isinstance(value, str):
        number = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)"
        if not re.fullmatch(number, value, re.ASCII | re.IGNORECASE):
            raise ValueError("is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("is too large for a double") from None


def _to_string(value: Any, spend: Spend) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return _written(value)
        case bytes():
            spend(len(value) // 32)
            return value.decode(errors="replace")
        case Timestamp():
            return write_timestamp(value)
        case Duration():
            return write_duration(value)
    return str(value)


def _written(value: float) -> str:
    """A double without an exponent and without trailing zeros."""
    text = format(Decimal(repr(value)), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return {"Infinity": "inf", "-Infinity": "-inf"}.get(text, text)


def _to_bytes(value: str | bytes, spend: Spend) -> bytes:
    spend(len(value) // 32)
    return value.encode() if isinstance(value, str) else value


def _type(value: Any, _: Spend) -> CelType:
    kind = kind_of(value)
    return CelType(TYPE_NAMES.get(kind, kind))


def _same(value: Any, _: Spend) -> Any:
    return value


_FIELDS: dict[str, Callable[[Any], int]] = {
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDate": lambda at: at.day,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
    "getMilliseconds": lambda at: at.microsecond // 1000,
}
"""All count from 0, except the year and the date."""
_LENGTHS = {
    "getHours": 3600 * SECOND,
    "getMinutes": 60 * SECOND,
    "getSeconds": SECOND,
    "getMilliseconds": SECOND // 1000,
}
"""The whole of a duration in that unit, truncated."""


def _getters(name: str) -> Iterator[Overload]:
    field = _FIELDS[name]

    def of(time: Timestamp, zone: tzinfo) -> int:
        return field(in_zone(time, zone))

    yield Overload(("timestamp",), "int", lambda time, _: of(time, UTC))
    yield Overload(("timestamp", "string"), "int", lambda time, zone, _: of(time, read_zone(zone)))
    unit = _LENGTHS.get(name)
    if unit is not None:
        yield Overload(("duration",), "int", lambda length, _: quotient(length.ns, unit))


def _each(kinds: str, gives: str, run: Run) -> tuple[Overload, ...]:
    return tuple(Overload((kind,), gives, run) for kind in kinds.split())


_TEXTS = ("string", "string")
_SIZES = _each("string bytes list map", "int", _length)

FUNCTIONS: dict[str, tuple[Overload, ...]] = {
    "size": _SIZES,
    "int": _each("int uint double string", "int", _to_int),
    "uint": _each("int uint double string", "uint", _to_uint),
    "double": _each("int uint double string", "double", _to_double),
    "string": _each("string bool int uint double bytes timestamp duration", "string", _to_string),
    "bytes": _each("string bytes", "bytes", _to_bytes),
    "timestamp": (
        Overload(("string",), "timestamp", lambda text, _: read_timestamp(text)),
        Overload(("timestamp",), "timestamp", _same),
    ),
    "duration": (
        Overload(("string",), "duration", lambda text, _: read_duration(text)),
        Overload(("duration",), "duration", _same),
    ),
    "type": (Overload((ANY,), "type", _type),),
    "dyn": (Overload((ANY,), "dyn", _same),),
}
"""``f(x)``."""
METHODS: dict[str, tuple[Overload, ...]] = {
    "size": _SIZES,
    "contains": (Overload(_TEXTS, "bool", _contains),),
    "startsWith": (Overload(_TEXTS, "bool", lambda text, part, _: text.startswith(part)),),
    "endsWith": (Overload(_TEXTS, "bool", lambda text, part, _: text.endswith(part)),),
    "matches": (Overload(_TEXTS, "bool", matches),),
    **{name: tuple(_getters(name)) for name in _FIELDS},
}
"""``x.f(y)``."""
TYPES = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type"})
"""Names that are types, for ``type(x) == int``."""


def overloads(name: str, *, method: bool) -> tuple[Overload, ...]:
    """The ways to call a function; empty if there is no such function."""
    return (METHODS if method else FUNCTIONS).get(name, ())


def signatures(name: str, *, method: bool) -> str:
    """The ways to call a function, in words."""
    return ", ".join(signature(name, each, method) for each in overloads(name, method=method))


def signature(name: str, overload: Overload, method: bool) -> str:
    """One way to call it: ``string.contains(string)``."""
    takes = overload.takes
    if method:
        return f"{takes[0]}.{name}({', '.join(takes[1:])})"
    return f"{name}({', '.join(takes)})"
