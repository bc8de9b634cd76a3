"""Which values does a log hide?

Values whose names mean a secret, and secrets inside text: passwords in URLs, bearer tokens,
``password=...``.  Names are compared word by word (``apiKey``, ``X-Api-Key`` and ``api_key`` are
the same), so that ``max_tokens`` or ``secretary`` stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from itertools import pairwise
from typing import Any

HIDDEN = "***"
MAX_DEPTH = 8
"""Deeper values are hidden as a whole, because they may be cyclic."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "apikey"}
    | {"authorization", "credential", "credentials", "cookie"}
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("private", "key"), ("encryption", "key"), ("auth", "key")}
)
_IN_TEXT = (
    # Up to the last @, since a password may hold an @, a /, a ? or a #.
    (re.compile(r"(?<=://)[^@\s\"]*:[^\s\"]*(?=@)"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)\b((?:[\w-]*[_-])?(?:password|passwd|pwd|secret|token|api[_-]?key|apikey"
            r"|access[_-]?key|private[_-]?key|authorization)[\"']?\s*[=:]\s*)"
            r"(?!bearer|basic)(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)"
        ),
        rf"\1{HIDDEN}",
    ),
)


def redact(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the record's fields without their secrets."""
    return {name: _field(name, value, 0) for name, value in fields.items()}


def hide(text: str) -> str:
    """``text`` with the secrets in it replaced."""
    for pattern, replacement in _IN_TEXT:
        text = pattern.sub(replacement, text)
    return text


def is_secret(name: str, value: Any = "") -> bool:
    """Whether a value of that name is hidden; a number only if the name *ends* in a secret word.

    ``token_count=512`` is shown, ``token=512`` is hidden; None and booleans are never secrets.
    """
    if value is None or isinstance(value, bool):
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    if isinstance(value, int | float):
        words = words[-1:] if words[-1:] != ["key"] else words[-2:]
    return not _SECRET_WORDS.isdisjoint(words) or not _SECRET_PAIRS.isdisjoint(pairwise(words))


def _field(name: Any, value: Any, depth: int) -> Any:
    return HIDDEN if is_secret(str(name), value) else _value(value, depth)


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return hide(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= MAX_DEPTH:
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: _field(key, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_value(inner, depth + 1) for inner in value]
    return hide(repr(value) if isinstance(value, BaseException) else str(value))
