"""Which plain JSON value represents a value that JSON does not have?

Every value that kombu's JSON accepts has a form here.  So a saga can have the arguments and results
of any Celery task.  The form is the text that an API and a user expect, without kombu's envelope
(``{"__type__": …}``): conditions, users and other programs read saga data.

Rules: a form depends only on the type (bytes are always base64, even if they are UTF-8).  A value
that would lose information is refused: a naive datetime, NaN, two keys that become one.  No I/O, no
clock.
"""

from __future__ import annotations

import math
import re
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

MOST_LEVELS = 200
"""A deeper value counts as one that contains itself."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ENVELOPE = {"__type__", "__value__"}
_CONSTANTS = {None: "null", True: "true", False: "false"}


class NoPlainValue(ValueError):
    """A part of a value has no form in JSON; the message names its key."""


def plain(value: Any, path: str = "", depth: int = 0) -> Any:
    """The value with only str, int, float, bool, None, list and dict.

    UUID, Decimal, date, datetime and time become text, bytes base64, tuples lists, and number keys
    text.  Objects with ``__json__``, Django's lazy texts and types registered with kombu are
    converted, too.  Raises NoPlainValue.
    """
    if depth > MOST_LEVELS:
        raise _flaw(path, f"is nested deeper than {MOST_LEVELS} levels or contains itself")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, float):
        return _number(value, path)
    if isinstance(value, dict):
        return _mapping(value, path, depth)
    if isinstance(value, list | tuple):
        return _sequence(value, path, depth)
    return plain(_stand_in(value, path), path, depth + 1)


def _text(value: str, path: str) -> str:
    if not _encodable(value):
        raise _flaw(path, "has half of a surrogate pair, which UTF-8 does not have: clean the text")
    return str.__str__(value)


def _number(value: float, path: str) -> float:
    if not math.isfinite(value):
        advice = "JSON has no NaN and no infinity: use None or leave it out"
        raise _flaw(path, f"is {float(value)!r}; {advice}")
    return value


def _mapping(value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        text = _key(key, path)
        if text in found:
            raise _flaw(path, f"has two keys that become the text {text!r}: rename one")
        found[text] = plain(item, _join(path, text), depth + 1)
    return found


def _sequence(value: Sequence[Any], path: str, depth: int) -> list[Any]:
    return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]


def _key(key: Any, path: str) -> str:
    """A key in the form of Python's own JSON."""
    if isinstance(key, str):
        if not _encodable(key):
            raise _flaw(path, f"has the key {key!r} with half of a surrogate pair: clean the text")
        return str.__str__(key)
    if key is None or isinstance(key, bool):
        return _CONSTANTS[key]
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float) and math.isfinite(key):
        return float.__repr__(key)
    wanted = "JSON wants str keys: convert it"
    raise _flaw(path, f"has the key {key!r} ({type(key).__name__}); {wanted}")


def _stand_in(value: Any, path: str) -> Any:
    for kind, form in _FORMS.items():
        if isinstance(value, kind) and not hasattr(value, "__json__"):
            try:
                return form(value)
            except ValueError as error:
                raise _flaw(path, f"is {error}") from error
    try:
        found = _encoded(value)
    except TypeError as error:
        raise _flaw(
            path,
            f"is {_a(type(value).__name__)}; JSON wants str, int, float, bool, None, list or dict:"
            " convert it",
        ) from error
    enveloped = isinstance(found, dict) and found.keys() == _ENVELOPE
    return found["__value__"] if enveloped else found


def _encoded(value: Any) -> Any:
    """A value in the form of kombu's encoder.  Raises TypeError if there is none.

    A type can be registered with kombu, or be Django's lazy text, only if the program has imported
    kombu or Django.  So this function imports neither.
    """
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    kombu = sys.modules.get("kombu.utils.json")
    if kombu is not None:
        return kombu.JSONEncoder().default(value)
    django = sys.modules.get("django.utils.functional")
    if django is not None and isinstance(value, django.Promise):
        return str(value)
    raise TypeError(f"no form of {type(value).__name__} is known")


def _datetime(value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError("a datetime without a time zone: give it one, as in datetime.now(UTC)")
    return value.isoformat()


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"Decimal({str(value)!r}): use None or leave it out")
    return str(value)


def _bytes(value: bytes) -> str:
    return b64encode(value).decode()


_FORMS: dict[type, Callable[[Any], str]] = {
    UUID: str,
    Decimal: _decimal,
    datetime: _datetime,  # before date, whose subclass it is
    date: date.isoformat,
    time: time.isoformat,
    bytes: _bytes,
}


def _flaw(path: str, what: str) -> NoPlainValue:
    return NoPlainValue(f"{f'key {path!r}' if path else 'it'} {what}")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIO' else 'a'} {noun}"


def _join(path: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
