"""What are the results of ``+ - * / %``?

Whole numbers have 64 bits, as in CEL: a result that does not fit is an error, never rounded or
wrapped.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from multiagents.workflows.cel.values import (
    INT_MAX,
    UINT_MAX,
    Duration,
    Spend,
    Timestamp,
    Uint,
    kind_of,
    quotient,
)

_FIRST_NS = -62_135_596_800 * 1_000_000_000
_LAST_NS = 253_402_300_800 * 1_000_000_000 - 1
"""Year 1 to 9999."""


class Undefined(ValueError):
    """The operands fit the operator, but there is no result."""


def calculate(sign: str, one: Any, other: Any, spend: Spend) -> Any:
    """The result.  Raises LookupError if the operator does not take these, or Undefined."""
    kind, second = kind_of(one), kind_of(other)
    run = _SAME[kind][sign] if kind == second and kind in _SAME else _MIXED[sign, kind, second]
    if kind in _GROWING:
        spend((len(one) + len(other)) // _GROWING[kind])
    return run(one, other)


def negative(value: Any) -> Any:
    """The value with the other sign.  Raises LookupError if its kind has none, or Undefined."""
    return _NEGATIVE[kind_of(value)](value)


def _fits(value: int) -> int:
    if -INT_MAX - 1 <= value <= INT_MAX:
        return value
    raise Undefined("arithmetic overflow: the result does not fit in 64 bits")


def _unsigned(value: int) -> Uint:
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise Undefined("arithmetic overflow: the result does not fit in 64 bits without a sign")


def _whole(one: int, other: int) -> int:
    if not other:
        raise Undefined("division by zero")
    return quotient(one, other)


def _rest(one: int, other: int) -> int:
    if not other:
        raise Undefined("modulo by zero")
    return one - other * quotient(one, other)


def _ratio(one: float, other: float) -> float:
    if other:
        return one / other
    if not one or math.isnan(one):
        return math.nan
    return math.copysign(math.inf, one) * math.copysign(1, other)


def _time(ns: int, offset_s: int) -> Timestamp:
    if _FIRST_NS <= ns <= _LAST_NS:
        return Timestamp(ns, offset_s)
    raise Undefined("arithmetic overflow: the time is outside of the years 1 to 9999")


def _length(ns: int) -> Duration:
    if abs(ns) <= INT_MAX:
        return Duration(ns)
    raise Undefined("arithmetic overflow: the duration is longer than 292 years")


Binary = Callable[[Any, Any], Any]


def _with(check: Callable[[Any], Any], run: Binary) -> Binary:
    return lambda one, other: check(run(one, other))


_WHOLE: dict[str, Binary] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _whole,
    "%": _rest,
}
_SAME: dict[str, dict[str, Binary]] = {
    "int": {sign: _with(_fits, run) for sign, run in _WHOLE.items()},
    "uint": {
        sign: lambda one, other, run=run: _unsigned(run(int(one), int(other)))  # type: ignore[misc]
        for sign, run in _WHOLE.items()
    },
    "double": {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": _ratio},
    "string": {"+": operator.add},
    "bytes": {"+": operator.add},
    "list": {"+": operator.add},
    "duration": {
        "+": lambda one, other: _length(one.ns + other.ns),
        "-": lambda one, other: _length(one.ns - other.ns),
    },
    "timestamp": {"-": lambda one, other: _length(one.ns - other.ns)},
}
_MIXED: dict[tuple[str, str, str], Binary] = {
    ("+", "timestamp", "duration"): lambda at, by: _time(at.ns + by.ns, at.offset_s),
    ("+", "duration", "timestamp"): lambda by, at: _time(at.ns + by.ns, at.offset_s),
    ("-", "timestamp", "duration"): lambda at, by: _time(at.ns - by.ns, at.offset_s),
}
_NEGATIVE: dict[str, Callable[[Any], Any]] = {"int": lambda x: _fits(-x), "double": operator.neg}
_GROWING = {"string": 128, "bytes": 128, "list": 1}
"""The kinds that grow by addition, and the elements that count as one operation."""


def result_kind(sign: str, one: str, other: str) -> str | None:
    """The kind of the result for operands of these kinds; None if there is none."""
    if one == other and sign in _SAME.get(one, {}):
        return "duration" if one == "timestamp" else one
    return "timestamp" if (sign, one, other) in _MIXED else None
